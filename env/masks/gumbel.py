"""Gumbel noise: the largest perturbed logit is a draw from their categorical law, the k largest one without return."""

import torch
from jaxtyping import Float
from torch import Tensor


def perturbed(logits: Float[Tensor, "*s"], generator: torch.Generator) -> Float[Tensor, "*s"]:
    """Add standard Gumbel noise, always finite, to logits.

    A category of probability 0 (logit -inf) stays below all others, which the rounding of a cumulative sum could not
    promise.
    """
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
    return logits - (-uniform.clamp(min=1e-30).log()).log()
