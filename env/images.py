"""Image sets: held whole on the device as bytes, split once, batched as a pure function of (seed, step)."""

import pickle
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2.functional import resize

from configs.data import DataConfig
from configs.errors import UsageError
from env import folders
from training.origin import Source, digest
from training.seeding import generator_at

CPU = torch.device("cpu")
VALIDATION_IMAGES = 300
TEST_IMAGES = 500
"""Both of the digits; other sets come with test images, or are split by shares."""
VALIDATION_DIVISOR = 10
"""One training image in so many is held out for validation (CIFAR, STL-10)."""
MIN_CONTRAST = 0.25
"""Smallest difference in luma between a digit and its ground, so that no digit is legible by color alone."""
CHUNK = 1000
"""Images that are resized at once, so that no second copy of a set is made."""
UNREADABLE = (
    *(RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError),
    *(pickle.UnpicklingError, tarfile.TarError),
)
"""What torchvision raises where files are missing or damaged, or a download fails."""


@dataclass(frozen=True)
class ImageSet:
    """Images with labels, on one device.

    Attributes:
        pixels: RGB bytes.
        labels: Class of each image, for evaluation; nothing trains on it unless a setting says so (--reward knn,
            --reward.reference.kind labels, --features classifier). -1: unknown.
        layouts: Map of classes of each image, where they were asked for; 255 is void.
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    layouts: UInt8[Tensor, "n h w"] | None = None
    _orders: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The permutation of the last epoch that was asked for, by (seed, epoch): `rows` makes it once per epoch."""

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, index: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b 3 h w"]:
        """The chosen images (all by default) as floats in [0, 1]."""
        chosen = self.pixels if index is None else self.pixels[index]
        return chosen.float() / 255

    def rows(self, seed: int, step: int, size: int) -> Int[Tensor, " b"]:
        """Where the step's images lie: each epoch visits a fresh permutation, cut into whole batches.

        Raises:
            ValueError: If the set holds fewer images than a batch.
        """
        if size > len(self):
            raise ValueError(f"a batch of {size} does not fit a set of {len(self)} images: lower --schedule.batch")
        epoch, position = divmod(step, len(self) // size)
        if (seed, epoch) not in self._orders:
            generator = generator_at(seed, epoch, "order", self.pixels.device)
            self._orders.clear()
            self._orders[seed, epoch] = torch.randperm(len(self), generator=generator, device=self.pixels.device)
        return self._orders[seed, epoch][position * size : (position + 1) * size]

    def thinned(self, count: int) -> "ImageSet":
        """At most `count` of the images, evenly spread over the set (a folder's are sorted by class); 0: all."""
        wanted = min(count, len(self)) or len(self)
        rows = torch.linspace(0, len(self) - 1, wanted, device=self.pixels.device, dtype=torch.float64).round().long()
        return ImageSet(self.pixels[rows], self.labels[rows], self.maps(rows))

    def maps(self, index: Int[Tensor, " b"]) -> UInt8[Tensor, "b h w"] | None:
        """The maps of the chosen images, if there are any."""
        return None if self.layouts is None else self.layouts[index]

    def spread(self, count: int) -> Float[Tensor, "b 3 h w"]:
        """The images of `thinned` as floats in [0, 1]."""
        return self.thinned(count).images()


@dataclass(frozen=True)
class Splits:
    """One image set, split for learning, for the reward and for the final figures.

    Attributes:
        train: For learning.
        validation: For the reward's reference and for choosing settings.
        test: Only for the final figures.
        classes: Names in the order of the labels.
        digest: Of what was read, before it was decoded or resized: pixels depend on the machine, this does not.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: tuple[str, ...] = ()
    digest: str = ""

    @property
    def source(self) -> Source:
        """These images, as what a run is made of."""
        return Source(self.digest, "put the former ones back, or name their folder with --data.root")


class Selection(NamedTuple):
    """What becomes one split: rows of some source, at its own size and with its own labels."""

    pixels: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    rows: Int[Tensor, " m"]

    def pieces(self) -> Iterator[Tensor]:
        """The chosen images and labels, some after the others, so that no second copy of a set is made."""
        for some in self.rows.split(CHUNK):
            yield from (self.pixels[some], self.labels[some])


def load(config: DataConfig, device: torch.device, map_classes: int = 0) -> Splits:
    """Load and split the configured image set onto the device.

    CIFAR and STL-10 are tested on the official test images; a tenth of the training images, drawn by --data.seed, is
    for validation. The unlabeled images of STL-10 are left to `with_unlabeled`. The classes of --data.classes are
    taken out of the same splits, so that a test image of the whole set is never a training image of a part of it.

    Args:
        config: Which set, at which size.
        device: Where all of it is kept, as bytes.
        map_classes: Read the maps beside the images of a folder, of so many classes (`env.maps`); 0: ignore them.

    Returns:
        The splits, with images of `config.size` pixels and labels 0 to k - 1.

    Raises:
        UsageError: If files are missing or damaged, a class is unknown, or a split would be empty.
        ValueError: If maps are asked for, and the images are no folder.
    """
    if map_classes and config.name != "imagefolder":
        raise ValueError(f"there are no maps of classes beside the images of {config.name}")
    if config.name == "imagefolder":
        names, folder_parts, content = folders.read(config, map_classes)
        train, validation, test = (_moved(part, device) for part in folder_parts)
    else:
        all_names, parts = _digits(config) if config.name == "digits" else _archived(config)
        chosen = config.chosen(all_names)
        names = tuple(all_names[position] for position in chosen)
        renumbered = torch.full((len(all_names),), -1)
        renumbered[list(chosen)] = torch.arange(len(chosen))
        train, validation, test = (_gathered(part, renumbered, config.size, device) for part in parts)
        content = digest(piece for part in parts for piece in part.pieces())
    if len(names) == 1:
        print(
            f"--data {config.name}: {names[0]} is the only class. A CAMNet needs no more, but kNN and linear accuracy "
            "say nothing",
            file=sys.stderr,
        )
    return Splits(train, validation, test, names, content)


def with_unlabeled(train: ImageSet, config: DataConfig) -> ImageSet:
    """The training images of STL-10, and after them its 100,000 unlabeled ones: for what never looks at labels.

    At 96 pixels they are 2.8 GB of bytes, and twice that while they are read.

    Args:
        train: The training images, of the size that is wanted.
        config: Where the files lie.

    Returns:
        Both on the training images' device, without maps; the label of unlabeled images is -1.

    Raises:
        UsageError: If files are missing or damaged.
    """
    _, pixels, labels = _official(config, "unlabeled")
    joined = train.pixels.new_empty(len(train) + len(pixels), *train.pixels.shape[1:])
    joined[: len(train)] = train.pixels
    _resized(pixels, torch.arange(len(pixels)), joined[len(train) :])
    return ImageSet(joined, torch.cat([train.labels, labels.to(train.labels.device)]))


def _moved(part: folders.Part, device: torch.device) -> ImageSet:
    layouts = None if part.layouts is None else part.layouts.to(device)
    return ImageSet(part.pixels.to(device), part.labels.to(device), layouts)


def _gathered(part: Selection, renumbered: Int[Tensor, " classes"], size: int, device: torch.device) -> ImageSet:
    """Take the part's rows without those whose new label is -1, and resize them."""
    labels = renumbered[part.labels[part.rows]]
    rows, labels = part.rows[labels >= 0], labels[labels >= 0]
    pixels = torch.empty(len(rows), 3, size, size, dtype=torch.uint8, device=device)
    _resized(part.pixels, rows, pixels)
    return ImageSet(pixels, labels.to(device))


def _resized(source: UInt8[Tensor, "n 3 h w"], rows: Int[Tensor, " m"], out: UInt8[Tensor, "m 3 s s"]) -> None:
    """Put the chosen images, at its own size, into `out`."""
    size = out.shape[-1]
    for place, some in zip(out.split(CHUNK), rows.split(CHUNK), strict=True):
        images = source[some]
        place.copy_(images if images.shape[-1] == size else resize(images, [size, size], antialias=True))


def _digits(config: DataConfig) -> tuple[tuple[str, ...], list[Selection]]:
    pixels, labels = colored_digits(config.size, config.seed)
    order = torch.randperm(len(labels), generator=generator_at(config.seed, 0, "split", CPU))
    held_out = VALIDATION_IMAGES + TEST_IMAGES
    parts = order[held_out:], order[:VALIDATION_IMAGES], order[VALIDATION_IMAGES:held_out]
    return tuple(map(str, range(10))), [Selection(pixels, labels, rows) for rows in parts]


def _archived(config: DataConfig) -> tuple[tuple[str, ...], list[Selection]]:
    """Read CIFAR or STL-10: names of the classes, and the parts for training, validation and test."""
    names, pixels, labels = _official(config, "train")
    _, test_pixels, test_labels = _official(config, "test")
    order = torch.randperm(len(labels), generator=generator_at(config.seed, 0, "split", CPU))
    held_out = len(labels) // VALIDATION_DIVISOR
    parts = [Selection(pixels, labels, rows) for rows in (order[held_out:], order[:held_out])]
    return names, [*parts, Selection(test_pixels, test_labels, torch.arange(len(test_labels)))]


def _official(config: DataConfig, split: str) -> tuple[tuple[str, ...], UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"]]:
    """Read official images (`train`, `test`; STL-10: `unlabeled`) through torchvision, which checks hashes first."""
    kinds: dict[str, Any] = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "stl10": datasets.STL10}
    kind = kinds[config.name]
    which = {"split": split} if config.name == "stl10" else {"train": split == "train"}
    folder = config.root / kind.base_folder
    if not config.download and not folder.is_dir():
        raise UsageError(
            f"--data {config.name}: there is no {folder}. Give the folder that holds {kind.base_folder} with "
            "--data.root, or add --data.download True"
        )
    try:
        found = kind(config.root, download=config.download, **which)
        pixels = torch.from_numpy(found.data)
        labels = torch.as_tensor(found.targets if hasattr(found, "targets") else found.labels).long()
        names = tuple(found.classes)
    except UNREADABLE as error:
        raise UsageError(
            f"--data {config.name}: the files in {folder} are incomplete or damaged, or could not be downloaded "
            f"({' '.join(str(error).split())}). Remove {folder} and add --data.download True, or give another "
            "--data.root"
        ) from error
    return names, pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2), labels


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
    generator = generator_at(seed, 0, "colors", CPU)
    n = len(ink)
    # Rejection by the first of 64 draws with enough contrast; all 64 fail for one image in 10^15.
    draws = torch.rand(n, 64, 2, 3, generator=generator)
    contrast = (draws[:, :, 0].mean(-1) - draws[:, :, 1].mean(-1)).abs()
    first = (contrast >= MIN_CONTRAST).float().argmax(dim=1)
    digit, ground = draws[torch.arange(n), first].unbind(dim=1)
    x = ground.view(n, 3, 1, 1) + ink * (digit - ground).view(n, 3, 1, 1)
    return (x * 255).round().to(torch.uint8), torch.from_numpy(source.target).long()
