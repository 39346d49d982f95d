"""Image sets: held whole on the device as bytes, split once, batched as a pure function of (seed, step)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from sklearn.datasets import load_digits
from torch import Tensor

from configs.data import DataConfig
from training.seeding import generator_at

VALIDATION_IMAGES = 300
TEST_IMAGES = 500
MIN_CONTRAST = 0.25
"""Smallest difference in luma between a digit and its ground, so that no digit is legible by color alone."""


@dataclass(frozen=True)
class ImageSet:
    """Images with labels, on one device.

    Attributes:
        pixels: RGB bytes.
        labels: Class of each image; for evaluation (and a reward that says so) alone.
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, index: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b 3 h w"]:
        """The chosen images (all by default) as floats in [0, 1]."""
        chosen = self.pixels if index is None else self.pixels[index]
        return chosen.float() / 255

    def batch(self, seed: int, step: int, size: int) -> Float[Tensor, "b 3 h w"]:
        """The step's batch: each epoch visits a fresh permutation, cut into whole batches.

        Raises:
            ValueError: If the set holds fewer images than a batch.
        """
        if size > len(self):
            raise ValueError(f"a batch of {size} does not fit a set of {len(self)} images: lower --schedule.batch")
        epoch, position = divmod(step, len(self) // size)
        generator = generator_at(seed, epoch, "order", self.pixels.device)
        order = torch.randperm(len(self), generator=generator, device=self.pixels.device)
        return self.images(order[position * size : (position + 1) * size])


@dataclass(frozen=True)
class Splits:
    """One image set, split for learning, for the reward and for the final figures."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


def load(config: DataConfig, device: torch.device) -> Splits:
    """Load and split the configured image set onto the device."""
    pixels, labels = colored_digits(config.size, config.seed)
    order = torch.randperm(len(labels), generator=generator_at(config.seed, 0, "split", torch.device("cpu")))
    held_out = VALIDATION_IMAGES + TEST_IMAGES
    parts = order[held_out:], order[:VALIDATION_IMAGES], order[VALIDATION_IMAGES:held_out]
    return Splits(*(ImageSet(pixels[part].to(device), labels[part].to(device)) for part in parts))


def colored_digits(size: int, seed: int) -> tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"]]:
    """Draw scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak 1998), each in two random colors.

    Color says nothing of the class and is the easiest thing to tell two images apart by: which corruption is right is
    known beforehand.

    Args:
        size: Side in pixels; the 8 x 8 originals are upsampled bilinearly.
        seed: Draws the colors.

    Returns:
        Images and classes 0 to 9, in the original order.
    """
    source = load_digits()
    ink = torch.from_numpy(source.images).float().unsqueeze(1) / 16
    ink = F.interpolate(ink, size=(size, size), mode="bilinear", align_corners=False)
    generator = generator_at(seed, 0, "colors", torch.device("cpu"))
    n = len(ink)
    # Rejection by the first of 64 draws with enough contrast; all 64 fail for one image in 10^15.
    draws = torch.rand(n, 64, 2, 3, generator=generator)
    contrast = (draws[:, :, 0].mean(-1) - draws[:, :, 1].mean(-1)).abs()
    first = (contrast >= MIN_CONTRAST).float().argmax(dim=1)
    digit, ground = draws[torch.arange(n), first].unbind(dim=1)
    x = ground.view(n, 3, 1, 1) + ink * (digit - ground).view(n, 3, 1, 1)
    return (x * 255).round().to(torch.uint8), torch.from_numpy(source.target).long()
