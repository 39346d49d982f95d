"""A run gets the loss that it asked for, with the settings that it asked for."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from configs.contrastive import ContrastiveConfig, LossName
from configs.errors import UsageError
from contrastive import losses
from contrastive.contrast import Contrast

IMAGES = 20
ROWS = torch.tensor([4, 17, 0, 9])
T, Q, LAMBDA, PULL = 0.3, 0.4, 0.05, 0.7

EXPECTED = {
    "ntxent": lambda u: losses.ntxent(u, T),
    "supcon": lambda u: losses.ntxent(u, T),
    "stablerep": lambda u: losses.ntxent(u, T),
    "paper": lambda u: losses.paper(u, T),
    "l-in": lambda u: losses.l_in(u, T),
    "sincere": lambda u: losses.sincere(u, T),
    "dcl": lambda u: losses.dcl(u, T),
    "rince": lambda u: losses.rince(u, T, Q, LAMBDA),
    "cosine-pull": lambda u: losses.cosine_pull(u, T, PULL),
}


def views(k):
    return F.normalize(torch.randn(k, len(ROWS), 8, generator=torch.Generator().manual_seed(k)), dim=-1)


def contrast(loss, **settings):
    numbers = {"temperature": T, "rince_q": Q, "rince_lambda": LAMBDA, "pull": PULL, "projection": 8} | settings
    return Contrast(ContrastiveConfig(loss=loss, **numbers), IMAGES)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("loss", EXPECTED)
def test_the_loss_is_the_one_of_its_name(loss, k):
    module = contrast(loss)
    assert torch.equal(module(views(k), ROWS), EXPECTED[loss](views(k)))
    assert not list(module.parameters())


def test_every_name_is_known():
    assert set(EXPECTED) | {"spherical"} == set(get_args(LossName))


def test_spherical_learns_a_vector_for_each_image_and_asks_for_the_rows():
    module = contrast("spherical")
    assert [tuple(p.shape) for p in module.parameters()] == [(IMAGES, 8)]
    loss = module(views(2), ROWS)
    assert torch.equal(loss, module.spherical(views(2), ROWS))
    assert not torch.allclose(loss, module(views(2), ROWS.roll(1)))


def test_an_exponential_beyond_float32_is_refused():
    with pytest.raises(UsageError, match=r"--contrastive.rince-q 1 .* 0.01"):
        contrast("rince", rince_q=1.0, temperature=0.01)
    agreeing = F.normalize(torch.ones(2, 4, 8), dim=-1).requires_grad_()
    loss = contrast("rince", rince_q=0.3, temperature=0.01)(agreeing, ROWS).sum()
    (gradient,) = torch.autograd.grad(loss, agreeing)
    assert loss.isfinite()
    assert 1e13 < gradient.norm() < 1e17  # its square is far from the largest number, 3e38


def test_a_loss_runs_under_functional_call():
    """As rewards ask for it: other weights in, the module's own untouched."""
    module = contrast("spherical")
    other = {"spherical.weight": torch.randn(IMAGES, 8)}
    changed = torch.func.functional_call(module, other, (views(2), ROWS))
    assert not torch.allclose(changed, module(views(2), ROWS))
