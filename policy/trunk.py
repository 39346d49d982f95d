"""What learned policies look at an image with, and how their numbers become bounded logits."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BOUND = 4.6
"""Largest absolute logit: probabilities of bits stay within about [0.01, 0.99], so that log-probabilities
stay finite and exploration never dies."""
COMMON_GAIN = 10.0
"""How much faster the rates common to all images learn than what differs between images."""
START = 0.95 * BOUND
"""Largest absolute logit to start from: at the bound itself the limiter has no slope to leave it by."""


class Trunk(nn.Module):
    """Image in; features of every cell of a grid, and of the whole, out.

    Neither BatchNorm nor dropout: an action must be scored by the very distribution that it was drawn from.
    With them the distribution would depend on the mode and on the batch's other images, and REINFORCE's
    gradient would be that of another policy. GroupNorm looks at one image at a time.

    Args:
        width: Channels of the first stage.
        image_size: Side of the square images it takes, in pixels.
        grid: Cells a side; divides the images' side. Features are halved as often as that goes evenly, and averaged by
            what odd factor is left (96 pixels to 4 cells: three times halved, then by 3).

    Attributes:
        features: Length of the vectors that come out.
        averaged: Side of the squares of features that become one cell's.
    """

    def __init__(self, width: int, image_size: int, grid: int) -> None:
        super().__init__()
        self.image_size = image_size
        if image_size % grid:
            raise ValueError(f"images of {image_size} pixels do not divide into {grid} x {grid} cells")
        cell = image_size // grid
        halved = cell & -cell  # the largest power of two in it
        self.averaged = cell // halved
        widths = [min(width * 2**k, 4 * width) for k in range(halved.bit_length())]
        stages = [_stage(a, b, 2) for a, b in pairwise(widths)]
        self.features = widths[-1]
        self.stages = nn.Sequential(_stage(3, widths[0], 1), *stages)
        self.context = nn.Linear(self.features, self.features)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n cells c"], Float[Tensor, "n c"]]:
        """Features of each cell (row by row) and of the whole image, from images in [0, 1].

        Raises:
            ValueError: If the images are not of the size that the trunk was made for.
        """
        if x.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"this policy takes {self.image_size} x {self.image_size} images, got {tuple(x.shape)}")
        cells = self.stages(2 * x - 1)
        if self.averaged > 1:
            cells = F.avg_pool2d(cells, self.averaged)
        cells = cells.flatten(2).transpose(1, 2)  # (n, g g, c)
        cells = cells + self.context(cells.mean(dim=1, keepdim=True))  # what a cell cannot see from where it is
        return cells, cells.mean(dim=1)


class Rates(nn.Module):
    """Learned logits that no image changes, started at the given ones."""

    def __init__(self, start: list[float]) -> None:
        super().__init__()
        within = [min(max(value, -START), START) for value in start]
        self.common = nn.Parameter(torch.tensor([BOUND * math.atanh(v / BOUND) / COMMON_GAIN for v in within]))

    def forward(self) -> Float[Tensor, " k"]:
        """Logits within ±BOUND."""
        return limited(COMMON_GAIN * self.common)


class Head(Rates):
    """Features to limited logits: a common rate, and what the image adds to it.

    Features are normalized and never rectified to zero here: a head that reads dead units falls back to where it
    started. The weights start at zero, the common part at the given logits.
    """

    def __init__(self, width: int, start: list[float]) -> None:
        super().__init__(start)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.image = nn.Linear(width, len(start), bias=False)
        nn.init.zeros_(self.image.weight)

    def forward(self, features: Float[Tensor, "*s c"]) -> Float[Tensor, "*s k"]:  # type: ignore[override]
        """Logits within ±BOUND."""
        return limited(self.image(self.norm(features)) + COMMON_GAIN * self.common)


def limited(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Limit logits softly to ±BOUND: BOUND tanh(x / BOUND), the identity near 0. In at least float32."""
    return BOUND * torch.tanh(x.to(torch.promote_types(x.dtype, torch.float32)) / BOUND)


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    """Convolution, norm, nonlinearity."""
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(8, after), after), nn.SiLU())
