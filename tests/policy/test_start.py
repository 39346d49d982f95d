"""A policy begins with another's weights where they mean the same, and says what differs where they do not."""

import pytest
import torch

from configs.errors import UsageError
from configs.policy import PolicyConfig
from policy.build import build
from policy.export import export
from policy.start import start_from


def policy(name="learned", size=16, code_length=4, **settings):
    return build(PolicyConfig(name=name, **{"width": 8, **settings}), size, code_length)


@pytest.mark.parametrize(
    ("found", "new"),
    [
        (policy(), policy(mask_ratio=0.6)),
        (policy("latent"), policy("latent", mask="smooth")),
        (policy("autodropout"), policy("autodropout", grid=8, width=16, mask="budget")),
    ],
    ids=["learned", "latent", "autodropout"],
)
def test_what_the_weights_do_not_depend_on_may_differ(found, new, tmp_path):
    for weights in found.parameters():
        torch.nn.init.normal_(weights)
    start_from(new, export(found, tmp_path, {}))
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in new.state_dict().items())


@pytest.mark.parametrize(
    ("found", "new", "said"),
    [
        (policy(), policy(grid=8), "--policy.grid 4 there, 8 here"),
        (policy(), policy(width=16), "--policy.width 8 there, 16 here"),
        (policy(), policy(mask="smooth"), "--policy.mask cells there, smooth here"),
        (policy(), policy(size=32, grid=8), "--data.size 16 there, 32 here; --policy.grid 4 there, 8 here"),
        (policy("latent"), policy("latent", code_length=6), "length of the --generator's codes 4 there, 6 here"),
        (policy("latent"), policy(), "--policy latent there, learned here"),
        (policy(), policy("autodropout"), "--policy learned there, autodropout here"),
    ],
)
def test_weights_that_mean_something_else_are_refused(found, new, said, tmp_path):
    with pytest.raises(UsageError, match=f"is another kind of policy: {said}$"):
        start_from(new, export(found, tmp_path, {}))
