"""What CAMNet restores: a degraded image, whatever the task, behind one interface.

`env.corruption.Corrupted` (mask, downsampling, decolorization, what a policy asks for) is one; a JPEG and a layout are
others. The generator sees `kept`, `hidden` and `planes()` and never asks which task it is.
"""

from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from configs.camnet import Task

D = TypeVar("D", bound="Degraded")


@runtime_checkable
class Degraded(Protocol):
    """n degraded images and what is known of them."""

    task: ClassVar[Task]
    """Which task it is; says where its planes enter the generator."""

    @property
    def kept(self) -> Tensor:
        """What is known, as an image (n, 3, h, w) in [0, 1]; zero where hidden."""

    @property
    def hidden(self) -> Tensor:
        """1 = hidden (n, 1, h, w): nothing of the pixel is known."""

    def __len__(self) -> int:
        """The number of images."""

    def select(self: D, index: Tensor | slice) -> D:
        """The degraded images at the given rows."""

    def planes(self) -> Tensor:
        """What else the generator is told, (n, p, h, w), or (n, p, 1, 1) where it holds everywhere."""

    def touched(self) -> Tensor:
        """The pixels (n, 1, h, w), as booleans, of which something is unknown."""

    def make_consistent(self, restored: Tensor) -> Tensor:
        """The nearest images in [0, 1] that agree with what is known (or near ones); differentiable."""

    def residual(self, restored: Tensor) -> Tensor:
        """How far each image (n) disagrees with what is known, as a largest difference in pixel values."""


def each(degraded: D, many: int) -> D:
    """Every degraded image `many` times in a row."""
    if many == 1:
        return degraded
    rows = torch.arange(len(degraded), device=degraded.kept.device)
    return degraded.select(rows.repeat_interleave(many))
