"""Independent bits: normalized, drawn as they say, exact where certain."""

import itertools
import math

import pytest
import torch

from env.masks.cells import Cells
from env.masks.law import LearnedMaskLaw, MaskDraw


def some_logits(n=1, grid=2, seed=0):
    return torch.randn(n, grid, grid, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_mask(grid):
    return torch.tensor(list(itertools.product([False, True], repeat=grid * grid))).view(-1, grid, grid)


def test_probabilities_of_all_masks_add_up_to_one_and_give_entropy_ratio_and_marginals():
    masks, law = every_mask(2), Cells(some_logits())
    assert isinstance(law, LearnedMaskLaw)
    log_p = Cells(law.logits.expand(16, -1, -1)).log_prob(MaskDraw(masks))
    p = log_p.exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert law.entropy().item() == pytest.approx(-(p * log_p).sum().item(), abs=1e-12)
    marginal = (p[:, None, None] * masks).sum(dim=0)  # 1 = hidden
    assert torch.allclose(law.probabilities()[0], marginal)
    assert law.ratio().item() == pytest.approx(marginal.mean().item(), abs=1e-12)


def test_draws_follow_the_probabilities():
    n = 20_000
    law = Cells(some_logits(seed=1).expand(n, -1, -1))
    share = law.sample(torch.Generator().manual_seed(0)).mask.double().mean(dim=0)
    p = law.probabilities()[0]
    assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()


def test_the_mode_is_the_most_probable_mask():
    masks, law = every_mask(2), Cells(some_logits(seed=2))
    best = Cells(law.logits.expand(16, -1, -1)).log_prob(MaskDraw(masks)).argmax()
    assert torch.equal(law.mode().mask[0], masks[best])
    assert not Cells(torch.zeros(1, 2, 2)).mode().mask.any()


def test_log_probability_has_the_right_gradient():
    masks = every_mask(2)

    def log_prob(logits):
        return Cells(logits).log_prob(MaskDraw(masks))

    assert torch.autograd.gradcheck(log_prob, (some_logits(n=16).requires_grad_(),))


def test_certain_cells_are_exact():
    law = Cells(torch.tensor([[[math.inf, -math.inf]] * 2]).expand(1000, -1, -1))
    draw = law.sample(torch.Generator().manual_seed(0))
    assert draw.mask[:, :, 0].all()
    assert not draw.mask[:, :, 1].any()
    assert torch.equal(law.log_prob(draw), torch.zeros(1000))
    assert torch.equal(law.entropy(), torch.zeros(1000))


def test_draws_repeat_with_the_seed_and_differ_between_images():
    law = Cells(torch.zeros(64, 8, 8))
    first, again, other = (law.sample(torch.Generator().manual_seed(s)).mask for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(1).unique(dim=0)) == 64
