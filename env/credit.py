"""Credit: how much of the slope of the reference loss each image is credited with.

Symbols: φ, the learner's weights; ℓ_i, contrastive loss of image i; L_ref, the reference loss; P, the optimizer's
diagonal; η, its step size. Nothing here waits for the device.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Weights = Sequence[Tensor]
"""One tensor for each of the learner's parameters, in their order."""
PerImageLoss = Callable[[Weights], Float[Tensor, " n"]]
"""The batch's per-image losses as a pure function of the learner's weights."""

STEP = 3e-3
"""Length of the finite difference's step in weight space. From 3e-2 on curvature tells; below 1e-3 rounding does where
convolutions work in TF32, as they do on GPUs unless told otherwise (benchmarks/credit.py)."""
BOUND = 10.0
"""Largest entry of a preconditioned direction, in step sizes: generous, since Adam's own steps move no weight by more
than 3.2 of them (Kingma and Ba 2015, section 2.1)."""


def bounded(direction: Weights) -> Weights:
    """Cut the entries of P ∇L_ref to ±BOUND.

    Where training has moved a weight by next to nothing so far, its second moment is next to nothing and P as large as
    1e8, while the reference may well have a gradient there. Early in a run, some dozens of such entries make up all of
    the direction's length, and a difference along it says nothing. The optimizer does not step that far either: a
    gradient enters the second moment before it is divided by it. To cut an entry is to lower that entry of P, which
    stays a positive diagonal, so the shares still add up to a slope. Later in a run nothing is cut.

    Args:
        direction: P ∇L_ref (or its moving average), one tensor for each weight.

    Returns:
        The same with all entries in [-BOUND, BOUND], in units of the step size.
    """
    return [d.clamp(-BOUND, BOUND) for d in direction]


def credit_shares(
    losses: PerImageLoss, at: Weights, direction: Weights, here: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Split the slope of the reference loss over the images: r_i = <P ∇L_ref, ∇ℓ_i>.

    To first order a descent step changes the reference loss by -dL_ref/dt = η mean_i <∇L_ref, P ∇ℓ_i>, and
    <∇L_ref, P ∇ℓ_i> = <P ∇L_ref, ∇ℓ_i>: all n inner products are one directional derivative of the per-image losses,
    taken here as a difference, (ℓ_i(φ) - ℓ_i(φ - ε d)) / ε for the unit vector d along P ∇L_ref. One forward pass; the
    exact forward-mode derivative takes eight times as long, and not every operation has one.

    Args:
        losses: Per-image losses as a function of the weights.
        at: The weights φ.
        direction: P ∇L_ref (or its moving average).
        here: ℓ(φ), known from the learner's own step.

    Returns:
        Shares, without gradient; their mean times η is the slope. Zero where the direction is.
    """
    length = torch.stack(torch._foreach_norm(list(direction))).norm()
    step = STEP / length.clamp(min=1e-30)
    with torch.no_grad():
        there = losses([w - step * d for w, d in zip(at, direction, strict=True)])
        return (here.detach() - there) * (length / STEP)
