"""What a module is told of the image: the degraded image at its resolution, and features of it that no code enters."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.degraded import Degraded
from configs.camnet import GeneratorConfig
from env.resize import pooled


class Context(nn.Module):
    """Features of the condition for every module, drawn from fine to coarse; no code enters."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = config.widths
        self.entry = nn.Conv2d(condition_channels(config), widths[-1], 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for coarse, fine in pairwise(widths))

    def forward(self, condition: Float[Tensor, "n p r r"]) -> list[Tensor]:
        """Features at each module's resolution, coarse to fine, from the condition of the finest module."""
        h, features = self.entry(condition), []
        for level in reversed(range(len(self.convs))):
            h = h + self.convs[level](F.silu(h))
            features.append(h)
            if level:
                h = self.down[level - 1](F.silu(h))
        return features[::-1]


def condition_channels(config: GeneratorConfig) -> int:
    """Channels of the condition: kept colors and hidden share of every pixel of a patch, and the tasks' planes."""
    return 4 * config.patch**2 + sum(config.planes.values())


def condition_at(
    degraded: Degraded, planes: Float[Tensor, "n p _ _"], resolution: int, patch: int
) -> Float[Tensor, "n q r r"]:
    """Pool the degraded image and its planes to a module's resolution, then fold patches into channels."""
    r = resolution // patch
    hidden = pooled(degraded.hidden, resolution)
    seen = torch.cat([kept_at(degraded, resolution), hidden], dim=1)
    if patch > 1:
        seen = F.pixel_unshuffle(seen, patch)
    everywhere = planes.shape[-1] == 1
    planes = planes.expand(-1, -1, r, r) if everywhere else pooled(planes, r)
    return torch.cat([seen, planes], dim=1)


def kept_at(degraded: Degraded, resolution: int) -> Float[Tensor, "n 3 r r"]:
    """The kept colors at a module's resolution.

    Averaged only over visible pixels, or the zeros of hidden ones would bleed into coarse modules.
    """
    hidden = pooled(degraded.hidden, resolution)
    return pooled(degraded.kept, resolution) / (1 - hidden).clamp(min=1e-6)


def filled_at(degraded: Degraded, resolution: int) -> Float[Tensor, "n 3 r r"]:
    """The kept colors at a module's resolution, holes filled from the next coarser resolution that sees something.

    The "pull" of pull-push interpolation (Gortler et al. 1996); middle gray where nothing at all is visible.
    """
    sizes = [resolution]
    while sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    image = degraded.kept.new_full((len(degraded), 3, 1, 1), 0.5)
    for size in [*([1] if sizes[-1] > 1 else []), *reversed(sizes)]:
        hidden = pooled(degraded.hidden, size)
        image = torch.where(hidden < 1, kept_at(degraded, size), F.interpolate(image, size, mode="nearest"))
    return image
