"""One hidden rectangle per image, of a given area, anywhere inside. Nothing in it is learned."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from env.masks.law import MaskDraw

STRETCH = 2.0
"""Height over width lies between 1 / STRETCH and STRETCH, log-uniformly."""


@dataclass(frozen=True)
class Rectangle:
    """A rectangle of random shape at a uniformly drawn place, whole inside the image.

    Height and width are whole pixels, the width the one that comes nearest to the area: `ratio` tells what that makes
    on average. Where the area is so large that a shape would not fit, its height is cut to the least or largest that
    does.

    Attributes:
        n: Images.
        size: Side of the masks in pixels.
        share: Area of the rectangle as a share of the image's, in [0, 1].
        device: Where masks are drawn.
    """

    n: int
    size: int
    share: float
    device: torch.device

    def sample(self, generator: torch.Generator) -> MaskDraw:
        """Draw shape and place of each image's rectangle."""
        shape, top, left = torch.rand((3, self.n), generator=generator, device=self.device)
        heights, widths = self._sides()
        index = (shape[:, None] >= self._at_most()).sum(dim=1)  # the first height whose sum is above the draw
        rows = self._between(top, heights[index])
        columns = self._between(left, widths[index])
        return MaskDraw(rows[:, :, None] & columns[:, None, :])

    def ratio(self) -> Float[Tensor, " n"]:
        """Expected area, exactly: the rounding to whole pixels is in it."""
        heights, widths = self._sides()
        area = (self._chances() * heights * widths).sum() / self.size**2
        return area.expand(self.n)

    def probabilities(self) -> Float[Tensor, "n s s"]:
        """Probability that each pixel is hidden, exactly: the sum over shapes of (row is hidden) (column is hidden).

        Least in the corners, which few places reach.
        """
        heights, widths = self._sides()
        rows, columns = self._covered(heights), self._covered(widths)
        return torch.einsum("h,hy,hx->yx", self._chances(), rows, columns).expand(self.n, -1, -1)

    def _sides(self) -> tuple[Int[Tensor, " s"], Int[Tensor, " s"]]:
        """Every height from one pixel to all, and the width that goes with it."""
        heights = torch.arange(1, self.size + 1, device=self.device)
        widths = (self.share * self.size**2 / heights).round().long()
        return heights, widths.clamp(max=self.size)

    def _at_most(self) -> Float[Tensor, " s"]:
        """Probability that the height is at most 1, 2, ..., `size` pixels.

        A height h rounded from sqrt(share * stretch) * size stands for stretches up to ((h + 1/2) / size)² / share.
        """
        heights = torch.arange(1, self.size + 1, device=self.device)
        stretch = ((heights + 0.5) / self.size).square() / self.share
        total = ((stretch.log() / math.log(STRETCH) + 1) / 2).clamp(0, 1)
        total = torch.where(heights < math.ceil(self.share * self.size), 0, total)  # too low: too wide to fit
        return torch.where(heights == self.size, 1, total)

    def _chances(self) -> Float[Tensor, " s"]:
        """Probability of each height."""
        return self._at_most().diff(prepend=torch.zeros(1, device=self.device))

    def _between(self, place: Float[Tensor, " n"], length: Int[Tensor, " n"]) -> Bool[Tensor, "n s"]:
        """Mark a stretch of each image's line of pixels: it begins at one of the places that fit, equally likely."""
        first = (place * (self.size - length + 1)).long()[:, None]
        pixel = torch.arange(self.size, device=self.device)
        return (pixel >= first) & (pixel < first + length[:, None])

    def _covered(self, length: Int[Tensor, " s"]) -> Float[Tensor, "s s"]:
        """Probability that `_between` marks each pixel (column), for each length (row): places that do, by all."""
        pixel, length = torch.arange(self.size, device=self.device), length[:, None]
        last = torch.minimum(pixel, self.size - length)
        first = (pixel - length + 1).clamp(min=0)
        return (last - first + 1) / (self.size - length + 1)
