"""Step sizes as pure functions of progress."""

import math

WARMUP = 0.05
"""Share of the training in which the step size rises."""
FLOOR = 0.01
"""Smallest step size, as a share of the peak."""


def one_cycle(progress: float) -> float:
    """Step size as a share of its peak: a short linear rise, then half a cosine down.

    Args:
        progress: Share of the training that is done, in [0, 1].
    """
    if progress < WARMUP:
        return FLOOR + (1 - FLOOR) * progress / WARMUP
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))
