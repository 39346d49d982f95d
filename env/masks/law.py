"""What every law of masks answers."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class MaskDraw(NamedTuple):
    """Masks, and what was drawn to make them.

    Attributes:
        mask: 1 = hidden; one bit per cell of an s x s grid, from one cell in all to one per pixel.
        drawn: What `log_prob` needs where the bits do not tell; one row per image, None where they do.
    """

    mask: Bool[Tensor, "n s s"]
    drawn: Tensor | None = None


@runtime_checkable
class MaskLaw(Protocol):
    """The distribution of the masks of n images."""

    def sample(self, generator: torch.Generator) -> MaskDraw:
        """Draw one mask per image. The generator must live on the law's device; no gradient."""

    def ratio(self) -> Float[Tensor, " n"]:
        """Expected share of hidden cells of each image, in [0, 1]; differentiable where the law is learned."""

    def probabilities(self) -> Float[Tensor, "n s s"]:
        """Probability that each cell is hidden."""


@runtime_checkable
class LearnedMaskLaw(MaskLaw, Protocol):
    """A law that REINFORCE can teach."""

    def mode(self) -> MaskDraw:
        """The most probable mask of each image, or what stands for it where none is."""

    def log_prob(self, draw: MaskDraw) -> Float[Tensor, " n"]:
        """Log-probability (or log-density) of each image's draw, in nats; differentiable."""

    def entropy(self) -> Float[Tensor, " n"]:
        """Entropy of each image's draw in nats, or what stands for it in the entropy bonus; differentiable."""
