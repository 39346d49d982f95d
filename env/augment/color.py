"""Color jitter and grayscale, as torchvision defines them, for all images at once.

Brightness, contrast and saturation are blends of an image with a reference: black, its mean gray, its own gray. In each
of three rounds every image is blended with the reference that its own random order says, so that the order costs
nothing. Hue costs more than a blend, so each image goes through it once: a quarter of the images before each round, and
the last quarter after all of them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION = range(3)
"""The blends, as `JitterDraw.order` numbers them."""
GRAY = 1e-6
"""Channels that differ by less than a sixth of this have no hue to speak of: it moves none of them by more."""


class JitterDraw(NamedTuple):
    """How the colors of k images are jittered.

    Attributes:
        order: Which blend each image goes through in each round; a row is a permutation of 0, 1, 2.
        factor: Weight of the image in the round's blend: 0 is the reference alone, 1 the image, above 1 moves away.
        turn: Change of hue in turns of the color circle.
    """

    order: Int[Tensor, "k 3"]
    factor: Float[Tensor, "k 3"]
    turn: Float[Tensor, " k"]


@dataclass(frozen=True)
class Jitter:
    """Color jitter by the law of torchvision's ColorJitter.

    One departure: which quarter of the images has its hue turned in which place of the order is settled by their
    place in the batch. `share` hands them over in random order, so each image's own order is uniform all the same.

    Attributes:
        blend: Factors of brightness, contrast and saturation are uniform on 1 ± this, cut at 0.
        turn: Hue moves uniformly by up to this to either side, in turns; at most 0.5.
    """

    blend: float
    turn: float

    def __call__(self, x: Float[Tensor, "k 3 h w"], random: torch.Generator) -> Float[Tensor, "k 3 h w"]:
        """Jitter each image by a draw of its own."""
        return jittered(x, self.draw(len(x), random))

    def draw(self, k: int, random: torch.Generator) -> JitterDraw:
        """Draw order, factors and hue of k images."""
        order = torch.rand((k, 3), generator=random, device=random.device).argsort(dim=1)
        low, high = max(0.0, 1 - self.blend), 1 + self.blend
        factor = low + (high - low) * torch.rand((k, 3), generator=random, device=random.device)
        turn = self.turn * (2 * torch.rand(k, generator=random, device=random.device) - 1)
        return JitterDraw(order, factor, turn)


def jittered(x: Float[Tensor, "k 3 h w"], draw: JitterDraw) -> Float[Tensor, "k 3 h w"]:
    """Jitter images in [0, 1] as drawn; hue comes before round q for the q-th quarter of them (0 to 3)."""
    quarters = [slice(len(x) * q // 4, len(x) * (q + 1) // 4) for q in range(4)]
    x = x.clone()
    for q, quarter in enumerate(quarters):
        x[quarter] = turned(x[quarter], draw.turn[quarter])
        if q < 3:
            x = blended(x, draw.order[:, q], draw.factor[:, q])
    return x


def blended(
    x: Float[Tensor, "k 3 h w"], which: Int[Tensor, " k"], factor: Float[Tensor, " k"]
) -> Float[Tensor, "k 3 h w"]:
    """Blend each image with a reference: factor x + (1 - factor) reference, cut to [0, 1].

    Args:
        x: Images in [0, 1].
        which: `BRIGHTNESS` (the reference is black), `CONTRAST` (mean gray) or `SATURATION` (the image in gray).
        factor: Weight of the image, at least 0.
    """
    which, factor = which.view(-1, 1, 1, 1), factor.view(-1, 1, 1, 1)
    shades = gray(x)
    mean = shades.mean(dim=(2, 3), keepdim=True)
    reference = torch.addcmul(mean * (which == CONTRAST), shades, (which == SATURATION).to(x.dtype))
    return torch.lerp(reference, x, factor).clamp_(0, 1)


def turned(x: Float[Tensor, "k 3 h w"], turn: Float[Tensor, " k"]) -> Float[Tensor, "k 3 h w"]:
    """Turn each image's hue; a pixel's largest and smallest channel values stay what they are (HSV).

    With c = high - low, the largest channel value less the smallest, a pixel's hue lies c - red + green + blue - low
    sixths of a turn times c from red, on green's side where green >= blue. A channel whose own hue (0, 1/3, 2/3) lies
    d turns from the new one is then

        low + c clamp(2 - 6 d, 0, 1) = low + 2 c - 6 c clamp(d, 1/6, 1/3).

    Neither needs a case for each sixth of the circle, and cases are what HSV's usual form spends its time on.

    Args:
        x: Images.
        turn: In turns of the color circle; any number.
    """
    red, green, blue = x.unbind(dim=1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    c = high - low
    hue = torch.copysign((c - red).add_(green).add_(blue).sub_(low), green - blue)
    hue.div_((6 * c).clamp_(min=GRAY))
    own = torch.arange(3, device=x.device) / 3
    d = hue.unsqueeze(1) + (turn[:, None] - own)[:, :, None, None]
    d.sub_(d.round()).abs_().clamp_(1 / 6, 1 / 3)
    return torch.addcmul(torch.add(low, c, alpha=2).unsqueeze(1), c.unsqueeze(1), d, value=-6)


def gray(x: Float[Tensor, "k 3 h w"]) -> Float[Tensor, "k 1 h w"]:
    """Weigh the channels as torchvision's rgb_to_grayscale does (ITU-R 601)."""
    red, green, blue = x.unbind(dim=1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)
