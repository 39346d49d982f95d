"""Rewards: what the policy is paid for, image by image.

Symbols: φ, the learner's weights; ℓ_i, contrastive loss of image i; L_ref, the reference loss; P, the optimizer's
diagonal; η, its step size. Losses are minimized, rewards maximized. Nothing here waits for the device.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Weights = list[Tensor]
"""One tensor for each of the learner's parameters, in their order."""
PerImageLoss = Callable[[Weights], Float[Tensor, " n"]]
"""The batch's per-image losses as a pure function of the learner's weights."""

STEP = 1e-3
"""Length of the finite difference's step in weight space: 0.05 overshoots and flips signs, 1e-5 drowns in rounding."""


def credit_shares(
    losses: PerImageLoss, at: Weights, direction: Weights, here: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Split the slope of the reference loss over the images: r_i = <P ∇L_ref, ∇ℓ_i>.

    To first order a descent step changes the reference loss by -dL_ref/dt = η mean_i <∇L_ref, P ∇ℓ_i>, and
    <∇L_ref, P ∇ℓ_i> = <P ∇L_ref, ∇ℓ_i>: all n inner products are one directional derivative of the per-image losses,
    taken here as a difference, (ℓ_i(φ) - ℓ_i(φ - ε d)) / ε for the unit vector d along P ∇L_ref.

    Args:
        losses: Per-image losses as a function of the weights.
        at: The weights φ.
        direction: P ∇L_ref (or its moving average).
        here: ℓ(φ), known from the learner's own step.

    Returns:
        Shares, without gradient; their mean times η is the slope. Zero where the direction is.
    """
    length = torch.stack(torch._foreach_norm(direction)).norm()
    step = STEP / length.clamp(min=1e-30)
    with torch.no_grad():
        there = losses([w - step * d for w, d in zip(at, direction, strict=True)])
        return (here.detach() - there) * (length / STEP)


def literal_slope(
    previous: Float[Tensor, ""], loss: Float[Tensor, "..."], momentum: float
) -> Float[Tensor, "..."]:
    """The reward as it is worded, on the training loss: R_t = β R_{t-1} + (1 - β)(L_{t-1} - L_t).

    Unrolled this is (1 - β)(EMA(L)_{t-1} - L_t) with EMA(L)_t = β EMA(L)_{t-1} + (1 - β) L_t, which is how it is
    computed: the policy is paid for pairs that are easier than of late.

    Args:
        previous: EMA(L)_{t-1}.
        loss: L_t, one number or one for each image.
        momentum: β.
    """
    return (1 - momentum) * (previous - loss)
