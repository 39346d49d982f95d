"""Image folders: found, split by the names of the files, decoded by threads into one array of bytes.

Maps of classes beside the images (`env.maps`) are read where they are asked for, and never taken for images.
"""

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
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from configs.data import DataConfig
from configs.errors import UsageError
from env.decoding import decode
from env.maps import map_of, read_maps, require_maps, without_maps
from training.origin import digest

PARTS = ("train", "validation", "test")
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
"""What folders of splits are called, in any case; classes are not."""
UNSPLIT = (0.8, 0.85, 1.0)
"""Upper ends of the shares of training, validation and test where the folder is not split."""
HELD_OUT = (0.9, 1.0, 1.0)
"""The same within train/, where there is a test/ (or val/) beside it."""
UNREAD = (".avif", ".gif", ".heic", ".heif", ".jxl")
"""Endings of pictures that torchvision's ImageFolder does not take for images, nor does this project."""
PROGRESS = 2000
"""More files than this are read under a progress bar."""
CHUNK = 64
"""Files that a thread takes at once."""
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
        contents: Hash of each of the other files, in order.
    """

    damaged: dict[int, str] = field(default_factory=dict)
    upsampled: int = 0
    contents: list[str] = field(default_factory=list)


class Part(NamedTuple):
    """The images of one split, with labels and, where they were asked for, maps of classes."""

    pixels: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    layouts: UInt8[Tensor, "n h w"] | None


def read(config: DataConfig, map_classes: int = 0) -> tuple[tuple[str, ...], list[Part], str]:
    """Read a folder with one subfolder per class, or with such folders below train/ and test/ (or val/).

    With train/ and test/ or val/, that is the split: a tenth of train/ is for validation, or val/ where there are all
    three. Otherwise 80 % are for training, 5 % for validation and 15 % for test. Shares are drawn by a hash of
    --data.seed and the file's path below the folder, so that they depend neither on the machine nor on other files.

    Images are turned as EXIF says, cropped to the central square, resized (bilinear, antialiased) where their size
    differs, and made RGB. Transparency is dropped, not blended; 16-bit gray is scaled. Damaged images are left out.
    What is left out or upsampled is said on stderr.

    Args:
        config: Root, size, classes and seed.
        map_classes: Read the map beside each image, of so many classes; 0: ignore the maps.

    Returns:
        Names of the classes in the order of the labels; what is for training, validation and test; and a digest of
        the files that were read: of the images' paths below the root, of their bytes and of their maps', as pixels
        depend on the machine and on Pillow's version.

    Raises:
        UsageError: If there is no such folder, a class or a split is empty, most images are damaged, or maps are asked
            for and one is missing or cannot be used.
    """
    names, files = found(config)
    if map_classes:
        require_maps([file.path for file in files], config.root)
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
    print(
        f"{config.root}: {len(files)} images of {len(names)} classes: {counts[0]} to train on, {counts[1]} for "
        f"validation, {counts[2]} for test{_passed_over(config.root, names)}",
        file=sys.stderr,
    )
    labels = torch.tensor([file.label for file in files])
    layouts: Sequence[Tensor | None] = [None] * len(PARTS)
    contents = reading.contents
    if map_classes:
        layouts = read_maps([file.path for file in files], size, map_classes).split(counts)
        contents = contents + [_content(map_of(file.path)) for file in files]
    parts = [Part(*part) for part in zip(pixels.split(counts), labels.split(counts), layouts, strict=True)]
    paths = [_portable(file.path.relative_to(config.root)) for file in files]
    return names, parts, digest([*paths, *contents])


def found(config: DataConfig) -> tuple[tuple[str, ...], list[File]]:
    """List the image files of the chosen classes, by part, then class, then path; nothing is opened.

    Hidden files and folders (with a leading dot) are passed over, and so are maps of classes beside their images and
    what torchvision's ImageFolder would not take for an image. Links to folders are followed, but within a class no
    folder is visited twice: a link back would deal one image to several parts.

    Args:
        config: Root, classes and seed.

    Returns:
        Names of the classes in the order of the labels, and the files.

    Raises:
        UsageError: If there is no such folder, it holds no classes, or a class holds no images.
    """
    sources = _sources(config.root)
    all_names = _subfolders(sources[0][0])
    _require_classes(sources, all_names, config)
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
            files += [File(path, label, part_of(path.relative_to(folder), config.seed, shares)) for path in paths]
    return names, sorted(files, key=lambda file: file.part)  # stable: class and path stay in order


def part_of(path: Path, seed: int, shares: tuple[float, ...]) -> int:
    """Tell which part a file belongs to.

    Args:
        path: The file's path below the folder that is split.
        seed: Draws another split.
        shares: Upper end of each part's share, ascending to 1.

    Returns:
        Position in PARTS.
    """
    text = f"{seed}/{_portable(path)}"  # names need not be valid UTF-8
    drawn = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return bisect_right(shares, int.from_bytes(drawn, "little") / 2**48)


def _portable(path: Path) -> str:
    """A path as text that is the same on every machine: Macs spell accents as two characters, other systems as one."""
    return unicodedata.normalize("NFC", path.as_posix())


def _content(path: Path) -> str:
    """A digest of a file's bytes."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


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
                seen.contents.append(_content(paths[position]))
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
            reading.contents += seen.contents
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


def _passed_over(root: Path, names: Sequence[str]) -> str:
    """What to say of pictures of kinds that are not read; nothing where there are none."""
    places = [folder / name for folder, _ in _sources(root) for name in names if (folder / name).is_dir()]
    files = (path for place in places for path in place.rglob("*") if path.is_file() and not path.name.startswith("."))
    endings = [path.suffix.lower() for path in files if path.suffix.lower() in UNREAD]
    kinds = ", ".join(sorted(set(endings)))
    return f"; {len(endings)} pictures passed over ({kinds}: convert them)" if endings else ""


def splits_at(root: Path) -> tuple[str, ...]:
    """Names of the folders that are splits, such as train and val; none where the images of one folder are split."""
    return tuple(folder.name for folder, _ in _sources(root) if folder != root)


def _sources(root: Path) -> list[tuple[Path, tuple[float, ...]]]:
    """Folders that hold classes, with the shares of training, validation and test to be cut from each."""
    if not (os.access(root, os.R_OK | os.X_OK) and root.is_dir()):
        raise UsageError(
            f"--data.root {root}: there is no such folder, or it may not be read. Give the one that holds one folder "
            "per class"
        )
    train, val, test = root / "train", root / "val", root / "test"
    if train.is_dir() and val.is_dir() and test.is_dir():
        return [(train, (1.0, 1.0, 1.0)), (val, (0.0, 1.0, 1.0)), (test, (0.0, 0.0, 1.0))]
    if train.is_dir() and (val.is_dir() or test.is_dir()):
        return [(train, HELD_OUT), (test if test.is_dir() else val, (0.0, 0.0, 1.0))]
    if _subfolders(root) == ["train"] and _subfolders(train):
        raise UsageError(f"--data.root {root}: there is no test/ beside train/. Give {train}, which is then split")
    return [(root, UNSPLIT)]


def _require_classes(sources: list[tuple[Path, tuple[float, ...]]], names: Sequence[str], config: DataConfig) -> None:
    first, root = sources[0][0], config.root
    if not names:
        lying = sum(path.suffix.lower() in IMG_EXTENSIONS for path in first.iterdir())
        raise UsageError(
            f"--data.root {root}: {first} holds {lying} images and no folders. Put the images of each class into a "
            "folder of their own (one for all will do where classes are of no interest)"
        )
    splits = [name for name in names if name.lower() in SPLITS]
    if len(splits) > 1 and len(splits) == len(names):
        raise UsageError(
            f"--data.root {root}: {' and '.join(splits)} would be classes. For splits, name them train and test (or "
            "val, or all three); else give the folder of one of them, which is then split"
        )
    for folder, _ in sources[1:]:
        held = _subfolders(folder)
        if not held:
            raise UsageError(
                f"--data.root {root}: {folder} holds no folders. Put the images of each class into a folder of the "
                f"same name as in {first}, or remove {folder}"
            )
        is_complete = config.classes and all(names[position] in held for position in config.chosen(names))
        if (strange := [name for name in held if name not in names]) and not is_complete:  # else they are left out
            raise UsageError(f"--data.root {root}: {folder} holds the class {strange[0]}, which {first} does not")


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return sorted(_walk(folder), key=lambda path: path.as_posix())


def _walk(folder: Path) -> Iterator[Path]:
    visited: set[str] = set()
    waiting = [str(folder)]
    for start in waiting:  # links wait until all that lies here itself was visited: it keeps its path, and so its part
        for place, below, names in os.walk(start):
            if (real := os.path.realpath(place)) in visited:
                below.clear()
                continue
            visited.add(real)
            below[:] = sorted(name for name in below if not name.startswith("."))
            waiting += [link for name in below if os.path.islink(link := os.path.join(place, name))]
            images = [name for name in names if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")]
            yield from (Path(place, name) for name in without_maps(images))
