"""Controls without a generator: is generation needed, or would something plain in place of what was deleted do as well?

A fill stands in for the generator behind the same class. `erase`, `mean` and `blur` have no randomness: **both views
of an image are equal**, and that is their point: whatever a learner gains from them it owes to the corruption alone.
`noise` makes views that differ where the generator's would, and that look like nothing.
"""

import hashlib
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camnet.decorruptor import Decorruptor, codes_per_image
from camnet.degraded import Degraded, each
from env.corruption import FACTORS, Corrupted

Kind = Literal["erase", "mean", "blur", "noise"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNSEEN = (0.5, 0.25)
"""Mean and standard deviation assumed of an image of which no pixel is visible."""
REACH = 8
"""The blur's standard deviation is the image's side over this. At 8 the weight of the farthest pixel, exp(-64), is
still a normal float32, so every hidden pixel has a color, however far the nearest visible one."""


class Fill(Decorruptor):
    """A plain rule in place of the generator; what was kept stays exactly.

    - erase: hidden pixels are 0, decolorized images stay gray, downsampled ones stay blocks. Codes are empty.
    - mean: as erase, but hidden pixels have the mean visible color of the image. Codes are empty.
    - blur: hidden pixels are a Gaussian-weighted mean of the visible ones; downsampled images are interpolated
      bilinearly, then made consistent; decolorized images stay gray. Codes are empty.
    - noise: hidden pixels are Gaussian noise with the mean and standard deviation of the visible pixels, channel by
      channel, clamped to [0, 1]; deleted color and detail are noise of that standard deviation, less what would change
      what was kept. The codes are the noise. Where all visible pixels are equal there is no noise at all.

    Attributes:
        kind: Which rule.
    """

    consistent = True

    def __init__(self, kind: Kind, size: int | None = None) -> None:
        """Choose a rule.

        Args:
            kind: Which.
            size: Side of the images; noise needs it, for it is drawn before an image is seen.

        Raises:
            ValueError: If there is no such rule, or noise has no size.
        """
        if kind not in KINDS:
            raise ValueError(f"no fill is named {kind}; there are {', '.join(KINDS)}")
        if kind == "noise" and size is None:
            raise ValueError("the fill noise needs the side of the images")
        self.kind, self.size, self.card = kind, size, {"fill": kind}

    def codes(self, n: int, random: torch.Generator) -> Float[Tensor, "n ..."]:
        """Standard normal noise (n, 3, size, size) for `noise`; n rows of nothing otherwise."""
        shape = (3, self.size, self.size) if self.kind == "noise" else (0,)
        return torch.randn(n, *shape, generator=random, device=random.device)

    @torch.no_grad()
    def restore(self, degraded: Degraded, codes: Float[Tensor, "nk ..."]) -> Float[Tensor, "nk 3 h w"]:
        """Fill each image once for each of its codes."""
        k = codes_per_image(len(codes), len(degraded))
        if self.kind == "noise":
            return noisy(each(degraded, k), codes)
        rule = {"erase": erased, "mean": averaged, "blur": blurred}[self.kind]
        return rule(degraded).repeat_interleave(k, dim=0)

    def sha256(self) -> str:
        """Hash of the rule's name: there are no weights."""
        return hashlib.sha256(f"fill {self.kind}".encode()).hexdigest()


def erased(degraded: Degraded) -> Float[Tensor, "n 3 h w"]:
    """What was kept, and nothing else: 0 where hidden."""
    return degraded.kept.clone()


def averaged(degraded: Degraded) -> Float[Tensor, "n 3 h w"]:
    """The mean visible color where hidden."""
    mean, _ = visible_colors(degraded)
    return torch.where(degraded.hidden.bool(), mean, degraded.kept)


def blurred(degraded: Degraded) -> Float[Tensor, "n 3 h w"]:
    """A weighted mean of the visible pixels where hidden; smooth in place of blocks."""
    hidden = degraded.hidden.bool()
    weight = _blur(1 - degraded.hidden)
    near = torch.where(weight > 0, _blur(degraded.kept) / weight, UNSEEN[0])
    filled = torch.where(hidden, near.clamp(0, 1), degraded.kept)  # the clamp only mends rounding
    if not isinstance(degraded, Corrupted):
        return filled
    smooth = filled
    for index, factor in enumerate(FACTORS):
        if factor > 1 and filled.shape[-1] % factor == 0:
            chosen = (degraded.action.downsample >= index).view(-1, 1, 1, 1)
            smooth = torch.where(chosen, _interpolated(filled, factor), smooth)
    return degraded.make_consistent(smooth)


def noisy(degraded: Degraded, noise: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Noise that looks like the visible pixels one by one where hidden, and as much noise as fits elsewhere."""
    mean, deviation = visible_colors(degraded)
    middle = torch.where(degraded.hidden.bool(), mean, degraded.kept)
    return degraded.make_consistent(middle + deviation * noise)


def visible_colors(degraded: Degraded) -> tuple[Float[Tensor, "n 3 1 1"], Float[Tensor, "n 3 1 1"]]:
    """Mean and standard deviation of each image's visible pixels; `UNSEEN` where there are none."""
    visible = 1 - degraded.hidden
    count = visible.sum(dim=(2, 3), keepdim=True)
    mean = (degraded.kept * visible).sum(dim=(2, 3), keepdim=True) / count.clamp(min=1)
    variance = ((degraded.kept - mean).square() * visible).sum(dim=(2, 3), keepdim=True) / count.clamp(min=1)
    return torch.where(count > 0, mean, UNSEEN[0]), torch.where(count > 0, variance.sqrt(), UNSEEN[1])


def _blur(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Sum over all pixels, weighted by a Gaussian of the distance; nothing is beyond the border."""
    rows, columns = (_gaussian(side, x) for side in x.shape[-2:])
    return rows @ x @ columns


def _gaussian(side: int, like: Tensor) -> Float[Tensor, "side side"]:
    """Weight of each row (or column) for each other."""
    place = torch.arange(side, device=like.device, dtype=like.dtype)
    return (-0.5 * ((place[:, None] - place[None, :]) * REACH / side).square()).exp()


def _interpolated(x: Float[Tensor, "n 3 h w"], factor: int) -> Float[Tensor, "n 3 h w"]:
    """Block means, interpolated bilinearly between the blocks' centers."""
    return F.interpolate(F.avg_pool2d(x, factor), size=x.shape[-2:], mode="bilinear", align_corners=False)
