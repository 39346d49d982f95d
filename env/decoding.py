"""From an image file to a square of RGB bytes."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps


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
        square = central_square(rgb(ImageOps.exif_transpose(image)))
    if square.width != size:
        square = square.resize((size, size), Image.Resampling.BILINEAR)  # Pillow antialiases whenever it shrinks
    return np.asarray(square).transpose(2, 0, 1), small


def central_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle of an image."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    return image.crop((left, top, left + short, top + short))


def rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB.

    Raises:
        ValueError: If its pixels have no known range.
    """
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
