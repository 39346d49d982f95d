"""Colors that follow: what a fine module adds to an image's colors, once it has decided on lightness.

Where every region of a fine module has a style of its own, and its code decides on colors as well, neighbors choose
theirs one by one, and a photograph has splotches: red on a muzzle, green in a wall. Colors belong to things, which are
larger. So the codes of coarse modules choose them, and the fine ones only carry them to where they end, by what is
known of the image and by the lightness that they have restored. No code enters but by way of this lightness, whose
gradient is cut: nothing asks it to carry hints about colors.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.channels import convolved


class Color(nn.Module):
    """The correction of an image's colors, its lightness (the mean of the channels) being given."""

    def __init__(self, known: int, width: int, patch: int) -> None:
        """Begin with no correction: colors are those of the module before.

        Args:
            known: Channels of what is known, condition and image before.
            width: Channels of the features.
            patch: Side in pixels of the patches.
        """
        super().__init__()
        self.patch = patch
        self.known = nn.Conv2d(known, width, 3, padding=1)
        self.lightness = nn.Conv2d(patch**2, width, 3, padding=1, bias=False)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 3 * patch**2, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def enter(
        self, condition: Float[Tensor, "n p q q"], image: Float[Tensor, "nk i q q"], layout: torch.memory_format
    ) -> Float[Tensor, "nk c q q"]:
        """The share that is the same under every code.

        Args:
            condition: What is known.
            image: Of the module before, patches in channels; k for each condition, image by image.
            layout: That of the weights.
        """
        return convolved(condition, [image], self.known.weight, self.known.bias, layout)

    def forward(
        self, entered: Float[Tensor, "n c q q"], lightness: Float[Tensor, "n 1 r r"]
    ) -> Float[Tensor, "n 3 r r"]:
        """The correction; its channels sum to 0 everywhere (to rounding), so that lightness stays as it is.

        Args:
            entered: Of `enter`.
            lightness: That of the image to be corrected.
        """
        h = entered + self.lightness(F.pixel_unshuffle(lightness.detach(), self.patch))
        h = h + self.conv(F.silu(h))
        correction = F.pixel_shuffle(self.head(F.silu(h)), self.patch)
        return correction - correction.mean(dim=1, keepdim=True)
