"""Maps of classes beside the images of a folder: `name_mask.png` beside `name.jpg`, one class per pixel.

A map is a PNG of one channel, or with a palette, of as many pixels as its image. Its values are the classes, 255 is
void: no class.
"""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from configs.errors import UsageError
from env.decoding import central_square

ENDING = "_mask.png"
VOID = 255
"""The value of pixels that belong to no class."""
MODES = ("L", "P")
"""Pillow's names for one channel of bytes, and for a palette."""
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
"""The tag of EXIF that says how an image is turned, and its values that exchange width and height."""


def map_of(path: Path) -> Path:
    """Where the map of an image file lies, if it has one."""
    return path.with_name(path.stem + ENDING)


def without_maps(names: Sequence[str]) -> list[str]:
    """The image files of one folder that are not the map of another: `a_mask.png` beside `a.jpg` is none of them.

    Nor is `a_mask.PNG`, which `require_maps` would have renamed: whatever its case, it is no photograph.
    """
    maps = {map_of(Path(name)).name.lower() for name in names}
    return [name for name in names if name.lower() not in maps]


def require_maps(paths: Sequence[Path], root: Path) -> None:
    """Refuse a folder in which images have no map.

    Raises:
        UsageError: If an image has none; says how many, and names the first.
    """
    if missing := [path for path in paths if not map_of(path).is_file()]:
        first = missing[0].relative_to(root)
        raise UsageError(
            f"--data.root {root}: {len(missing)} of {len(paths)} images have no map of classes. The first is {first}, "
            f"beside which there is no {map_of(first).name} (the ending {ENDING} in lower case). Add the maps, or "
            "train without --layouts maps"
        )


def read_maps(paths: Sequence[Path], size: int, classes: int) -> UInt8[Tensor, "n h w"]:
    """Read the map of each image file.

    Args:
        paths: The image files.
        size: Side of the squares that are wanted.
        classes: How many classes there may be.

    Returns:
        Values 0 to classes - 1, or `VOID`.

    Raises:
        UsageError: If a map cannot be used, or holds a higher value; names the first such file.
    """
    # Warnings about odd metadata do not concern the pixels. The filter is set here because threads share it.
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module="PIL")
        maps = torch.from_numpy(np.stack(list(pool.map(decode_map, paths, repeat(size)))))
    highest = maps.masked_fill(maps == VOID, 0).flatten(1).amax(dim=1)
    if strange := (highest >= classes).nonzero().flatten().tolist():
        raise UsageError(
            f"--generator.layout-classes {classes}: {map_of(paths[strange[0]])} holds {int(highest[strange[0]])}, but "
            f"classes are 0 to {classes - 1} and {VOID} is void. All maps together need --generator.layout-classes "
            f"{int(highest.max()) + 1}"
        )
    return maps


def decode_map(path: Path, size: int) -> UInt8[np.ndarray, "h w"]:
    """Read the map of an image file, cropped like the image and resized without mixing classes (nearest).

    Args:
        path: The image's file.
        size: Side of the square that is wanted.

    Returns:
        The class of each pixel, or `VOID`.

    Raises:
        UsageError: If the map is damaged, has several channels or more than 8 bits, or another size than the image.
    """
    try:
        with Image.open(map_of(path)) as found, Image.open(path) as image:
            if found.mode not in MODES:
                raise ValueError(f"its mode is {found.mode}, not one channel of 8 bits or a palette")
            if found.size != _upright_size(image):
                raise ValueError(f"its pixels are {found.size}, those of {path.name} {_upright_size(image)}")
            square = central_square(found)
    except Exception as error:  # Damaged files raise nearly anything: OSError, SyntaxError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"--layouts maps: {map_of(path)} cannot be used ({reason}): mend it, or give another --data.root"
        ) from error
    return np.asarray(square.resize((size, size), Image.Resampling.NEAREST))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the turn that EXIF asks for; nothing is decoded."""
    turned = image.getexif().get(ORIENTATION) in QUARTER_TURNS
    return (image.height, image.width) if turned else image.size
