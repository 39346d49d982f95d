"""Smooth masks: a coarse random field, enlarged and cut at zero, so that edges follow no grid."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from env.masks.cells import bit_entropy
from env.masks.law import MaskDraw


@dataclass(frozen=True)
class Smooth:
    """A field of logits plus standard logistic noise; a pixel is hidden where the enlarged field is positive.

    The field's value in the middle of a cell is positive with probability sigmoid(logit), as in `Cells`; between the
    middles the field is interpolated linearly. What is drawn, and scored, is the coarse field.

    Attributes:
        logits: Log-odds that the middle of each cell is hidden.
        size: Side of the masks in pixels, at least g.
    """

    logits: Float[Tensor, "n g g"]
    size: int

    def sample(self, generator: torch.Generator) -> MaskDraw:
        """Draw the field and cut it."""
        uniform = torch.rand(self.logits.shape, generator=generator, dtype=self.logits.dtype, device=self.logits.device)
        return self._cut(self.logits.detach() + uniform.logit(eps=1e-7))  # eps: 0 can be drawn, and has no logit

    def mode(self) -> MaskDraw:
        """The field without noise, where its density is largest."""
        return self._cut(self.logits.detach())

    def log_prob(self, draw: MaskDraw) -> Float[Tensor, " n"]:
        """Log-density of the drawn field: the sum over its cells of log σ(z) + log σ(-z), z = field - logit."""
        assert draw.drawn is not None, "a smooth mask is scored by the field that it was cut from"
        z = draw.drawn - self.logits
        return (F.logsigmoid(z) + F.logsigmoid(-z)).sum(dim=(1, 2))

    def entropy(self) -> Float[Tensor, " n"]:
        """What stands for the entropy in the bonus: the entropies of the bits "the middle of the cell is hidden".

        The entropy of the field itself is a constant, 2 nats per cell, wherever the logits are: it could not keep masks
        from becoming certain.
        """
        return bit_entropy(self.logits).sum(dim=(1, 2))

    def ratio(self) -> Float[Tensor, " n"]:
        """Mean of `probabilities`: within 0.007 of the share of hidden pixels in 40,000 draws.

        The mean of sigmoid(logits) would be off by up to 0.07: averaging takes noise away, so that between the middles
        the likelier outcome is likelier still (logits of log(3/7), 30 % in the middles, hide 24 % of the pixels).
        """
        return self.probabilities().mean(dim=(1, 2))

    def probabilities(self) -> Float[Tensor, "n s s"]:
        """Probability that each pixel is hidden: sigmoid(interpolated logit / length of the interpolation's weights).

        Noise that is averaged with weights v is about logistic with scale ‖v‖. Exact where only one cell has weight:
        in the corners, and in the middles of cells with an odd number of pixels a side. Elsewhere within 0.02 of the
        frequencies of 40,000 draws, whether logits are equal, random (deviation 1.5) or alternate between ±4.
        """
        weights = self._weights()
        length = weights.square().sum(dim=0).sqrt()
        return (self._enlarged(self.logits) / (length[:, None] * length)).sigmoid()

    def _cut(self, field: Float[Tensor, "n g g"]) -> MaskDraw:
        """Hide where the enlarged field is positive."""
        return MaskDraw(self._enlarged(field) > 0, field)

    def _enlarged(self, field: Float[Tensor, "n g g"]) -> Float[Tensor, "n s s"]:
        """Interpolate bilinearly, first the rows, then the columns."""
        weights = self._weights()
        return weights.T @ field @ weights

    def _weights(self) -> Float[Tensor, "g s"]:
        """What each of g cells in a line contributes to each of `size` pixels; beyond the outer middles it is flat."""
        one_hot = torch.eye(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)
        return F.interpolate(one_hot[None], size=self.size, mode="linear", align_corners=False)[0]


def logit_for(share: float, grid: int, size: int) -> float:
    """The logit that, equal in all cells, hides a given share of the pixels: by bisection, within ±30.

    Args:
        share: Share of hidden pixels wanted, in [0, 1].
        grid: Cells a side.
        size: Side of the masks in pixels.
    """
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        field = torch.full((1, grid, grid), middle, device="cpu")  # also where modules are being built on "meta"
        too_much = Smooth(field, size).ratio().item() > share
        low, high = (low, middle) if too_much else (middle, high)
    return (low + high) / 2
