"""Rewards in any unit come out in one."""

import pytest
import torch

from policy.scaling import REMEMBERED, MovingAverage, Quantiles, RunningScale, Scaling

CPU = torch.device("cpu")


def test_moving_average_is_the_weighted_mean_of_what_it_saw():
    average = MovingAverage.start(0.9, CPU)
    assert average.value == 0
    seen = [3.0, -1.0, 4.0, 1.0]
    for x in seen:
        average.update(torch.tensor(x))
    weights = [0.9 ** (len(seen) - 1 - i) for i in range(len(seen))]
    expected = sum(w * x for w, x in zip(weights, seen, strict=True)) / sum(weights)
    assert average.value.item() == pytest.approx(expected, rel=1e-6)
    resumed = MovingAverage.start(0.9, CPU)
    resumed.load_state_dict({name: value.clone() for name, value in average.state_dict().items()})
    resumed.update(torch.tensor(2.0))
    average.update(torch.tensor(2.0))
    assert torch.equal(resumed.value, average.value)


def test_scaled_advantages_do_not_depend_on_the_rewards_unit():
    generator = torch.Generator().manual_seed(0)
    small, large = (RunningScale.start(0.9, CPU) for _ in range(2))
    for _ in range(5):
        a = torch.randn(64, generator=generator)
        small.update(1e-4 * a)
        large.update(1e4 * a)
    assert torch.allclose(small.scale(1e-4 * a), large.scale(1e4 * a), rtol=1e-3)
    assert large.scale(1e4 * a).square().mean().sqrt().item() == pytest.approx(1, abs=0.2)
    zero = RunningScale.start(0.9, CPU)
    zero.update(torch.zeros(4))
    assert torch.equal(zero.scale(torch.zeros(4)), torch.zeros(4))


def test_the_20_and_80_percent_quantiles_become_minus_one_and_one():
    rewards = torch.linspace(-3, 7, 101)  # quantiles -1 and 5
    expected = (2 * (rewards + 1) / 6 - 1).clamp(-1, 1)
    mapped = Quantiles(CPU)(rewards)
    assert torch.allclose(mapped, expected, atol=1e-5)
    assert mapped.min() == -1
    assert mapped.max() == 1


def test_quantiles_are_those_of_past_batches_too_until_they_are_forgotten():
    quantiles = Quantiles(CPU)
    quantiles(torch.linspace(0, 1, REMEMBERED))
    here = torch.tensor([[0.2, 0.5], [0.8, 100.0]])
    assert torch.allclose(quantiles(here), torch.tensor([[-1.0, 0.0], [1.0, 1.0]]), atol=1e-2)
    assert len(quantiles.seen) == REMEMBERED
    quantiles(torch.linspace(10, 11, REMEMBERED + 5))  # larger than what is remembered
    assert len(quantiles.seen) == REMEMBERED
    assert torch.allclose(quantiles(torch.tensor([10.2, 10.5, 0.5])), torch.tensor([-1.0, 0.0, -1.0]), atol=1e-2)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-6, 3e5])
def test_a_reward_that_never_changes_is_zero(value):
    quantiles = Quantiles(CPU)
    for _ in range(3):
        assert torch.equal(quantiles(torch.full((2, 3), value)), torch.zeros(2, 3))


def test_one_reward_apart_from_many_equal_ones_is_cut():
    rewards = torch.tensor([1.0] * 8 + [5.0, -5.0])
    assert torch.equal(Quantiles(CPU)(rewards), torch.tensor([0.0] * 8 + [1.0, -1.0]))


@pytest.mark.parametrize(("kind", "scales_rewards", "scales_advantages"), [
    ("rms", False, True), ("quantiles", True, False), ("none", False, False),
])  # fmt: skip
def test_each_kind_acts_where_it_should_and_goes_on_bit_for_bit(kind, scales_rewards, scales_advantages):
    generator = torch.Generator().manual_seed(0)
    scaling, restored = Scaling(kind, 0.9, CPU), Scaling(kind, 0.9, CPU)
    batches = [50 * torch.randn(2, 8, generator=generator).requires_grad_() for _ in range(4)]
    for r in batches[:3]:
        assert torch.equal(scaling.rewards(r), r) != scales_rewards
        assert torch.equal(scaling.advantages(r), r) != scales_advantages
        assert not scaling.rewards(r).requires_grad
    restored.load_state_dict(scaling.state_dict())
    for scale in ("rewards", "advantages"):
        assert torch.equal(getattr(scaling, scale)(batches[3]), getattr(restored, scale)(batches[3]))
