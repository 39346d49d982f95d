"""Local spectra: how much there is of each frequency in each place, wherever its light and its dark pixels lie.

What a corruption deletes without a trace can only be guessed, and under any distance that compares place by place the
best guess is a blur: a texture that is elsewhere costs twice. Amplitudes know no place within their window, so they ask
for a texture of the right strength; and they ask frequency by frequency, or the cheapest texture would do, stripes of
one pixel (docs/log.md, "Texture"). And they ask it of lightness and of colors, not of red, green and blue: each of
these may have the right amplitude while all three lie elsewhere, which is fringes in the colors of the rainbow
(docs/log.md, "Whence the fringes").
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from env.resize import halved

SIDE = 4
"""Side in pixels of the windows of the discrete cosine transform; they overlap by half."""
OCTAVES = 2
"""How many times: on the image, then on the image at half its resolution."""
FLOOR = 1e-5
"""Added to powers: below about 0.003 of a pixel value amplitudes cease to matter, and the root has a gradient at 0."""

AXES = ((1.0, 1.0, 1.0), (1.5**0.5, -(1.5**0.5), 0.0), (0.5**0.5, 0.5**0.5, -(2.0**0.5)))
"""Lightness and two axes of color in red, green and blue: orthogonal, of length sqrt(3), so that the three amplitudes
of a gray texture sum to as much as those of its channels."""


def octaves(size: int) -> int:
    """How many octaves an image of that side is compared in: those of at least 8 x 8 pixels."""
    return sum(size // 2**octave >= 2 * SIDE for octave in range(OCTAVES))


def amplitudes(x: Float[Tensor, "n 3 h h"]) -> list[Float[Tensor, "n 45 _ _"]]:
    """Amplitude of each frequency but the constant, in windows of 6 x 6 pixels, octave by octave, axis by axis.

    sqrt(mean of the squared coefficients of four neighboring 4 x 4 windows + FLOOR), in pixel values: the squares of
    the 15 frequencies sum to the variance of an axis (`AXES`) within the windows. In the last row and column, where no
    more windows fit, of two, and of one in the corner.

    Returns:
        For each of the `octaves` of the image's side (n, 45, p, p), p a quarter of the octave's side: lightness with
        its 15 frequencies, then the colors with theirs.
    """
    result, filters = [], _FILTERS.to(x.device, x.dtype, non_blocking=True)  # else the host would wait for the copy
    axes = _AXES.to(x.device, x.dtype, non_blocking=True)
    for _ in range(octaves(x.shape[-1])):
        planes = (axes @ x.flatten(2)).reshape(-1, 1, *x.shape[2:])  # F.conv2d is slow at 1 x 1 on a CPU
        power = halved(F.conv2d(planes, filters, stride=SIDE // 2).square())
        result.append((power + FLOOR).sqrt().unflatten(0, x.shape[:2]).flatten(1, 2))
        x = halved(x)
    return result


def cosines(side: int, dtype: torch.dtype) -> Float[Tensor, "side side"]:
    """The orthonormal DCT-II of a line as a matrix: one row per frequency, one column per place."""
    place, frequency = torch.arange(side, dtype=dtype), torch.arange(side, dtype=dtype).unsqueeze(1)
    matrix = torch.cos((2 * place + 1) * frequency * math.pi / (2 * side)) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix


def _filters() -> Float[Tensor, "15 1 4 4"]:
    """The two-dimensional DCT-II of a window without its constant, scaled so that squares sum to the variance."""
    one = cosines(SIDE, torch.float32)
    both = torch.einsum("ai,bj->abij", one, one).reshape(SIDE**2, 1, SIDE, SIDE)
    return both[1:] / SIDE


_FILTERS = _filters()
_AXES = torch.tensor(AXES)
