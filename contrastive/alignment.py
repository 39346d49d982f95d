"""Alignment and uniformity: how near positive pairs are on the unit sphere, and how evenly images cover it.

Source: Wang and Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
Hypersphere", section 4.1, with the paper's exponents: α = 2 and t = 2. Smaller is better, of both together: either
alone is easily had.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

T = 2.0
"""Width of the Gaussian potential: exp(-T · squared distance)."""
ROWS_AT_ONCE = 1024
"""Bounds the memory: distances to all vectors are held for this many."""


def alignment(u1: Float[Tensor, "n d"], u2: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Compute E ‖u₁ - u₂‖² over positive pairs.

    Args:
        u1: Unit vectors of first views.
        u2: Unit vectors of second views, row for row of the same images.

    Returns:
        Mean squared distance, in [0, 4]; to be read beside `distance`.
    """
    return (u1 - u2).square().sum(dim=1).mean()


def distance(u: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Compute E ‖u_i - u_j‖² over all pairs i ≠ j: what alignment would be if views had nothing to do with one another.

    Features that are never negative lie near one another, aligned or not; this says how near.

    Args:
        u: Unit vectors of different images, n >= 2.

    Returns:
        Mean squared distance, in [0, 4]; 2 for vectors spread evenly over the sphere.

    Raises:
        ValueError: If there is no pair.
    """
    n = _images(u)
    # Of unit vectors Σ_ij ‖u_i - u_j‖² = 2 n² (1 - ‖mean u‖²), of which the n pairs i = j add nothing.
    return 2 * (1 - u.mean(dim=0).square().sum()) * n / (n - 1)


def uniformity(u: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Compute log E exp(-t ‖u_i - u_j‖²) over all pairs i ≠ j.

    Args:
        u: Unit vectors of different images, n >= 2.

    Returns:
        At most 0, which is collapse; about -4 for many vectors spread evenly over a sphere of many dimensions.

    Raises:
        ValueError: If there is no pair.
    """
    n = _images(u)
    sums = []
    for start in range(0, n, ROWS_AT_ONCE):
        # Of unit vectors ‖u_i - u_j‖² = 2 - 2 ⟨u_i, u_j⟩.
        potential = T * (2 * u[start : start + ROWS_AT_ONCE] @ u.T - 2)
        potential.diagonal(offset=start).fill_(-math.inf)  # i = j
        sums.append(potential.logsumexp(dim=1))
    return torch.cat(sums).logsumexp(dim=0) - math.log(n * (n - 1))


def _images(u: Float[Tensor, "n d"]) -> int:
    """How many images there are to compare, which must be several."""
    if len(u) < 2:
        raise ValueError(f"different images are compared, and there is no pair of them: n = {len(u)}")
    return len(u)
