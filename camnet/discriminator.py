"""The discriminator: which of two images under one condition is the photograph? Patch by patch, and in training only.

Source: relativistic pairs with penalties on both gradients (Jolicoeur-Martineau, arXiv 1807.00734; Huang et al., "The
GAN is dead; long live the GAN!", arXiv 2501.05441, Eq. 2); patches and a condition as in pix2pix (Isola et al., arXiv
1611.07004). Departures: the two images of a pair share their condition, so what a condition makes easy cancels; the
penalties are taken along one random direction by a finite difference (approximate R1 of Lin et al., "Diffusion
Adversarial Post-Training", arXiv 2501.08316), which asks for no second derivative.
"""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.condition import condition_channels
from configs.camnet import GeneratorConfig
from env.resize import halved

STEM = 24
"""Channels at the images' own resolution."""
WIDTHS = (48, 64, 96)
"""Channels at the side of the finest module's features, a half and a quarter of it."""
REACH = 0.05
"""Standard deviation of the noise along which scores have to be smooth, in pixel values."""
SLOPE = 0.2
"""Of the leaky ReLUs."""


class Discriminator(nn.Module):
    """Scores the patches of images, given what is known of each: higher for photographs than for restorations."""

    def __init__(self, config: GeneratorConfig) -> None:
        """Begin with equal scores for everything.

        Args:
            config: Of the generator, whose conditions it is told, too.
        """
        super().__init__()
        self.look = nn.Conv2d(3, STEM, 3, padding=1)
        self.enter = nn.Conv2d(STEM, WIDTHS[0], 3, padding=1)
        self.known = nn.Conv2d(condition_channels(config), WIDTHS[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, padding=1) for fine, coarse in pairwise(WIDTHS))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in WIDTHS[1:])
        self.head = nn.Conv2d(WIDTHS[-1], 1, 3, padding=1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d) and conv.bias is not None:
                nn.init.kaiming_normal_(conv.weight, SLOPE)
                nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Float[Tensor, "n 3 h h"], condition: Float[Tensor, "n p r r"]) -> Float[Tensor, "n q q"]:
        """Score every patch.

        Args:
            x: Images in [0, 1].
            condition: What the generator's finest module is told of each (`Generator.told`).

        Returns:
            One score for each place of a grid with a quarter of the condition's side; only differences mean anything.
        """
        h = _leaky(self.look(2 * x - 1))
        h = _smaller(h) if h.shape[-1] > condition.shape[-1] else h
        h = self.enter(h) + self.known(condition)
        for down, conv in zip(self.down, self.convs, strict=True):
            h = down(_smaller(_leaky(h)))
            h = h + conv(_leaky(h))
        return self.head(_leaky(h)).squeeze(1)


def pair_loss(better: Float[Tensor, "n q q"], worse: Float[Tensor, "n q q"]) -> Float[Tensor, ""]:
    """-log sigmoid(better - worse), mean of patches: log 2 where nobody can tell.

    The discriminator descends it with the photograph as the better one, the generator with its restoration as that.
    """
    return F.softplus(worse - better).mean()


def roughness(scores: Float[Tensor, "n q q"], moved: Float[Tensor, "n q q"]) -> Float[Tensor, ""]:
    """Squared slope of scores towards images with noise of `REACH` added; its mean over noise is |∇D|² (R1, R2)."""
    return ((moved - scores) / REACH).square().mean()


def _leaky(h: Tensor) -> Tensor:
    return F.leaky_relu(h, SLOPE)


def _smaller(h: Float[Tensor, "n c r r"]) -> Float[Tensor, "n c r2 r2"]:
    """At half the resolution: means of overlapping neighborhoods, with weights 1 2 1 both ways.

    What the generator is told comes back this way. Strides look at some pixels more than at others, and means of 2 x 2
    pixels tell these four the same: the one painted grids, the other blocks.
    """
    h = F.pad(h, (1, 0, 1, 0), mode="replicate")
    h = h[..., 1:, :] + h[..., :-1, :]
    return halved((h[..., 1:] + h[..., :-1]) / 4)
