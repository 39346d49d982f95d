"""The action distribution: normalized, drawn as it says, exact at rates of 0 and 1."""

import itertools
import math

import pytest
import torch

from env.corruption import Action
from env.distribution import CorruptionDistribution, fixed_rates
from env.masks.cells import Cells

CPU = torch.device("cpu")


def all_actions(grid):
    """Every action on a grid x grid mask."""
    bits = list(itertools.product([False, True], repeat=grid * grid))
    rows = list(itertools.product(bits, range(3), [False, True]))
    return Action(
        mask=torch.tensor([row[0] for row in rows]).view(-1, grid, grid),
        downsample=torch.tensor([row[1] for row in rows]),
        decolorize=torch.tensor([row[2] for row in rows]),
    )


def some_distribution(n, grid, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((n, grid, grid), (n, 3), (n,))
    mask, factor, gray = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return CorruptionDistribution(Cells(mask), factor, gray)


def repeated(pi, n):
    """One image's distribution, n times."""
    return CorruptionDistribution(
        Cells(pi.mask.logits.expand(n, -1, -1)), pi.downsample_logits.expand(n, -1), pi.decolorize_logits.expand(n)
    )


def test_probabilities_of_all_actions_add_up_to_one_and_give_the_entropy():
    actions, pi = all_actions(2), some_distribution(1, 2)
    log_p = repeated(pi, len(actions)).log_prob(actions)
    assert len(actions) == 96
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert pi.entropy().item() == pytest.approx(-(log_p.exp() * log_p).sum().item(), abs=1e-12)


def test_log_probability_is_the_sum_over_the_parts():
    pi = some_distribution(1, 2)
    p = {name: value[0] for name, value in pi.probabilities().items()}
    action = Action(torch.tensor([[[True, False], [False, True]]]), torch.tensor([2]), torch.tensor([False]))
    mask = p["mask"]
    expected = mask[0, 0] * (1 - mask[0, 1]) * (1 - mask[1, 0]) * mask[1, 1] * p["downsample"][2]
    expected = expected * (1 - p["decolorize"])
    assert pi.log_prob(action).exp().item() == pytest.approx(expected.item(), rel=1e-12)


def test_draws_follow_the_probabilities():
    n = 20_000
    pi = repeated(some_distribution(1, 2, seed=3, dtype=torch.float32), n)
    action = pi.sample(torch.Generator().manual_seed(0))
    p = {name: value[0] for name, value in pi.probabilities().items()}
    drawn = {
        "mask": action.mask.float().mean(dim=0),
        "downsample": torch.bincount(action.downsample, minlength=3) / n,
        "decolorize": action.decolorize.float().mean(),
    }
    for name, expected in p.items():
        deviation = (expected * (1 - expected) / n).sqrt()
        assert ((drawn[name] - expected).abs() < 4 * deviation).all(), name
    # Independent cells: the joint frequency of two is the product.
    both = (action.mask[:, 0, 0] & action.mask[:, 1, 1]).float().mean()
    assert abs(both - p["mask"][0, 0] * p["mask"][1, 1]) < 4 * 0.5 / math.sqrt(n)


def test_draws_repeat_with_the_seed_and_carry_no_gradient():
    pi = some_distribution(50, 4)
    pi.mask.logits.requires_grad_()
    first, again, other = (pi.sample(torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.mask, again.mask)
    assert torch.equal(first.downsample, again.downsample)
    assert torch.equal(first.decolorize, again.decolorize)
    assert not torch.equal(first.mask, other.mask)


@pytest.mark.parametrize("certain", [0.0, 1.0])
@pytest.mark.parametrize("downsample", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_rates_of_zero_and_one_are_exact(certain, downsample):
    n = 1000
    pi = fixed_rates(n, 4, certain, certain, downsample, CPU)
    action = pi.sample(torch.Generator().manual_seed(0))
    factor = 0 if sum(downsample) == 0 else 1 + downsample.index(1.0)
    assert (action.mask == bool(certain)).all()
    assert (action.decolorize == bool(certain)).all()
    assert (action.downsample == factor).all()
    assert torch.equal(pi.log_prob(action), torch.zeros(n))
    assert torch.equal(pi.entropy(), torch.zeros(n))
    assert torch.equal(pi.mask_ratio(), torch.full((n,), certain))
    impossible = Action(~action.mask, action.downsample, action.decolorize)
    assert (pi.log_prob(impossible) == -math.inf).all()
    assert torch.equal(pi.mode().mask, action.mask)
    assert torch.equal(pi.mode().downsample, action.downsample)


def test_fixed_rates_are_the_rates_asked_for():
    p = fixed_rates(3, 2, 0.3, 0.9, (0.1, 0.25), CPU).probabilities()
    assert torch.allclose(p["mask"], torch.full((3, 2, 2), 0.3))
    assert torch.allclose(p["decolorize"], torch.full((3,), 0.9))
    assert torch.allclose(p["downsample"], torch.tensor([0.65, 0.1, 0.25]).expand(3, 3))


def test_a_factor_of_probability_zero_is_never_drawn():
    action = fixed_rates(50_000, 1, 0.5, 0.5, (0.7, 0.3), CPU).sample(torch.Generator().manual_seed(0))
    assert (action.downsample != 0).all()


def test_mode_is_the_most_probable_action():
    actions, pi = all_actions(2), some_distribution(1, 2, seed=5)
    best = repeated(pi, len(actions)).log_prob(actions).argmax()
    mode = pi.mode()
    assert torch.equal(mode.mask[0], actions.mask[best])
    assert mode.downsample[0] == actions.downsample[best]
    assert mode.decolorize[0] == actions.decolorize[best]
