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

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.bilinear import MAPS, Bilinear, Schemes, colors
from camnet.code import Candidates
from camnet.taste import Taste
from env.resize import pooled
from env.rows import Rows


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


class Colorist(Bilinear):
    """A U-Net on lightness that draws maps, and what makes schemes of styles: what color each map stands for."""

    def __init__(self, widths: tuple[int, ...], code: int) -> None:
        """Draw the weights.

        Args:
            widths: Channels at a half, a quarter, ... of the images' resolution; at least 3.
            code: Length of a style.
        """
        super().__init__(4, widths, code, values=2)
        self.draw = nn.Conv2d(widths[0], MAPS, 3, padding=1)
        self.taste = Taste(widths[2])

    def see(self, lightness: Float[Tensor, "n 1 h h"]) -> Seen:
        """All that no code enters."""
        looked = self.looked(F.pixel_unshuffle(2 * lightness - 1, 2))
        return Seen(looked.coarse.mean(dim=(2, 3)), looked.places, self.draw(looked.pixels).float())

    def scores(self, seen: Seen, schemes: Schemes) -> Float[Tensor, "n m"]:
        """How likely a search is to take each scheme; logarithms, up to a constant of the image."""
        size = seen.places.shape[-1]
        return self.taste(seen.places, colors(pooled(seen.maps, size), schemes))

    def chosen(self, seen: Seen, candidates: Candidates, temperature: float) -> Schemes:
        """One scheme for each image, drawn by taste."""
        styles = candidates.styles.flatten(2)
        schemes = self.schemes(seen.whole, styles)
        choice = (self.scores(seen, schemes) / temperature + candidates.luck.flatten(1)).argmax(dim=1)
        return schemes[torch.arange(len(choice), device=choice.device), choice, None]


def with_lightness(lightness: Float[Tensor, "n 1 r r"], colors: Float[Tensor, "n 2 r r"]) -> Float[Tensor, "n 3 r r"]:
    """The image of a lightness, the mean of its channels, and of coordinates in an orthonormal basis of its colors.

    The basis: red without green, and both without blue.
    """
    first, second = colors[:, :1] / 2**0.5, colors[:, 1:] / 6**0.5
    return lightness + torch.cat([second + first, second - first, -2 * second], dim=1)
