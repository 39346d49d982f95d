"""What gives a restoration away by its texture: patterns, blur, borders of blocks, fringes; one function per figure.

All compare statistics of many restorations with those of the true images; what is noted of each image comes first.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

NO_POWER = 1e-3
"""Share of the mean power below which true images count as having none (`power_ratio`, `detail_ratio`)."""

BLOCKS = (2, 4, 8, 16)
"""Sides in pixels of the blocks whose borders `seam_ratio` looks for."""

PLACE = 8
"""Side in pixels of the places in which `color_shares` looks at detail."""
FAINT = 1e-4
"""Power of lightness below which there is no detail to speak of: steps of half a percent of the pixels' range."""


def power(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
    """Power of each image at each spatial frequency, |F(x)|^2, mean of the channels; the constant is left out."""
    return torch.fft.rfft2(x).abs().square().mean(dim=1).flatten(1)[:, 1:]


def power_ratio(real: Float[Tensor, "n f"], made: Float[Tensor, "m f"]) -> Float[Tensor, ""]:
    """How many times the power of true images the restorations have, at the frequency where it is most.

    About 1 where textures are real; below, a blur does not lower it. A pattern such as stripes or dots stands out
    tenfold where distances and PSNR hardly see it. Where true images have next to no power, a thousandth of their mean
    power counts.

    Args:
        real: `power` of true images.
        made: `power` of restorations.
    """
    truth = real.mean(dim=0)
    return (made.mean(dim=0) / truth.clamp(min=_least(truth))).amax()


def detail_ratio(real: Float[Tensor, "n f"], made: Float[Tensor, "m f"]) -> Float[Tensor, ""]:
    """The same ratio, geometric mean of all frequencies: how much of the truth's texture there is.

    About 1 where textures are real; a blur lowers it, and a pattern at few frequencies hardly raises it. Most
    frequencies are high: halving the detail finer than four pixels, and nothing else, gives about 0.6. Where neither
    has any power to speak of, they are alike.
    """
    truth, restored = real.mean(dim=0), made.mean(dim=0)
    least = _least(truth)
    floor = torch.where(truth < least, least, NO_POWER * least)
    return (restored.clamp(min=floor) / truth.clamp(min=least)).log().mean().exp()


def _least(truth: Float[Tensor, " f"]) -> Float[Tensor, ""]:
    """Power below which a frequency of true images counts as empty."""
    return (NO_POWER * truth.mean()).clamp(min=1e-12)  # flat images have none at all


def steps(x: Float[Tensor, "n 3 h h"]) -> Float[Tensor, "n s"]:
    """Mean absolute difference across each of the h - 1 lines between two columns, and between two rows alike."""
    across, down = x.diff(dim=3).abs().mean(dim=(1, 2)), x.diff(dim=2).abs().mean(dim=(1, 3))
    return (across + down) / 2


def seam_ratio(real: Float[Tensor, "n s"], made: Float[Tensor, "m s"]) -> Float[Tensor, ""]:
    """How much the borders of blocks stand out: steps across them over steps elsewhere, as a multiple of the truth's.

    The largest of those for blocks of 2, 4, 8 and 16 pixels, as far as they fit: 1 where no border shows.

    Args:
        real: `steps` of true images.
        made: `steps` of restorations.

    Raises:
        ValueError: If images have less than 4 pixels a side: no block of two has a border then and a neighbor.
    """
    lines = torch.arange(1, real.shape[1] + 1, device=real.device)
    fitting = [side for side in BLOCKS if len(lines) > side]
    if not fitting:
        raise ValueError(f"no border between blocks in images of {len(lines) + 1} pixels a side")
    ratios = [_standing_out(made, lines % side == 0) / _standing_out(real, lines % side == 0) for side in fitting]
    return torch.stack(ratios).amax()


def _standing_out(steps: Float[Tensor, "n s"], border: Bool[Tensor, " s"]) -> Float[Tensor, ""]:
    """Mean step across the borders over the mean step elsewhere; 1 for flat images."""
    mean = steps.mean(dim=0)
    return (mean[border].mean() + 1e-12) / (mean[~border].mean() + 1e-12)


def color_shares(x: Float[Tensor, "n 3 h h"]) -> Float[Tensor, "n p"]:
    """How colorful fine detail is beside how light and dark it is, in each place of 8 x 8 pixels; amplitudes.

    Root of the mean squared difference of neighboring pixels in color (what is left of the channels without their mean)
    over the same in lightness (their mean). 0 where there is no detail to speak of.
    """
    lightness = x.mean(dim=1, keepdim=True)
    color, light = _fine_power(x - lightness), _fine_power(lightness.expand_as(x))
    return (color / (light + FAINT)).sqrt().flatten(1)


def fringe_ratio(real: Float[Tensor, "n p"], made: Float[Tensor, "m p"]) -> Float[Tensor, ""]:
    """The median place's share of color in its detail, as a multiple of the truth's.

    About 1 or less where detail is natural, whether there is much of it or little: most things have edges of their own
    color. Above, edges everywhere have fringes of colors that the things do not have. The mean would not tell: few
    places of photographs are colorful, but these very much.

    Args:
        real: `color_shares` of true images.
        made: `color_shares` of restorations.
    """
    return (made.median() + 1e-6) / (real.median() + 1e-6)


def _fine_power(x: Float[Tensor, "n 3 h h"]) -> Float[Tensor, "n 1 q q"]:
    """Mean over places of 8 x 8 pixels of the squared differences of neighbors, across and down, summed.

    There is one difference less than pixels, and places that are not whole are left out: of sides that are multiples of
    8 the last row and column of places.
    """
    across, down = x.diff(dim=3)[:, :, 1:], x.diff(dim=2)[..., 1:]
    power = (across.square() + down.square()).sum(dim=1, keepdim=True)
    return F.avg_pool2d(power, min(PLACE, power.shape[-1]))
