"""Step sizes rise in the first twentieth of a training and then fall along half a cosine, to a hundredth."""

from itertools import pairwise

import pytest

from training.schedule import one_cycle


@pytest.mark.parametrize(
    ("progress", "share"),
    [
        (0, 0.01),
        (0.01, 0.208),
        (0.025, 0.505),
        (0.05, 1),
        (0.2875, 0.855017856),  # a quarter down the cosine: 0.01 + 0.99 (1 + √½) / 2
        (0.525, 0.505),
        (0.7625, 0.154982144),
        (1, 0.01),
    ],
)
def test_the_step_size_rises_in_a_line_and_falls_along_half_a_cosine(progress, share):
    assert one_cycle(progress) == pytest.approx(share)


def test_the_step_size_has_one_peak_and_no_jump():
    shares = [one_cycle(i / 1000) for i in range(1001)]
    assert max(shares) == one_cycle(0.05)
    assert shares[:51] == sorted(shares[:51])
    assert shares[50:] == sorted(shares[50:], reverse=True)
    assert max(abs(b - a) for a, b in pairwise(shares)) < 0.02
