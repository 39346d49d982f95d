"""Independent cells: the law of the default policy, and of fixed rates."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from env.masks.law import MaskDraw


@dataclass(frozen=True)
class Cells:
    """One Bernoulli bit per cell.

    Attributes:
        logits: Log-odds of hiding each cell; ±inf is certain, exactly.
    """

    logits: Float[Tensor, "n g g"]

    def sample(self, generator: torch.Generator) -> MaskDraw:
        """Draw each bit by itself."""
        return MaskDraw(draw_bits(self.logits, generator))

    def mode(self) -> MaskDraw:
        """The most probable bits; one of probability 1/2 hides nothing."""
        return MaskDraw(self.logits > 0)

    def log_prob(self, draw: MaskDraw) -> Float[Tensor, " n"]:
        """Sum over the cells."""
        return bit_log_prob(self.logits, draw.mask).sum(dim=(1, 2))

    def entropy(self) -> Float[Tensor, " n"]:
        """Sum over the cells."""
        return bit_entropy(self.logits).sum(dim=(1, 2))

    def ratio(self) -> Float[Tensor, " n"]:
        """Mean over the cells."""
        return self.logits.sigmoid().mean(dim=(1, 2))

    def probabilities(self) -> Float[Tensor, "n g g"]:
        """Of each cell."""
        return self.logits.sigmoid()


def draw_bits(logits: Float[Tensor, "..."], generator: torch.Generator) -> Bool[Tensor, "..."]:
    """True with probability sigmoid(logits); the uniform draw lies in [0, 1), so 0 and 1 are exact."""
    return torch.rand(logits.shape, generator=generator, device=logits.device) < logits.sigmoid()


def bit_log_prob(logits: Float[Tensor, "*s"], bit: Bool[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Log-probability of each bit. Flips the sign, never multiplies by the bit: 0 times infinity is NaN."""
    return F.logsigmoid(torch.where(bit, logits, -logits))


def bit_entropy(logits: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Entropy of each bit in nats; entr(p) = -p log p knows that it is 0 at p = 0."""
    return torch.special.entr(logits.sigmoid()) + torch.special.entr((-logits).sigmoid())
