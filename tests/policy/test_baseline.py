"""The baselines: this batch's mean, the mean of past batches, or nothing."""

import pytest
import torch

from policy.baseline import Baseline

CPU = torch.device("cpu")


def rewards(mean, n=4):
    return mean + torch.arange(n) - (n - 1) / 2


def test_batch_is_the_present_mean_alone():
    baseline = Baseline("batch", 0.9, CPU)
    assert [baseline.value(rewards(mean)).item() for mean in (3.0, -1.0, 5.0)] == [3.0, -1.0, 5.0]


def test_none_is_zero():
    baseline = Baseline("none", 0.9, CPU)
    assert [baseline.value(rewards(mean)).item() for mean in (3.0, -1.0)] == [0.0, 0.0]


def test_ema_is_the_weighted_mean_of_past_batches():
    baseline = Baseline("ema", 0.9, CPU)
    means = [3.0, -1.0, 5.0]
    seen = [baseline.value(rewards(mean)).item() for mean in [*means, 100.0]]
    assert seen[:2] == [0.0, pytest.approx(3.0)]  # nothing is known before the first batch
    weights = [0.81, 0.9, 1.0]
    expected = sum(w * mean for w, mean in zip(weights, means, strict=True)) / sum(weights)
    assert seen[3] == pytest.approx(expected, rel=1e-5)


def test_ema_excludes_the_present_batch():
    """A baseline that knows an image's own reward biases the gradient."""
    values = []
    for present in (-1000.0, 1000.0):
        baseline = Baseline("ema", 0.5, CPU)
        for mean in (2.0, 4.0):
            baseline.value(rewards(mean))
        values.append(baseline.value(rewards(present)).item())
        assert baseline.value(rewards(0.0)).item() * present > 0  # the next batch does know it
    assert values[0] == values[1] == pytest.approx((0.5 * 2 + 4) / 1.5)


@pytest.mark.parametrize("kind", ["batch", "ema", "none"])
def test_no_gradient_reaches_the_average(kind):
    baseline = Baseline(kind, 0.9, CPU)
    baseline.value(rewards(1.0).requires_grad_())
    assert not any(value.requires_grad for value in baseline.state_dict().values())


def test_a_restored_baseline_goes_on_bit_for_bit():
    baseline, restored = Baseline("ema", 0.9, CPU), Baseline("ema", 0.9, CPU)
    for mean in (3.0, -1.0):
        baseline.value(rewards(mean))
    restored.load_state_dict({name: value.clone() for name, value in baseline.state_dict().items()})
    for mean in (0.3, 7.1, 2.0):
        known = baseline.value(rewards(mean))
        assert known != 0
        assert torch.equal(known, restored.value(rewards(mean)))
