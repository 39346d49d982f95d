"""The same augmentation by torchvision's transforms, one image at a time: for a DataLoader and its workers."""

import math
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from configs.augment import AugmentConfig
from env.augment.blur import NARROWEST, WIDEST, kernel_size
from env.augment.dial import Dial
from env.decoding import rgb

SIDES = ("top", "left", "bottom", "right")


@runtime_checkable
class Labeled(Protocol):
    """Any set of (image, label), as those of torchvision.datasets are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, Any]: ...


class EdgeAlignedCrop(v2.RandomResizedCrop):
    """A RandomResizedCrop whose every part shares at least one edge with the image: each side as often."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw a part as torchvision does, then move it to a side."""
        part = super().make_params(flat_inputs)
        height, width = v2.functional.get_size(flat_inputs[0])
        ends = {"top": 0, "left": 0, "bottom": height - part["height"], "right": width - part["width"]}
        side = SIDES[int(torch.randint(4, ()))]
        part["top" if side in ("top", "bottom") else "left"] = ends[side]
        return part


class PairsDataset(Dataset[tuple[Float[Tensor, "k 3 s s"], Any]]):
    """Several augmented views of each image of a set, with its label.

    Random numbers are torch's global ones, which a DataLoader seeds in each worker. A batch of it is image-major,
    (n, k, 3, s, s): this project's losses take `batch.transpose(0, 1)`.

    Args:
        dataset: Images of any kind and size that the transform takes, with labels.
        transform: What makes a view of an image: `transform`, or any other.
        views: Views of each image.
    """

    def __init__(self, dataset: Labeled, transform: v2.Transform, views: int = 2) -> None:
        self.dataset, self.transform, self.views = dataset, transform, views

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "k 3 s s"], Any]:
        image, label = self.dataset[index]
        return torch.stack([self.transform(image) for _ in range(self.views)]), label


def transform(config: AugmentConfig, strength: float, image_size: int) -> v2.Compose:
    """Build what `Expert` does from torchvision's transforms.

    Args:
        config: What is done, how often.
        strength: The dial, from 0 (no augmentation: images are only resized) to 1.
        image_size: Side of the views in pixels; images may have any size.

    Returns:
        A transform of one image (PIL, or a tensor; gray ones become RGB) to floats (3, s, s) in [0, 1].
    """
    steps: list[Any] = [
        v2.Lambda(_in_colors),
        v2.ToImage(),
        v2.RGB(),
        v2.ToDtype(torch.float32, scale=True),
        _crop(config, strength, image_size),
    ]
    if strength > 0:
        dial = Dial(strength)
        steps += [v2.RandomHorizontalFlip(config.flip), *_rotation(config.rotation, image_size)]
        jitter = v2.ColorJitter(dial.blend, dial.blend, dial.blend, dial.turn)
        blur = v2.GaussianBlur(kernel_size(image_size), (NARROWEST, WIDEST))
        steps += [v2.RandomApply([jitter], dial.jitter_probability), v2.RandomGrayscale(config.gray)]
        steps += [v2.RandomApply([blur], config.blur)]
    return v2.Compose([*steps, v2.Lambda(_within), v2.ToPureTensor()])


def _crop(config: AugmentConfig, strength: float, size: int) -> v2.Transform:
    if config.crop == "none" or strength == 0:
        return v2.Resize([size, size])
    law = EdgeAlignedCrop if config.crop == "edge" else v2.RandomResizedCrop
    return law(size, scale=(Dial(strength).smallest_area, 1.0))


def _rotation(degrees: float, size: int) -> list[v2.Transform]:
    """Rotation that shows the image's reflection in the corners: as much padding as a diagonal needs."""
    if degrees == 0:
        return []
    border = math.ceil(size * (math.sqrt(2) - 1) / 2) + 1
    return [
        v2.Pad(border, padding_mode="symmetric"),
        v2.RandomRotation(degrees, v2.InterpolationMode.BILINEAR),
        v2.CenterCrop(size),
    ]


def _in_colors(image: Any) -> Any:
    """A PIL image of any kind in RGB (numbers of a palette are no colors); a tensor as it is."""
    return rgb(image) if isinstance(image, Image.Image) else image


def _within(image: Tensor) -> Tensor:
    """Cut what rounding put outside; a function with a name, since workers may need to pickle it."""
    return image.clamp(0, 1)
