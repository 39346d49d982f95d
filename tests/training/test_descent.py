"""A step whose gradient is not finite changes nothing, and is counted."""

import copy

import pytest
import torch
from torch import nn

from configs.errors import UsageError
from training import checkpoint
from training.descent import Descent
from training.ranks import Ranks


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def loss_of(module, seed):
    return module(torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))).square().mean()


def everything(module, descent):
    """Weights, Adam's moments and step counts."""
    kept = [p.detach().clone() for p in module.parameters()]
    for state in descent.optimizer.state.values():
        kept += [state[name].clone() for name in ("exp_avg", "exp_avg_sq", "step")]
    return kept


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_skipped_and_counted(module, factor, steps_before):
    descent = Descent(module, 1e-2, weight_decay=0.1, clip=1.0)
    for seed in range(steps_before):
        descent.step(loss_of(module, seed))
    before = everything(module, descent)
    norm = descent.step(loss_of(module, 9) * factor)
    assert not norm.isfinite()
    assert descent.skipped == 1
    if steps_before:
        assert all(torch.equal(a, b) for a, b in zip(before, everything(module, descent), strict=True))
    else:
        assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=False))
    descent.step(loss_of(module, 10))
    assert descent.skipped == 1
    assert not all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=False))


def test_after_a_skipped_step_all_goes_on_as_if_it_had_not_been():
    ends = []
    for planted in (False, True):
        torch.manual_seed(0)
        module = nn.Linear(3, 1)
        descent = Descent(module, 1e-2, weight_decay=0.1)
        for seed in range(6):
            if planted and seed in (0, 4):
                descent.step(loss_of(module, 50) * float("nan"))
            descent.step(loss_of(module, seed))
        ends.append(everything(module, descent))
        assert descent.skipped == 2 * planted
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_the_share_scales_the_step_and_the_loss_falls(module):
    descent = Descent(module, 1e-2)
    before = [p.detach().clone() for p in module.parameters()]
    descent.step(loss_of(module, 0), share=0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    start = loss_of(module, 0)
    for _ in range(20):
        descent.step(loss_of(module, 0))
    assert loss_of(module, 0) < start
    assert descent.skipped == 0


def test_the_norm_is_told_before_clipping(module):
    descent = Descent(module, 1e-2, clip=1e-3)
    assert descent.step(loss_of(module, 0)) > 1e-2
    squares = torch.stack([p.grad.square().sum() for p in module.parameters()])
    assert squares.sum().sqrt().item() == pytest.approx(1e-3, rel=1e-3)


def test_the_mean_over_the_ranks_is_what_is_clipped(module, monkeypatch):
    """Here the other rank's gradient is three times this one's: the mean is twice it."""
    monkeypatch.setattr(Ranks, "_reduce", lambda self, tensor, how=None: tensor * 4)
    twin = copy.deepcopy(module)
    own = Descent(twin, 1e-2).step(loss_of(twin, 0))
    descent = Descent(module, 1e-2, clip=1e-3, ranks=Ranks(0, 2))
    assert descent.step(loss_of(module, 0)).item() == pytest.approx(2 * own.item(), rel=1e-5)
    squares = torch.stack([p.grad.square().sum() for p in module.parameters()])
    assert squares.sum().sqrt().item() == pytest.approx(1e-3, rel=1e-3)


def test_the_preconditioner_is_adams_diagonal(module):
    """With the first moment equal to the gradient, Adam's step is η P g."""
    descent = Descent(module, 1e-2)
    gradient = [torch.full_like(p, 0.5) for p in module.parameters()]
    assert descent.precondition(gradient) is gradient  # no moments yet
    descent.step(loss_of(module, 0))
    for p, state in zip(module.parameters(), descent.optimizer.state.values(), strict=True):
        assert torch.allclose(state["exp_avg_sq"] / (1 - 0.999), p.grad.square(), rtol=1e-3, atol=1e-12)
    gradient = [p.grad.clone() for p in module.parameters()]
    scaled = descent.precondition(gradient)
    for s, g in zip(scaled, gradient, strict=True):
        assert torch.allclose(s, g / (g.abs() + 1e-8), rtol=1e-3, atol=1e-6)  # v̂ = g² after one step


def test_a_checkpoint_goes_on_bit_for_bit(module):
    descent = Descent(module, 1e-2, weight_decay=0.1)
    for seed in range(3):
        descent.step(loss_of(module, seed))
    descent.step(loss_of(module, 3) * float("nan"))
    twin = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    twin.load_state_dict(module.state_dict())
    again = Descent(twin, 1e-2, weight_decay=0.1)
    again.load_state_dict(copy.deepcopy(descent.state_dict()))
    assert again.skipped == 1
    for seed in range(4, 7):
        descent.step(loss_of(module, seed))
        again.step(loss_of(twin, seed))
    assert all(torch.equal(a, b) for a, b in zip(everything(module, descent), everything(twin, again), strict=True))


def test_a_checkpoint_goes_on_where_weights_lie_channels_last(tmp_path):
    """As camnet.train has them on a GPU, whose fused AdamW refuses moments with strides other than the weights'."""

    def begun():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Conv2d(5, 2, 3)).to(memory_format=torch.channels_last)
        return module, Descent(module, 1e-2, weight_decay=0.1)

    def step(module, descent, seed):
        descent.step(module(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).square().mean())

    (module, descent), (twin, again) = begun(), begun()
    step(module, descent, 0)
    checkpoint.save(tmp_path, 1, {"module": module.state_dict(), "descent": descent.state_dict()})
    saved = checkpoint.newest_valid(tmp_path, pytest.fail)
    assert saved is not None
    twin.load_state_dict(saved.state["module"])
    again.load_state_dict(saved.state["descent"])
    assert not twin[0].weight.is_contiguous()
    for p, state in again.optimizer.state.items():
        assert p.stride() == state["exp_avg"].stride() == state["exp_avg_sq"].stride()
    step(module, descent, 1)
    step(twin, again, 1)
    assert all(torch.equal(a, b) for a, b in zip(everything(module, descent), everything(twin, again), strict=True))


def test_moments_of_other_parameters_are_refused():
    """An older version may have listed the same parameters in another order."""
    narrow, wide = nn.Linear(2, 3), nn.Linear(4, 3)
    one, other = (Descent(part, 0.1) for part in (narrow, wide))
    one.step(narrow(torch.ones(1, 2)).sum())
    with pytest.raises(UsageError, match=r"optimizer does not fit the network: .* under another name"):
        other.load_state_dict(copy.deepcopy(one.state_dict()))
