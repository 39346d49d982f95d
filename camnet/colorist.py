"""The colorist: gives colors to images that have lost all of theirs.

The cascade chooses colors on maps of a few places a side, where a thing and what is behind it are one; what comes of it
is a photograph with a tint. Here they are chosen once lightness is restored to the finest pixel, by a network that
looks at all of it. It draws maps, which no code enters: soft answers to what there is and where. A code, one style for
the whole image, decides on a scheme, what color each map stands for: C(x̃, z) = sum_k a_k(z, y) B_k(y), y the lightness.
A place gets its color from what it is, and two places that are alike get the same.

A scheme costs next to nothing beside the maps, and is judged on small ones, so that many can be tried: by the search,
which knows the truth (`camnet.coloring`), and by taste, which does not (`camnet.taste`).

Source: ours. A bilinear form with one factor from the image and one from a code is that of Tenenbaum and Freeman,
"Separating Style and Content with Bilinear Models" (2000). Colors at half resolution, as JPEG and video keep them.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.code import Candidates
from camnet.module import mapping
from camnet.taste import Taste
from env.resize import pooled
from env.rows import Rows

MAPS = 32
"""How many maps of what there is."""
MAPPED = 64
HIDDEN = 128

Schemes = Float[Tensor, "n m 2 k"]
"""What color each of k maps stands for, in each of m schemes for n images."""


@dataclass(frozen=True)
class Seen(Rows):
    """What the colorist sees in n images, whatever the code.

    Attributes:
        whole: What holds for the image.
        places: Features at an eighth of the resolution, for taste.
        maps: At half the resolution.
    """

    whole: Float[Tensor, "n c"]
    places: Float[Tensor, "n p q q"]
    maps: Float[Tensor, "n k r r"]


class Residual(nn.Module):
    """Two convolutions that add to what enters; they begin by adding nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Float[Tensor, "n c r r"]) -> Float[Tensor, "n c r r"]:
        """Add the block's correction to x."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Colorist(nn.Module):
    """A U-Net on lightness that draws maps, and what makes schemes of styles."""

    def __init__(self, widths: tuple[int, ...], code: int) -> None:
        """Draw the weights.

        Args:
            widths: Channels at a half, a quarter, ... of the images' resolution; at least 3.
            code: Length of a style.
        """
        super().__init__()
        self.entry = nn.Conv2d(4, widths[0], 3, padding=1)
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.going_down = nn.ModuleList(Residual(width) for width in widths[1:])
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in steps)
        self.going_up = nn.ModuleList(Residual(width) for width in widths)
        self.draw = nn.Conv2d(widths[0], MAPS, 3, padding=1)
        self.map, self.hear, self.look = mapping(code, MAPPED), nn.Linear(MAPPED, HIDDEN), nn.Linear(widths[-1], HIDDEN)
        self.mix, self.decide = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 2 * MAPS)
        # Faint colors at first, but heard: a search finds the nearer ones.
        nn.init.normal_(self.decide.weight, std=0.02)
        nn.init.zeros_(self.decide.bias)
        self.taste = Taste(widths[2])

    def see(self, lightness: Float[Tensor, "n 1 h h"]) -> Seen:
        """All that no code enters."""
        h = self.entry(F.pixel_unshuffle(2 * lightness - 1, 2))
        passed = [h]
        for down, residual in zip(self.down, self.going_down, strict=True):
            h = residual(down(F.silu(h)))
            passed.append(h)
        h = self.going_up[-1](h)
        whole, places = F.silu(h.float()).mean(dim=(2, 3)), h
        for level in reversed(range(len(self.up))):
            above = F.interpolate(self.up[level](F.silu(h)), scale_factor=2, mode="bilinear")
            h = self.going_up[level](passed[level] + above)
            places = h if level == 2 else places
        return Seen(whole, places.float(), self.draw(F.silu(h)).float())

    def schemes(self, seen: Seen, styles: Float[Tensor, "n m z"]) -> Schemes:
        """The scheme that each of m styles means for each of n images."""
        with torch.autocast(styles.device.type, enabled=False):  # little work, and colors are sums of many
            h = F.silu(self.look(seen.whole)[:, None] + self.hear(self.map(styles)))
            return self.decide(F.silu(self.mix(h))).unflatten(-1, (2, -1))

    def scores(self, seen: Seen, schemes: Schemes) -> Float[Tensor, "n m"]:
        """How likely a search is to take each scheme; logarithms, up to a constant of the image."""
        size = seen.places.shape[-1]
        return self.taste(seen.places, colors(pooled(seen.maps, size), schemes))

    def chosen(self, seen: Seen, candidates: Candidates, temperature: float) -> Schemes:
        """One scheme for each image, drawn by taste."""
        styles = candidates.styles.flatten(2)
        schemes = self.schemes(seen, styles)
        choice = (self.scores(seen, schemes) / temperature + candidates.luck.flatten(1)).argmax(dim=1)
        return schemes[torch.arange(len(choice), device=choice.device), choice, None]


def colors(maps: Float[Tensor, "n k r r"], schemes: Schemes) -> Float[Tensor, "n m 2 r r"]:
    """What m schemes make of the maps: coordinates in the plane of colors of no lightness."""
    return torch.einsum("nkab,nmck->nmcab", maps, schemes)


def with_lightness(lightness: Float[Tensor, "n 1 r r"], colors: Float[Tensor, "n 2 r r"]) -> Float[Tensor, "n 3 r r"]:
    """The image of a lightness, the mean of its channels, and of coordinates in an orthonormal basis of its colors.

    The basis: red without green, and both without blue.
    """
    first, second = colors[:, :1] / 2**0.5, colors[:, 1:] / 6**0.5
    return lightness + torch.cat([second + first, second - first, -2 * second], dim=1)
