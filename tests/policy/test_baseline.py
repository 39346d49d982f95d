"""The baselines: what each knows of a batch, and that it knows nothing of the action at hand where it must not."""

import pytest
import torch

from policy.baseline import BatchMean, Greedy, Guess, LeaveOneOut, Nothing, PastMean, Table
from policy.critic import Critic
from training import structure

CPU = torch.device("cpu")
ROWS = torch.arange(4)


def rewards(mean, n=4):
    return (mean + torch.arange(n) - (n - 1) / 2)[None]


def images(n=4, size=8, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def new(kind):
    torch.manual_seed(0)
    return {
        "none": Nothing,
        "batch": BatchMean,
        "ema": lambda: PastMean(0.9, CPU),
        "table": lambda: Table(10, 0.9, CPU),
        "critic": lambda: Guess(Critic(8, 8), 0.9, CPU),
        "rloo": LeaveOneOut,
        "greedy": Greedy,
    }[kind]()


def values(baseline, means):
    return [baseline.value(rewards(mean), images(), ROWS).item() for mean in means]


def test_batch_is_the_present_mean_alone():
    assert values(BatchMean(), (3.0, -1.0, 5.0)) == [3.0, -1.0, 5.0]


def test_none_is_zero():
    assert values(Nothing(), (3.0, -1.0)) == [0.0, 0.0]


def test_ema_is_the_weighted_mean_of_past_batches():
    means = [3.0, -1.0, 5.0]
    seen = values(PastMean(0.9, CPU), [*means, 100.0])
    assert seen[:2] == [0.0, pytest.approx(3.0)]  # nothing is known before the first batch
    weights = [0.81, 0.9, 1.0]
    expected = sum(w * mean for w, mean in zip(weights, means, strict=True)) / sum(weights)
    assert seen[3] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["ema", "table", "critic"])
def test_a_memory_excludes_the_present_batch(kind):
    """A baseline that knows an image's own reward biases the gradient."""
    past, after = [], []
    for present in (-1000.0, 1000.0):
        baseline = new(kind)
        for mean in (2.0, 4.0):
            baseline.value(rewards(mean), images(), ROWS)
        past.append(baseline.value(rewards(present), images(), ROWS))
        after.append(baseline.value(rewards(0.0), images(), ROWS))
    assert torch.equal(past[0], past[1])
    assert past[0].mean() > 0
    assert after[0].mean() < -1  # the next batch does know it
    assert after[1].mean() > 1


def test_a_table_remembers_each_image_and_knows_the_average_image_else():
    table = Table(10, 0.5, CPU)
    first, second = torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, 9.0]])
    assert torch.equal(table.value(first, images(2), torch.tensor([7, 2])), torch.zeros(1, 2))
    # 7 was seen, 4 was not: the average of the batch before stands in for it
    assert torch.allclose(table.value(second, images(2), torch.tensor([7, 4])), torch.tensor([[1.0, 2.0]]))
    overall = (0.5 * 2 + 7) / 1.5
    known = table.value(first, images(2), torch.tensor([7, 0]))
    assert torch.allclose(known, torch.tensor([[(0.5 * 1 + 5) / 1.5, overall]]))
    assert torch.allclose(table.value(first, images(2), torch.tensor([2, 4])), torch.tensor([[3.0, 9.0]]))


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_a_critic_learns_which_images_pay_in_any_unit(unit):
    guess = new("critic")
    bright = torch.tensor([1.0, 1.0, -1.0, -1.0] * 8)
    noise = torch.Generator().manual_seed(0)
    x = images(32)
    x[bright > 0, :, :4] *= 0.2
    r = unit * (5 + bright)
    errors = []
    for _ in range(60):
        noisy = r + 0.3 * unit * torch.randn(32, generator=noise)
        errors.append((guess.value(noisy[None], x, torch.arange(32))[0] - r).square().mean().sqrt() / unit)
    assert errors[0] > 4  # nothing is known yet
    assert errors[-1] < 0.4


def test_leave_one_out_is_the_mean_of_the_others():
    r = torch.tensor([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]])
    expected = torch.tensor([[4.0, 40.0], [3.5, 35.0], [1.5, 15.0]])
    assert torch.allclose(LeaveOneOut().value(r, images(2), ROWS[:2]), expected)
    with pytest.raises(ValueError, match="two corruptions"):
        LeaveOneOut().value(r[:1], images(2), ROWS[:2])


def test_greedy_is_the_second_corruptions_reward():
    r = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    assert torch.equal(Greedy().value(r, images(2), ROWS[:2]), r[1:])
    with pytest.raises(ValueError, match="most probable"):
        Greedy().value(r[:1], images(2), ROWS[:2])


@pytest.mark.parametrize("kind", ["none", "batch", "ema", "table", "critic", "rloo", "greedy"])
def test_no_gradient_flows_and_a_restored_baseline_goes_on_bit_for_bit(kind):
    baseline, restored = new(kind), new(kind)
    r = [rewards(mean).repeat(2, 1) + torch.tensor([[0.0], [0.5]]) for mean in (3.0, -1.0, 0.3, 7.1)]
    for batch in r[:2]:
        assert not baseline.value(batch.clone().requires_grad_(), images(), ROWS).requires_grad
    restored.load_state_dict(structure.join(*structure.split(baseline.state_dict())))  # as a checkpoint does
    for batch in r[2:]:
        known = baseline.value(batch, images(), ROWS)
        assert known.any() or kind == "none"
        assert torch.equal(known, restored.value(batch, images(), ROWS))
