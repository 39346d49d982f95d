"""RankMe: how many dimensions the features really use."""

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-7
"""Keeps the logarithm finite where a singular value is 0; the paper's value for float32."""


def rankme(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Compute the exponential of the entropy of the normalized singular values: a smooth rank.

        RankMe(Z) = exp(-Σ_k p_k log p_k),  p_k = σ_k / Σ_l σ_l + ε

    Source: Garrido et al. 2023, "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank", Eq. 1. As there, Z is not centered: what all images have in common counts as one
    dimension, and a strong one.

    Args:
        z: Features or projections of n images.

    Returns:
        From 1 (one direction alone) to the smaller of n and d (all used alike); compare at equal n and d only.
    """
    sigma = torch.linalg.svdvals(z.float())
    p = sigma / sigma.sum() + EPSILON
    return torch.special.entr(p).sum().exp()
