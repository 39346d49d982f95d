"""A U-Net without a code, and schemes that a code decides on: what colorist and painter are made of.

A U-Net looks at the whole image and draws maps, soft answers to what there is and where. One style for the whole image
decides on a scheme, what each map stands for: G(x̃, z) = sum_k a_k(z, x̃) B_k(x̃). The network runs once, whatever the
number of codes, and a scheme costs next to nothing beside it; so a search compares many.

Source: ours. A bilinear form with one factor from the image and one from a code is that of Tenenbaum and Freeman,
"Separating Style and Content with Bilinear Models" (2000); the U-Net of Ronneberger et al. (arXiv 1505.04597) has
residual blocks here, and no normalization.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.module import mapping
from env.rows import Rows

MAPS = 32
"""How many maps of what there is."""
MAPPED = 64
HIDDEN = 128

Schemes = Float[Tensor, "n m v k"]
"""What each of k maps stands for, in v coordinates of a color, in each of m schemes for n images."""


@dataclass(frozen=True)
class Looked(Rows):
    """What the U-Net makes of n images.

    Attributes:
        coarse: Features at the coarsest resolution.
        places: Features at an eighth of the images' resolution.
        pixels: Features at half the resolution.
    """

    coarse: Float[Tensor, "n c b b"]
    places: Float[Tensor, "n p q q"]
    pixels: Tensor


class Residual(nn.Module):
    """Two convolutions that add to what enters; they begin by adding nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Float[Tensor, "n c r r"]) -> Float[Tensor, "n c r r"]:
        """Add the block's correction to x."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Bilinear(nn.Module):
    """The U-Net, and what makes schemes of styles; who inherits from it draws the maps."""

    def __init__(self, entering: int, widths: tuple[int, ...], code: int, values: int) -> None:
        """Draw the weights.

        Args:
            entering: Channels of what is looked at, at half the images' resolution.
            widths: Channels at a half, a quarter, ... of the images' resolution; at least 3.
            code: Length of a style.
            values: Coordinates of a color.
        """
        super().__init__()
        self.entry = nn.Conv2d(entering, widths[0], 3, padding=1)
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.going_down = nn.ModuleList(Residual(width) for width in widths[1:])
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in steps)
        self.going_up = nn.ModuleList(Residual(width) for width in widths)
        self.map, self.hear, self.look = mapping(code, MAPPED), nn.Linear(MAPPED, HIDDEN), nn.Linear(widths[-1], HIDDEN)
        self.mix, self.decide = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, values * MAPS)
        self.values = values
        # Faint at first, but heard: a search finds the nearer ones.
        nn.init.normal_(self.decide.weight, std=0.02)
        nn.init.zeros_(self.decide.bias)

    def looked(self, x: Float[Tensor, "n c r r"]) -> Looked:
        """Look at images whose pixels lie two by two in channels."""
        h = self.entry(x)
        passed = [h]
        for down, residual in zip(self.down, self.going_down, strict=True):
            h = residual(down(F.silu(h)))
            passed.append(h)
        h = self.going_up[-1](h)
        coarse, places = F.silu(h.float()), h
        for level in reversed(range(len(self.up))):
            above = F.interpolate(self.up[level](F.silu(h)), scale_factor=2, mode="bilinear")
            h = self.going_up[level](passed[level] + above)
            places = h if level == 2 else places
        return Looked(coarse, places.float(), F.silu(h))

    def schemes(self, whole: Float[Tensor, "n c"], styles: Float[Tensor, "n m z"]) -> Schemes:
        """The scheme that each of m styles means for each of n images."""
        with torch.autocast(styles.device.type, enabled=False):  # little work, and colors are sums of many
            h = F.silu(self.look(whole)[:, None] + self.hear(self.map(styles)))
            return self.decide(F.silu(self.mix(h))).unflatten(-1, (self.values, -1))


def colors(maps: Float[Tensor, "n k r r"], schemes: Schemes) -> Float[Tensor, "n m v r r"]:
    """What m schemes make of the maps."""
    return torch.einsum("nkab,nmck->nmcab", maps, schemes)
