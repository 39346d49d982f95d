"""Laws of crops: which part of each image is kept."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOG_ASPECT = math.log(4 / 3)
"""Width over height lies between 3/4 and 4/3, log-uniformly, before it is rounded to pixels."""
TRIES = 10
"""Shapes drawn for an image until one fits, as in torchvision; where none does, the whole image is kept."""


class Boxes(NamedTuple):
    """One box of whole pixels for each of m images.

    Attributes:
        top: First row that is kept.
        left: First column that is kept.
        height: Rows that are kept, at least 1.
        width: Columns that are kept, at least 1.
    """

    top: Int[Tensor, " m"]
    left: Int[Tensor, " m"]
    height: Int[Tensor, " m"]
    width: Int[Tensor, " m"]


def whole(m: int, size: int, device: torch.device) -> Boxes:
    """Keep all of m images of `size` pixels a side."""
    nothing, everything = torch.zeros(m, dtype=torch.long, device=device), torch.full((m,), size, device=device)
    return Boxes(nothing, nothing, everything, everything)


def anywhere(m: int, size: int, smallest_area: float, random: torch.Generator) -> Boxes:
    """Draw boxes by the law of torchvision's RandomResizedCrop: any place inside is equally likely.

    Args:
        m: Images.
        size: Their side in pixels.
        smallest_area: Least share of the area, in (0, 1]; shares are uniform between it and 1.
        random: Draws; its device is that of the result.
    """
    height, width = _shapes(m, size, smallest_area, random)
    place = torch.rand((2, m), generator=random, device=random.device)
    return Boxes(_start(place[0], size - height), _start(place[1], size - width), height, width)


def edge_aligned(m: int, size: int, smallest_area: float, random: torch.Generator) -> Boxes:
    """Draw boxes of the same shapes that touch a side of the image: each side as often, any place along it.

    Args:
        m: Images.
        size: Their side in pixels.
        smallest_area: Least share of the area, in (0, 1]; shares are uniform between it and 1.
        random: Draws; its device is that of the result.
    """
    height, width = _shapes(m, size, smallest_area, random)
    along = torch.rand(m, generator=random, device=random.device)
    side = torch.randint(4, (m,), generator=random, device=random.device)
    below, right = size - height, size - width
    far = side % 2  # 0: the top or the left side, 1: the bottom or the right side
    top = torch.where(side < 2, far * below, _start(along, below))
    left = torch.where(side < 2, _start(along, right), far * right)
    return Boxes(top, left, height, width)


def _shapes(
    m: int, size: int, smallest_area: float, random: torch.Generator
) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Heights and widths: the first of `TRIES` draws that fits into the image, else all of it."""
    area, aspect = torch.rand((2, TRIES, m), generator=random, device=random.device)
    area = size**2 * (smallest_area + (1 - smallest_area) * area)
    aspect = torch.exp(LOG_ASPECT * (2 * aspect - 1))
    height, width = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (height > 0) & (height <= size) & (width > 0) & (width <= size)
    first = fits.float().argmax(dim=0, keepdim=True)
    some = fits.any(dim=0)
    return tuple(torch.where(some, side.gather(0, first)[0], size) for side in (height, width))  # type: ignore


def _start(place: Float[Tensor, " m"], room: Int[Tensor, " m"]) -> Int[Tensor, " m"]:
    """One of the whole numbers from 0 to `room`, equally likely where `place` is uniform on [0, 1)."""
    return (place * (room + 1)).long()
