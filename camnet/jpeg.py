r"""JPEG: what an encoder deletes from an image, and how a restoration keeps what the file says of it.

A file stores, for every 8 x 8 block of Y, Cb and Cr, the integers k = round(c / q): c the block's DCT coefficients, q
the steps of a quantization table. It says of the image that every c lies in its bin [q (k - 1/2), q (k + 1/2)], and
nothing else; the decoded image, c = q k, is the middle of the bins. A restoration is consistent when its own
coefficients lie in the bins, that is, when encoding it again gives the same file (up to ties).

Sources: ITU-T T.81 (ISO/IEC 10918-1) for the DCT (A.3.3), the quantization (A.3.4) and the tables (K.1); JFIF 1.02
(ITU-T T.871) for YCbCr; libjpeg's jcparam.c for what `quality` does to the tables. Departures, so that the original
lies in its bins exactly: YCbCr is not rounded to integers before the DCT, nor the decoded image after it. No chroma
subsampling (4:4:4), no entropy coding (lossless, hence of no consequence).

In this module pixels run over 0..255, as in the standards; only `compress` and `Compressed` speak of [0, 1].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from camnet.spectrum import cosines
from configs.camnet import Task
from env.rows import Rows

BLOCK = 8
"""Side of a block, in pixels."""

LEVELS = 255
"""Largest pixel value of an 8-bit image."""

CENTER = 128
"""Subtracted from Y before the DCT (level shift, T.81 A.3.1); Cb and Cr are centered on 0 here to begin with."""

LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""T.81 table K.1: steps for Y at quality 50; row = vertical frequency."""

CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
"""T.81 table K.2: steps for Cb and Cr at quality 50."""

OVERSHOOT = (0.0,) * 2 + (0.95,) * 8 + (0.0,) * 2
"""How far each round of `Compressed.make_consistent` goes past the border it projects onto (see there)."""


def _color_matrix() -> Float[Tensor, "3 3"]:
    """Rows Y, Cb, Cr of BT.601, full range: Y = Kr R + (1 - Kr - Kb) G + Kb B, Cb and Cr scaled to [-1/2, 1/2]."""
    red, blue = 0.299, 0.114
    luma = torch.tensor([red, 1 - red - blue, blue], dtype=torch.float64)
    unit = torch.eye(3, dtype=torch.float64)
    return torch.stack([luma, (unit[2] - luma) / (2 * (1 - blue)), (unit[0] - luma) / (2 * (1 - red))])


def _dct_matrix() -> Float[Tensor, "64 64"]:
    """The orthonormal DCT-II of a flattened block: T.81 A.3.3, S_vu = 1/4 C_u C_v sum s_yx cos.. cos.., as a matrix."""
    one = cosines(BLOCK, torch.float64)
    return torch.kron(one, one)


# Computed in float64, then rounded once: the constant basis function is then 1/8 exactly.
_TO_YCBCR = _color_matrix().float()
_TO_RGB = torch.linalg.inv(_color_matrix()).float()
_DCT = _dct_matrix().float()
_TABLES = torch.tensor([LUMA, CHROMA, CHROMA], dtype=torch.float32)


@dataclass(frozen=True)
class Compressed(Rows):
    """n images as JPEG files hold them.

    Attributes:
        kept: The decoded images, clamped to [0, 1].
        hidden: 0 everywhere: something is known of every pixel.
        coefficients: k, the quantized coefficients (integers); row and column of the block, then of the frequency.
        steps: q, the quantization tables of Y, Cb and Cr; integers in 1..255.
        quality: In 1..100 (integers).
    """

    task: ClassVar[Task] = "decompression"

    kept: Float[Tensor, "n 3 h w"]
    hidden: Float[Tensor, "n 1 h w"]
    coefficients: Float[Tensor, "n 3 rows columns 8 8"]
    steps: Float[Tensor, "n 3 8 8"]
    quality: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.kept)

    def planes(self) -> Float[Tensor, "n 1 1 1"]:
        """Quality / 100, in (0, 1]; it holds everywhere."""
        return self.quality.view(-1, 1, 1, 1) / 100

    def touched(self) -> Tensor:
        """Every pixel (n, 1, h, w): the bins of a block leave all of its pixels some freedom."""
        return torch.ones_like(self.hidden, dtype=torch.bool)

    def bins(self) -> tuple[Float[Tensor, "n 3 rows columns 8 8"], Float[Tensor, "n 3 rows columns 8 8"]]:
        """The ends of every coefficient's bin: q (k - 1/2) and q (k + 1/2)."""
        steps = self.steps[:, :, None, None]
        return steps * (self.coefficients - 0.5), steps * (self.coefficients + 0.5)

    def make_consistent(self, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Move a restoration into the bins and into [0, 1]. Differentiable.

        Both sets are convex and the original lies in both. Each round projects onto the bins, then onto [0, 1]. The
        first rounds are plain and find a point near the nearest one, but plain rounds creep up to a border without
        reaching it. The middle rounds go past each border they project onto, by 95 % of the distance they came from
        (never past the opposite border), and land inside where the common set has an inside; from there on nothing
        moves. The last rounds are plain again, for images whose common set has none.

        YCbCr is no orthogonal transform of RGB: the projection onto the bins is the nearest point as YCbCr measures
        distance, that onto [0, 1] as RGB does. So no theorem on alternating projections applies, and the result is a
        near point, not the nearest.

        Exact: the result lies in [0, 1]; a restoration that was consistent comes back as it was, to float32 rounding
        (so does the original). Not promised: the bins. Measured as `residual`, in float32, on 600 CIFAR-10 images from
        the decoded image + noise (15 of 255): at most 1e-7 at quality 2, 5 and 20; at 50 for all but 0.7 % of the
        images, and 7e-3 for these. They hold white blocks, where the sets all but touch in a point: with a step of 16
        white lies on the very end of its bin. (20 plain rounds leave up to 5e-2 on natural images.) Worst of all are
        regions with channels at 0 or 1 and hard edges (thresholded color noise): up to 5e-2 remains.

        Args:
            restored: x̂, any range.

        Returns:
            Images in [0, 1].
        """
        lower, upper = self.bins()
        x = to_blocks(restored.float() * LEVELS)
        for overshoot in OVERSHOOT:
            c = coefficients_of(x)
            x = x + _pixels_of(_beyond(c, lower, upper, overshoot) - c)
            x = _beyond(x, torch.zeros_like(x), torch.full_like(x, LEVELS), overshoot)
        return to_image(x) / LEVELS

    def residual(self, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """The largest distance of a coefficient from its bin, for each image, in pixel values (coefficient / 255).

        The DCT is orthonormal, so no pixel of Y, Cb or Cr is off by more than 1/4 of it because of one coefficient.
        """
        lower, upper = self.bins()
        c = coefficients_of(to_blocks(restored.float() * LEVELS))
        return (c - _beyond(c, lower, upper, 0.0)).abs().flatten(1).amax(dim=1) / LEVELS


@torch.no_grad()
def compress(x: Float[Tensor, "n 3 h w"], quality: Float[Tensor, " n"]) -> Compressed:
    """Encode images as JPEG, 4:4:4, and decode them. No gradient: all of it is rounding.

    Args:
        x: Images in [0, 1]; rounded to 8 bits first, as an encoder would see them.
        quality: 1..100, one per image; rounded to integers and clamped to that range.

    Returns:
        The compressed images.

    Raises:
        ValueError: If height or width is no multiple of 8.
    """
    height, width = x.shape[-2:]
    if height % BLOCK or width % BLOCK:
        raise ValueError(
            f"images of {height} x {width} pixels do not divide into blocks of {BLOCK} x {BLOCK}: "
            f"choose a height and a width that are multiples of {BLOCK}"
        )
    quality = quality.float().round().clamp(1, 100)
    steps = tables(quality)
    coefficients = quantize(coefficients_of(to_blocks(to_bytes(x))), steps)
    decoded = to_image(_pixels_of(coefficients * steps[:, :, None, None]) + CENTER)
    hidden = torch.zeros_like(decoded[:, :1])
    return Compressed((decoded / LEVELS).clamp(0, 1), hidden, coefficients, steps, quality)


def to_bytes(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Round images in [0, 1] to the integers 0..255."""
    return (x.float() * LEVELS).round().clamp(0, LEVELS)


def to_blocks(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 rows columns 8 8"]:
    """Cut images into blocks of 8 x 8."""
    return x.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK)).transpose(3, 4)


def to_image(blocks: Float[Tensor, "n 3 rows columns 8 8"]) -> Float[Tensor, "n 3 h w"]:
    """Put blocks of 8 x 8 together; the inverse of `to_blocks`."""
    return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def rgb_to_ycbcr(x: Float[Tensor, "n 3 *pixels"]) -> Float[Tensor, "n 3 *pixels"]:
    """JFIF: RGB in 0..255 to Y in 0..255 and Cb, Cr in -127.5..127.5 (JFIF's own, less 128)."""
    return _channels(_TO_YCBCR, x)


def ycbcr_to_rgb(x: Float[Tensor, "n 3 *pixels"]) -> Float[Tensor, "n 3 *pixels"]:
    """The inverse of `rgb_to_ycbcr`."""
    return _channels(_TO_RGB, x)


def dct(blocks: Float[Tensor, "*blocks 8 8"]) -> Float[Tensor, "*blocks 8 8"]:
    """T.81 A.3.3: the orthonormal two-dimensional DCT-II of each block; row = vertical frequency."""
    return _rows(blocks.flatten(-2), _DCT.T).unflatten(-1, (BLOCK, BLOCK))


def inverse_dct(coefficients: Float[Tensor, "*blocks 8 8"]) -> Float[Tensor, "*blocks 8 8"]:
    """The inverse of `dct`: its transpose."""
    return _rows(coefficients.flatten(-2), _DCT).unflatten(-1, (BLOCK, BLOCK))


def tables(quality: Float[Tensor, " n"]) -> Float[Tensor, "n 3 8 8"]:
    """As libjpeg's jpeg_quality_scaling and jpeg_add_quant_table (baseline): the steps of Y, Cb, Cr at a quality.

    Integer arithmetic, which float32 does exactly here. scale = 5000 / quality below 50, else 200 - 2 quality;
    step = (table * scale + 50) / 100, in 1..255.
    """
    scale = torch.where(quality < 50, torch.div(5000, quality, rounding_mode="floor"), 200 - 2 * quality)
    base = _on(quality.device, _TABLES)
    return torch.div(base * scale.view(-1, 1, 1, 1) + 50, 100, rounding_mode="floor").clamp(1, 255)


def quantize(
    coefficients: Float[Tensor, "n 3 rows columns 8 8"], steps: Float[Tensor, "n 3 8 8"]
) -> Float[Tensor, "n 3 rows columns 8 8"]:
    """T.81 A.3.4: k = round(c / q), to the nearest integer; ties away from zero, as in libjpeg."""
    ratio = coefficients / steps[:, :, None, None]
    return ratio.sign() * (ratio.abs() + 0.5).floor()


def coefficients_of(x: Float[Tensor, "n 3 rows columns 8 8"]) -> Float[Tensor, "n 3 rows columns 8 8"]:
    """The DCT coefficients of Y (shifted by 128), Cb and Cr of blocks of RGB pixels in 0..255."""
    return dct(rgb_to_ycbcr(x - CENTER))  # gray 128 is (128, 0, 0) in YCbCr, so this shifts only Y


def _pixels_of(difference: Float[Tensor, "n 3 rows columns 8 8"]) -> Float[Tensor, "n 3 rows columns 8 8"]:
    """The change in RGB that changes the coefficients by `difference`: `coefficients_of` inverted but for its shift."""
    return ycbcr_to_rgb(inverse_dct(difference))


def _beyond(x: Tensor, lower: Tensor, upper: Tensor, overshoot: float) -> Tensor:
    """Project onto [lower, upper] and go on by `overshoot` times the distance come, staying in the interval."""
    nearest = x.clamp(lower, upper)
    return (nearest + overshoot * (nearest - x)).clamp(lower, upper) if overshoot else nearest


def _channels(matrix: Float[Tensor, "3 3"], x: Float[Tensor, "n 3 *pixels"]) -> Float[Tensor, "n 3 *pixels"]:
    """Mix the three channels of every pixel."""
    with torch.autocast(x.device.type, enabled=False):
        return (_on(x.device, matrix) @ x.float().flatten(2)).view(x.shape)


def _rows(x: Float[Tensor, "*rows k"], matrix: Float[Tensor, "k k"]) -> Float[Tensor, "*rows k"]:
    """Multiply each row by a matrix, in float32: in bfloat16 a coefficient of 1000 would be off by whole steps."""
    with torch.autocast(x.device.type, enabled=False):
        return x.float() @ _on(x.device, matrix)


def _on(device: torch.device, constant: Tensor) -> Tensor:
    """A constant of this module on a device; without non_blocking the host would wait for the copy."""
    return constant.to(device, non_blocking=True)
