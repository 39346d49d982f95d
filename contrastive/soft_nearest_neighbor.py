"""The contrastive loss of labeled images: neighbors should be of one's own class.

Symbols: u, unit vectors; s_ij = <u_i, u_j>, cosine similarity; τ, temperature.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def soft_nearest_neighbor(
    u: Float[Tensor, "n d"], labels: Int[Tensor, " n"], temperature: float
) -> Float[Tensor, " n"]:
    """Compute each image's soft nearest-neighbor loss: how likely its neighbor is one of its class.

        ℓ_i = -log( Σ_{j≠i, y_j=y_i} exp(s_ij / τ) / Σ_{k≠i} exp(s_ik / τ) )

    Source: Frosst et al. 2019, "Analyzing and Improving Representations with the Soft Nearest Neighbor Loss",
    Eq. 1. Departure: cosine similarity for negative squared distance; on unit vectors the same, at half the
    temperature.

    Args:
        u: Unit vectors, n >= 2.
        labels: Class of each.
        temperature: τ > 0.

    Returns:
        Losses in nats, at least 0; exactly 0 (and without gradient) for an image that is alone in its class. In
        float32 where the inputs are less precise.
    """
    logits = _similarities(u) / temperature
    others = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
    partners = (labels[:, None] == labels[None, :]) & others
    # Alone in its class: both sums run over the same images, so that no infinity enters the gradient.
    alone = ~partners.any(dim=1, keepdim=True)
    return _log_sum_exp(logits, others) - _log_sum_exp(logits, partners | (alone & others))


def _similarities(u: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """All inner products, in at least float32: a small temperature magnifies the rounding."""
    with torch.autocast(u.device.type, enabled=False):
        u = u.to(torch.promote_types(u.dtype, torch.float32))
        return u @ u.T


def _log_sum_exp(logits: Float[Tensor, "n n"], chosen: Bool[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """Each row's log Σ exp over the chosen entries."""
    return logits.masked_fill(~chosen, -math.inf).logsumexp(dim=1)
