"""Exactly k cells: the probability of a set is exact, and draws follow it."""

import itertools
import math

import pytest
import torch

from env.masks.budget import Budget, largest, log_times, perturbed, set_log_prob
from env.masks.law import LearnedMaskLaw, MaskDraw


def some_logits(n, grid, seed=0, bound=4.6):
    uniform = torch.rand(n, grid, grid, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return bound * (2 * uniform - 1)


def every_set(grid, k):
    """All masks with k hidden cells."""
    rows = list(itertools.combinations(range(grid * grid), k))
    masks = torch.zeros(len(rows), grid * grid, dtype=torch.bool)
    for mask, row in zip(masks, rows, strict=True):
        mask[list(row)] = True
    return masks.view(-1, grid, grid)


def probabilities_of_all(logits, k):
    masks = every_set(logits.shape[-1], k)
    law = Budget(logits.expand(len(masks), -1, -1), k)
    return masks, law.log_prob(MaskDraw(masks))


def by_orders(logits, chosen):
    """Sum over the orders in which the set can be picked, each pick in proportion to its weight among what is left."""
    weight = logits.flatten().exp().tolist()
    total = 0.0
    for order in itertools.permutations(torch.nonzero(chosen.flatten()).flatten().tolist()):
        left, p = sum(weight), 1.0
        for i in order:
            p, left = p * weight[i] / left, left - weight[i]
        total += p
    return math.log(total)


def by_many_nodes(logits, chosen):
    """The integral over log t with 20,001 equal steps."""
    log_w = logits[chosen].double() - logits[~chosen].double().logsumexp(dim=0)
    x = torch.linspace(-45, 9, 20_001, dtype=torch.float64)
    value = x - x.exp()
    for w in log_w:
        value = value + (-torch.expm1(-(x + w).exp())).log()
    return (value.logsumexp(dim=0) + math.log(54 / 20_000)).item()


def test_it_is_a_law_that_can_be_learned():
    assert isinstance(Budget(torch.zeros(1, 2, 2), 1), LearnedMaskLaw)


@pytest.mark.parametrize("k", range(10))
def test_exactly_k_cells_are_hidden(k):
    law = Budget(some_logits(200, 3).float(), k)
    for draw in (law.sample(torch.Generator().manual_seed(0)), law.mode(), Budget(torch.zeros(200, 3, 3), k).mode()):
        assert (draw.mask.sum(dim=(1, 2)) == k).all()
    assert torch.equal(law.ratio(), torch.full((200,), k / 9))


@pytest.mark.parametrize(("grid", "k"), [(2, 1), (2, 2), (2, 3), (3, 1), (3, 4), (3, 8)])
def test_probabilities_of_all_sets_add_up_to_one(grid, k):
    masks, log_p = probabilities_of_all(some_logits(1, grid, seed=k), k)
    assert len(masks) == math.comb(grid * grid, k)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_set_has_the_probability_of_all_its_orders(k):
    logits = some_logits(1, 3, seed=10 + k)
    masks, log_p = probabilities_of_all(logits, k)
    expected = [by_orders(logits, mask) for mask in masks]
    assert log_p.tolist() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("cells", "k"), [(16, 5), (64, 63), (256, 1), (256, 77), (256, 250)])
def test_sets_of_many_cells_are_scored_accurately_in_single_precision(cells, k):
    logits = some_logits(4, 16, seed=k).float().flatten(1)[:, :cells]
    likely = largest(perturbed(logits, torch.Generator().manual_seed(0)), k)
    unlikely = largest(-logits, k)
    for chosen, tolerance in ((likely, {"abs": 3e-5}), (unlikely, {"rel": 1e-6, "abs": 1e-5})):
        expected = [by_many_nodes(*row) for row in zip(logits, chosen, strict=True)]
        assert set_log_prob(logits, chosen, k).tolist() == pytest.approx(expected, **tolerance)


def test_draws_follow_the_probabilities():
    n, logits = 20_000, some_logits(1, 2, seed=3, bound=1.5)
    masks, log_p = probabilities_of_all(logits, 2)
    drawn = Budget(logits.expand(n, -1, -1), 2).sample(torch.Generator().manual_seed(0)).mask
    counts = (drawn[:, None] == masks).all(dim=(2, 3)).sum(dim=0)
    expected = n * log_p.exp()
    assert counts.sum() == n
    assert ((counts - expected).square() / expected).sum() < 20  # chi-square, 5 degrees of freedom: 99.9 % lie below


def test_log_probability_has_the_right_gradient():
    masks = every_set(2, 2)
    logits = some_logits(6, 2, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Budget(x, 2).log_prob(MaskDraw(masks)), (logits,))


def test_the_expected_score_is_zero():
    logits = some_logits(1, 3, seed=5).requires_grad_()
    _, log_p = probabilities_of_all(logits, 4)
    (score,) = torch.autograd.grad((log_p.exp().detach() * log_p).sum(), logits)
    assert score.abs().max() < 1e-8


@pytest.mark.parametrize("k", [0, 9])
def test_no_choice_has_log_probability_zero_and_a_harmless_gradient(k):
    logits = some_logits(3, 3).requires_grad_()
    law = Budget(logits, k)
    log_p = law.log_prob(law.sample(torch.Generator().manual_seed(0)))
    assert torch.equal(log_p, torch.zeros_like(log_p))
    assert torch.equal(torch.autograd.grad(log_p.sum(), logits)[0], torch.zeros_like(logits))
    assert torch.equal(law.probabilities(), torch.full_like(logits, k / 9))
    assert torch.equal(law.entropy(), torch.zeros_like(log_p))


@pytest.mark.parametrize("k", [0, 2, 4])
def test_another_number_of_hidden_cells_is_impossible(k):
    mask = torch.tensor([[[True, False], [False, False]]])
    assert Budget(torch.zeros(1, 2, 2), k).log_prob(MaskDraw(mask)).item() == -math.inf


def test_extreme_logits_stay_finite():
    logits = torch.where(torch.rand(50, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5, 4.6, -4.6)
    logits.requires_grad_()
    for k in (1, 128, 255):
        law = Budget(logits, k)
        worst = Budget(-logits, k).mode()
        value = law.log_prob(worst).sum() + law.entropy().sum() + law.probabilities().sum()
        assert value.isfinite()
        assert torch.autograd.grad(value, logits)[0].isfinite().all()


@pytest.mark.parametrize(("grid", "k", "tolerance"), [(3, 4, 0.06), (4, 5, 0.04), (8, 19, 0.012)])
def test_inclusion_probabilities_add_up_to_k_and_are_near_the_frequencies(grid, k, tolerance):
    n, logits = 20_000, some_logits(1, grid, seed=6, bound=2.5).float()
    p = Budget(logits, k).probabilities()[0]
    drawn = Budget(logits.expand(n, -1, -1), k).sample(torch.Generator().manual_seed(0)).mask.float().mean(dim=0)
    assert p.sum().item() == pytest.approx(k, rel=1e-5)
    assert (p - drawn).abs().max() < tolerance
    equal = Budget(torch.full((1, grid, grid), -3.0), k).probabilities()
    assert torch.allclose(equal, torch.full_like(equal, k / grid**2))


def test_the_times_behind_inclusion_probabilities_have_the_right_gradient():
    logits = some_logits(3, 3, seed=7).flatten(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: log_times(x, 4), (logits,))


def test_the_entropy_bonus_bounds_the_entropy_and_is_largest_at_equal_logits():
    logits = some_logits(1, 3, seed=8, bound=2)
    _, log_p = probabilities_of_all(logits, 4)
    assert -(log_p.exp() * log_p).sum() < Budget(logits, 4).entropy().item()
    equal = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    top = Budget(equal, 4).entropy()
    assert torch.autograd.grad(top.sum(), equal)[0].abs().max() < 1e-9
    assert (Budget(some_logits(100, 3, seed=9, bound=0.3), 4).entropy() < top).all()


def test_the_mode_is_the_most_probable_set():
    logits = some_logits(1, 3, seed=11)
    masks, log_p = probabilities_of_all(logits, 4)
    assert torch.equal(Budget(logits, 4).mode().mask[0], masks[log_p.argmax()])


def test_draws_repeat_with_the_seed_and_differ_between_images():
    law = Budget(torch.zeros(64, 8, 8), 20)
    first, again, other = (law.sample(torch.Generator().manual_seed(s)).mask for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(1).unique(dim=0)) == 64


@pytest.mark.parametrize("k", [-1, 5])
def test_an_impossible_budget_is_refused(k):
    with pytest.raises(ValueError, match="4"):
        Budget(torch.zeros(1, 2, 2), k)
