"""Image folders: found, split by the names of the files, decoded by threads into one array of bytes."""

import hashlib
import os
import sys
import unicodedata
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from configs.data import DataConfig
from configs.errors import UsageError

PARTS = ("train", "validation", "test")
UNSPLIT = (0.8, 0.85, 1.0)
"""Upper ends of the shares of training, validation and test where the folder is not split."""
HELD_OUT = (0.9, 1.0, 1.0)
"""The same within train/, where there is a test/ (or val/) beside it."""
PROGRESS = 2000
"""More files than this are read under a progress bar."""
CHUNK = 64
"""Files a thread takes at once."""
NAMED = 5
"""Damaged files that are named."""


class File(NamedTuple):
    """An image file, its label, and its place in PARTS."""

    path: Path
    label: int
    part: int


@dataclass
class Reading:
    """What came up while files were read.

    Attributes:
        damaged: Position of each file that could not be decoded, and the reason.
        upsampled: How many images were smaller than they had to be.
    """

    damaged: dict[int, str] = field(default_factory=dict)
    upsampled: int = 0


def read(config: DataConfig) -> tuple[tuple[str, ...], list[tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"]]]]:
    """Read a folder with one subfolder a class, or with such folders below train/ and test/ (or val/).

    With train/ and test/ or val/, that is the split: a tenth of train/ is for validation, or val/ where there are all
    three. Otherwise 80 % are for training, 5 % for validation and 15 % for test. Shares are drawn by a hash of
    --data.seed and the file's path below the folder, so that they depend neither on the machine nor on other files.

    Images are turned as EXIF says, cropped to the central square, resized (bilinear, antialiased) where their size
    differs, and made RGB. Transparency is dropped, not blended; 16-bit gray is scaled. Damaged images are left out.
    What is left out or upsampled is said on stderr.

    Args:
        config: Root, size, classes and seed.

    Returns:
        Names of the classes in the order of the labels; pixels and labels for training, validation and test.

    Raises:
        UsageError: If there is no such folder, a class or a split is empty, or most images are damaged.
    """
    names, files = found(config)
    size = config.size
    pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    reading = _decoded([file.path for file in files], pixels.numpy(), config.root)
    _tell(reading, files, config)
    if reading.damaged:
        sound = [position for position in range(len(files)) if position not in reading.damaged]
        files, pixels = [files[position] for position in sound], pixels[sound]
    counts = [sum(file.part == part for file in files) for part in range(len(PARTS))]
    if 0 in counts:
        raise UsageError(
            f"--data.root {config.root}: none of the {len(files)} images fell to {PARTS[counts.index(0)]}: "
            "more images are needed"
        )
    labels = torch.tensor([file.label for file in files])
    return names, list(zip(pixels.split(counts), labels.split(counts), strict=True))


def found(config: DataConfig) -> tuple[tuple[str, ...], list[File]]:
    """List the image files of the chosen classes, by part, then class, then path; nothing is opened.

    Hidden files and folders (with a leading dot) are passed over, and so is what torchvision's ImageFolder would not
    take for an image. Links to folders are followed.

    Args:
        config: Root, classes and seed.

    Returns:
        Names of the classes in the order of the labels, and the files.

    Raises:
        UsageError: If there is no such folder, it holds no classes, or a class holds no images.
    """
    sources = _sources(config.root)
    all_names = _subfolders(sources[0][0])
    _require_classes(sources, all_names, config.root)
    names = tuple(all_names[position] for position in config.chosen(all_names))
    files: list[File] = []
    for folder, shares in sources:
        for label, name in enumerate(names):
            paths = _image_files(folder / name)
            if not paths and folder == sources[0][0]:
                raise UsageError(
                    f"--data.root {config.root}: the class folder {folder / name} holds no image "
                    f"({', '.join(IMG_EXTENSIONS)}). Remove it, or name the others with --data.classes"
                )
            files += [File(path, label, part(path.relative_to(folder), config.seed, shares)) for path in paths]
    return names, sorted(files, key=lambda file: file.part)  # stable: class and path stay in order


def part(path: Path, seed: int, shares: tuple[float, ...]) -> int:
    """Tell which part a file belongs to.

    Args:
        path: The file's path below the folder that is split.
        seed: Draws another split.
        shares: Upper end of each part's share, ascending to 1.

    Returns:
        Position in PARTS.
    """
    # Macs spell accents as two characters, other systems as one; names need not be valid UTF-8.
    text = f"{seed}/{unicodedata.normalize('NFC', path.as_posix())}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return bisect_right(shares, int.from_bytes(digest, "little") / 2**48)


def decode(path: Path, size: int) -> tuple[UInt8[np.ndarray, "3 h w"], bool]:
    """Read one image file.

    Args:
        path: The file.
        size: Side of the square that is wanted.

    Returns:
        RGB bytes, and whether they had to be upsampled.

    Raises:
        Exception: Whatever Pillow raises if the file is damaged; ValueError if its pixels have no known range.
    """
    with Image.open(path) as image:
        small = min(image.size) < size
        image.draft(None, (2 * size, 2 * size))  # JPEG: decode at a fraction, still twice as large as needed
        upright = _rgb(ImageOps.exif_transpose(image))
    width, height = upright.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    square = upright.crop((left, top, left + short, top + short))
    if short != size:
        square = square.resize((size, size), Image.Resampling.BILINEAR)  # Pillow antialiases whenever it shrinks
    return np.asarray(square).transpose(2, 0, 1), small


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB."""
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # 16 bits, which older versions of Pillow hand out as 32; `convert` would clip them
        gray = np.asarray(image).astype(np.int64)
        if gray.min() < 0 or gray.max() > 65535:
            raise ValueError("pixels are whole numbers of unknown range")
        return Image.fromarray(((gray + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return image.convert("RGB")


def _decoded(paths: Sequence[Path], out: UInt8[np.ndarray, "n 3 h w"], root: Path) -> Reading:
    """Decode all files into `out`, in order; rows of damaged ones are left as they are."""

    def chunk(start: int) -> Reading:
        seen = Reading()
        for position in range(start, min(start + CHUNK, len(paths))):
            try:
                out[position], small = decode(paths[position], out.shape[-1])
            except Exception as error:  # Damaged files raise nearly anything: OSError, SyntaxError, struct.error, ...
                seen.damaged[position] = " ".join(str(error).split()) or type(error).__name__
            else:
                seen.upsampled += small
        return seen

    reading = Reading()
    starts = range(0, len(paths), CHUNK)
    bar = tqdm(total=len(paths), desc=f"reading {root}", unit=" images", disable=len(paths) <= PROGRESS, leave=False)
    # Warnings about odd metadata do not concern the pixels. The filter is set here because threads share it.
    with warnings.catch_warnings(), bar, ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module="PIL")
        for start, seen in zip(starts, pool.map(chunk, starts), strict=True):
            reading.damaged |= seen.damaged
            reading.upsampled += seen.upsampled
            bar.update(min(CHUNK, len(paths) - start))
    return reading


def _tell(reading: Reading, files: Sequence[File], config: DataConfig) -> None:
    """Say what was left out or upsampled, and refuse a folder that is mostly damaged."""
    count = len(reading.damaged)
    named = ", ".join(str(files[position].path.relative_to(config.root)) for position in list(reading.damaged)[:NAMED])
    named += f" and {count - NAMED} more" * (count > NAMED)
    if 2 * count > len(files):
        raise UsageError(
            f"--data.root {config.root}: {count} of {len(files)} images are damaged: {named} "
            f"({next(iter(reading.damaged.values()))})"
        )
    if count:
        print(f"skipped {count} damaged images of {config.root}: {named}", file=sys.stderr)
    if reading.upsampled:
        print(
            f"{reading.upsampled} of {len(files)} images of {config.root} are smaller than --data.size {config.size} "
            "and were upsampled",
            file=sys.stderr,
        )


def _sources(root: Path) -> list[tuple[Path, tuple[float, ...]]]:
    """Folders that hold classes, with the shares of training, validation and test to be cut from each."""
    if not (os.access(root, os.R_OK | os.X_OK) and root.is_dir()):
        raise UsageError(
            f"--data.root {root}: there is no such folder, or it may not be read. Give the one that holds one folder "
            "a class"
        )
    train, val, test = root / "train", root / "val", root / "test"
    if train.is_dir() and val.is_dir() and test.is_dir():
        return [(train, (1.0, 1.0, 1.0)), (val, (0.0, 1.0, 1.0)), (test, (0.0, 0.0, 1.0))]
    if train.is_dir() and (val.is_dir() or test.is_dir()):
        return [(train, HELD_OUT), (test if test.is_dir() else val, (0.0, 0.0, 1.0))]
    if _subfolders(root) == ["train"] and _subfolders(train):
        raise UsageError(f"--data.root {root}: there is no test/ beside train/. Give {train}, which is then split")
    return [(root, UNSPLIT)]


def _require_classes(sources: list[tuple[Path, tuple[float, ...]]], names: Sequence[str], root: Path) -> None:
    first = sources[0][0]
    if not names:
        lying = sum(path.suffix.lower() in IMG_EXTENSIONS for path in first.iterdir())
        raise UsageError(
            f"--data.root {root}: {first} holds {lying} images and no folders. Put the images of each class into a "
            "folder of their own (one for all will do where classes are of no interest)"
        )
    for folder, _ in sources[1:]:
        if strange := [name for name in _subfolders(folder) if name not in names]:
            raise UsageError(f"--data.root {root}: {folder} holds the class {strange[0]}, which {first} does not")


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return sorted(_walk(folder), key=lambda path: path.as_posix())


def _walk(folder: Path) -> Iterator[Path]:
    for place, below, names in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith("."):
                yield Path(place, name)
