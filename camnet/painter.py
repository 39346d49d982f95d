"""The painter: fills holes, in sight of the whole image.

What the finer modules of the cascade draw in a hole, place by place, has the power of a photograph and none of its
edges: smoke. The painter is one network that sees all that is visible, once its detail is restored, and goes on with
it: G(x̃, z) = B_0(y) + sum_k a_k(z, y) B_k(y) in the holes, y the restoration with holes. B_0 is what is most likely
there; a code decides in what restorations differ: one style for each of a few regions, or one for the whole image, and
its a_k go over smoothly from one region to the next.

Source: ours, with the bilinear form of `camnet.bilinear`. It starts from the holes filled smoothly, by the pull-push
interpolation of Gortler et al., "The Lumigraph" (1996), without its push filter.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.bilinear import MAPS, Bilinear, colors
from camnet.module import alike_in_patches
from env.rows import Rows

Fields = Float[Tensor, "n m 3 k g g"]
"""What each of k maps stands for in each of g x g regions, in each of m schemes for n images."""


@dataclass(frozen=True)
class Sketch(Rows):
    """What the painter makes of n images with holes, whatever the code. It means something in the holes alone.

    Attributes:
        coarse: Features, in sight of which styles are understood.
        likely: The most likely image; any range.
        maps: In what others differ from it.
    """

    coarse: Float[Tensor, "n c b b"]
    likely: Float[Tensor, "n 3 h h"]
    maps: Float[Tensor, "n k h h"]

    def painted(self, fields: Fields) -> Float[Tensor, "n m 3 h h"]:
        """The images of m schemes; between the middles of two regions a scheme goes over from one's to the other's.

        What a place makes of the maps is linear in its scheme. So the regions' images are mixed, and not their schemes,
        which would be one number a place and channel for each of k maps.
        """
        regions, side = fields.shape[-1], self.maps.shape[-1]
        shares = shares_of_regions(regions, side, self.maps.device)
        images = colors(self.maps, fields.flatten(4).movedim(-1, 2).flatten(1, 2)).unflatten(1, (-1, regions**2))
        return self.likely[:, None] + (shares[:, None] * images).sum(dim=2)


def shares_of_regions(regions: int, side: int, where: torch.device) -> Float[Tensor, "gg h h"]:
    """How much each of g x g regions counts in every place, bilinearly between their middles; sums to 1."""
    each = torch.eye(regions**2, device=where).view(1, regions**2, regions, regions)
    return F.interpolate(each, side, mode="bilinear").squeeze(0)


class Painter(Bilinear):
    """A U-Net on an image with holes that draws what fills them, and what makes schemes of styles."""

    def __init__(self, widths: tuple[int, ...], code: int) -> None:
        """Draw the weights; at first it fills smoothly.

        Args:
            widths: Channels at a half, a quarter, ... of the images' resolution; at least 3.
            code: Length of a style.
        """
        super().__init__(16, widths, code, values=3)
        self.likely = nn.Conv2d(widths[0], 3 * 4, 3, padding=1)
        self.draw = nn.Conv2d(widths[0], MAPS * 4, 3, padding=1)
        for parameter in self.likely.parameters():
            nn.init.zeros_(parameter)
        alike_in_patches(self.draw, 2)

    def see(self, image: Float[Tensor, "n 3 h h"], hidden: Float[Tensor, "n 1 h h"]) -> Sketch:
        """All that no code enters.

        Args:
            image: In [0, 1]; its hidden pixels are not looked at.
            hidden: 1 = hidden.
        """
        smooth = smoothly_filled(image, hidden)
        looked = self.looked(F.pixel_unshuffle(torch.cat([2 * smooth - 1, hidden], dim=1), 2))
        likely = smooth + F.pixel_shuffle(self.likely(looked.pixels), 2).float()
        return Sketch(looked.coarse, likely, F.pixel_shuffle(self.draw(looked.pixels), 2).float())

    def fields(self, sketch: Sketch, styles: Float[Tensor, "n m z g g"]) -> Fields:
        """The schemes that m styles mean, region by region, for each of n images."""
        regions = styles.shape[-1]
        seen = F.adaptive_avg_pool2d(sketch.coarse, regions).permute(0, 2, 3, 1).flatten(0, 2)
        schemes = self.schemes(seen, styles.permute(0, 3, 4, 1, 2).flatten(0, 2))
        return schemes.unflatten(0, (-1, regions, regions)).permute(0, 3, 4, 5, 1, 2)


def in_holes(
    painted: Float[Tensor, "n 3 h h"], image: Float[Tensor, "n 3 h h"], hidden: Float[Tensor, "n 1 h h"]
) -> Float[Tensor, "n 3 h h"]:
    """The image, with what is painted where it is hidden."""
    return torch.where(hidden.bool(), painted, image)


def smoothly_filled(image: Float[Tensor, "n 3 h h"], hidden: Float[Tensor, "n 1 h h"]) -> Float[Tensor, "n 3 h h"]:
    """Fill holes from the next coarser resolution that sees something, enlarged bilinearly.

    Middle gray where nothing at all is visible.
    """
    weight = 1 - hidden
    levels = [(image.masked_fill(hidden.bool(), 0), weight)]
    while levels[-1][0].shape[-1] > 1:
        side = levels[-1][0].shape[-1]
        half = 2 if side % 2 == 0 else side  # at an odd side, all that is left
        levels.append((F.avg_pool2d(levels[-1][0], half), F.avg_pool2d(levels[-1][1], half)))
    filled = torch.full_like(levels[-1][0], 0.5)
    for color, seen in reversed(levels):
        coarser = F.interpolate(filled, color.shape[-1], mode="bilinear")
        filled = torch.where(seen > 0, color / seen.clamp(min=1e-6), coarser)
    return filled
