r"""Layout: synthesis from a map of classes. No pixel is kept; the classes are all that is known.

A folder may have maps of its own (`env.maps`). Other sets get pseudo-layouts: pixels, averaged over cells, are sorted
into a few classes of color by k-means (`Palette`). They say where regions lie and what color they roughly have, and
nothing of their detail.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from camnet.jpeg import LEVELS, rgb_to_ycbcr, ycbcr_to_rgb
from configs.camnet import Task
from env.maps import VOID
from env.rows import Rows

WEIGHTS = (0.5, 1.0, 1.0)
"""What Y, Cb and Cr count for in the distance between colors. Luma counts half: it varies most of the three within one
object (shading, shadow), and classes should be regions, not levels of shading."""

SMOOTH = 4
"""Side of the squares that pixels are averaged over before k-means, so that noise and edges make no classes."""

SAMPLE = 256
"""Most images that a palette is fitted to."""

STARTS = 4
"""How often k-means starts; the best end counts."""

DISTINCT = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (127, 127, 127),
    (188, 189, 34),
    (23, 190, 207),
)
"""Ten colors (RGB bytes) that are easy to distinguish: Tableau 10."""


@dataclass(frozen=True)
class Layout(Rows):
    """n layouts to synthesize images from.

    Attributes:
        labels: Class of each pixel, true (`labels_of`) or of a palette (`Palette.layout_of`). A label outside
            0..classes-1 is void: its pixel belongs to no class.
        classes: How many classes there are.
    """

    task: ClassVar[Task] = "layout"

    labels: Int[Tensor, "n h w"]
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kept(self) -> Float[Tensor, "n 3 h w"]:
        """0 everywhere: no color is known."""
        return self.hidden.new_zeros(()).expand(len(self), 3, *self.labels.shape[1:])

    @property
    def hidden(self) -> Float[Tensor, "n 1 h w"]:
        """1 everywhere: nothing of the pixels is kept."""
        return torch.ones_like(self.labels, dtype=torch.float32).unsqueeze(1)

    def planes(self) -> Float[Tensor, "n classes h w"]:
        """One plane per class: 1 where a pixel belongs to it, else 0 (all 0 where void)."""
        # Compared, not scattered: F.one_hot would look at the values, and the host would wait for them.
        classes = torch.arange(self.classes, device=self.labels.device, dtype=self.labels.dtype)
        return (self.labels.unsqueeze(1) == classes.view(-1, 1, 1)).float()

    def touched(self) -> Bool[Tensor, "n 1 h w"]:
        """Every pixel."""
        return torch.ones_like(self.labels, dtype=torch.bool).unsqueeze(1)

    def make_consistent(self, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Clamp to [0, 1]: no pixel is kept, so every image agrees. Whether it looks like its layout is learned."""
        return restored.clamp(0, 1)

    def residual(self, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """0 for each image: there is nothing to disagree with."""
        return restored.new_zeros(len(restored))


@dataclass(frozen=True)
class Palette:
    """Classes of color, dark to light.

    Attributes:
        colors: The middle of each class, RGB in [0, 1].
    """

    colors: Float[Tensor, "classes 3"]

    @staticmethod
    def fit(images: Float[Tensor, "n 3 h w"], classes: int, seed: int) -> "Palette":
        """Find classes by k-means (Lloyd, k-means++ starts) on averaged pixels of a sample of the images.

        On a CPU, in one thread: a function of images, classes and seed, whatever the device.

        Args:
            images: In [0, 1]; at most `SAMPLE` of them, drawn by seed, are looked at.
            classes: How many classes, at least 1.
            seed: Draws the sample and the starts.

        Returns:
            The palette, on the images' device.

        Raises:
            ValueError: If the images are smaller than the squares averaged over, or have too few different colors.
        """
        if min(images.shape[-2:]) < SMOOTH:
            raise ValueError(f"a palette needs images of at least {SMOOTH} x {SMOOTH} pixels")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
        sample = images[order.to(images.device)].detach().float().cpu()
        points = weighted_ycbcr(F.avg_pool2d(sample, SMOOTH).movedim(1, -1).flatten(0, -2))
        distinct = len(points.unique(dim=0))
        if not 1 <= classes <= distinct:
            raise ValueError(f"{classes} classes cannot be made of {distinct} different colors: choose 1 to {distinct}")
        with threadpool_limits(limits=1):
            means = KMeans(classes, n_init=STARTS, random_state=seed).fit(points.numpy()).cluster_centers_
        found = torch.from_numpy(means).float()
        colors = _color_of(found[found[:, 0].argsort()]).clamp(0, 1)  # the clamp only mends rounding
        return Palette(colors.to(images.device))

    def __len__(self) -> int:
        return len(self.colors)

    def layout_of(self, x: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n h w"]:
        """The pseudo-layout of images: each cell gets the class that its mean color is nearest to.

        Cells are squares of `cell_of` pixels: 2 for images of 32, 4 for images of 56, 6 for images of 96.

        Args:
            x: Images in [0, 1], on the palette's device.

        Returns:
            Classes, constant over each cell.

        Raises:
            ValueError: If no cell divides height and width.
        """
        cell = cell_of(x)
        means = weighted_ycbcr(F.avg_pool2d(x, cell).movedim(1, -1))
        distance = (means.unsqueeze(-2) - weighted_ycbcr(self.colors)).square().sum(dim=-1)
        return distance.argmin(dim=-1).repeat_interleave(cell, dim=1).repeat_interleave(cell, dim=2)


def labels_of(maps: UInt8[Tensor, "n h w"]) -> Int[Tensor, "n h w"]:
    """The labels in maps of classes as they were read: void, 255 in a file, becomes -1, which is never a class."""
    labels = maps.long()
    return labels.masked_fill(labels == VOID, -1)


def draw_layout(labels: Int[Tensor, "n h w"]) -> Float[Tensor, "n 3 h w"]:
    """Color layouts for a picture.

    Args:
        labels: Class of each pixel; below 0 it is void.

    Returns:
        Images in [0, 1] in the colors of `DISTINCT`, over and over; void pixels are black.
    """
    colors = torch.tensor(DISTINCT, device=labels.device).float() / LEVELS
    return colors[labels % len(colors)].masked_fill((labels < 0).unsqueeze(-1), 0.0).movedim(-1, 1)


def cell_of(x: Float[Tensor, "n 3 h w"]) -> int:
    """Side of a cell: the least that divides height and width, of at least 2 pixels and 1/16 of the width.

    Raises:
        ValueError: If there is none.
    """
    height, width = x.shape[-2:]
    least, common = max(2, width // 16), math.gcd(height, width)
    cell = next((side for side in range(least, common + 1) if common % side == 0), None)
    if cell is None:
        raise ValueError(f"images of {height} x {width} pixels do not divide into cells of {least} pixels or more")
    return cell


def weighted_ycbcr(colors: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 3"]:
    """Colors (RGB in [0, 1]) as k-means compares them: YCbCr times `WEIGHTS`."""
    ycbcr = rgb_to_ycbcr(colors.reshape(-1, 3).unsqueeze(-1)).squeeze(-1)
    return (ycbcr * _weights(ycbcr)).view(colors.shape)


def _color_of(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """The inverse of `weighted_ycbcr`."""
    return ycbcr_to_rgb((points / _weights(points)).unsqueeze(-1)).squeeze(-1)


def _weights(like: Tensor) -> Float[Tensor, "3"]:
    """`WEIGHTS` on a device; without non_blocking the host would wait for the copy."""
    return torch.tensor(WEIGHTS).to(like.device, non_blocking=True)
