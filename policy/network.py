"""π_θ: a small convolutional network that looks at an image and says how likely each corruption is."""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.run import PolicyConfig
from env.distribution import CorruptionDistribution, log, logit
from env.masks.cells import Cells

BOUND = 4.6
"""Largest absolute logit: probabilities of bits stay within about [0.01, 0.99], so that log-probabilities
stay finite and exploration never dies."""
COMMON_GAIN = 10.0
"""How much faster the rates common to all images learn than what differs between images."""
START = 0.95 * BOUND
"""Largest absolute logit to start from: at the bound itself the limiter has no slope to leave it by."""


class PolicyNetwork(nn.Module):
    """Image in, distribution over corruptions out.

    Neither BatchNorm nor dropout: an action must be scored by the very distribution that it was drawn from.
    With them the distribution would depend on the mode and on the batch's other images, and REINFORCE's
    gradient would be that of another policy. GroupNorm looks at one image alone.

    The heads' weights start at zero and their biases at the configured rates, so a new policy treats all
    images alike. Rates nearer to 0 or 1 than about 0.0125 start there.

    Attributes:
        config: Its settings.
        image_size: Side of the square images it takes, in pixels.
    """

    def __init__(self, config: PolicyConfig, image_size: int) -> None:
        super().__init__()
        self.config = config
        self.image_size = image_size
        halvings = math.log2(image_size / config.grid)
        if halvings < 0 or not halvings.is_integer():
            raise ValueError(
                f"images of {image_size} pixels cannot be halved to a grid of {config.grid}: "
                f"use {config.grid} times a power of two"
            )
        widths = [min(config.width * 2**k, 4 * config.width) for k in range(int(halvings) + 1)]
        stages = [_stage(a, b, 2) for a, b in pairwise(widths)]
        self.trunk = nn.Sequential(_stage(3, widths[0], 1), *stages)  # ends at one position a cell
        self.context = nn.Linear(widths[-1], widths[-1])
        factors = (1 - sum(config.downsample), *config.downsample)
        self.mask_head = Head(widths[-1], [logit(config.mask_ratio)])
        self.downsample_head = Head(widths[-1], [log(p) for p in factors])
        self.decolorize_head = Head(widths[-1], [logit(config.decolorize)])

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> CorruptionDistribution:
        """Give each image in [0, 1] its distribution over corruptions.

        Raises:
            ValueError: If the images are not of the size that the network was made for.
        """
        if x.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"this policy takes {self.image_size} x {self.image_size} images, got {tuple(x.shape)}")
        cells = self.trunk(2 * x - 1)
        cells = cells.flatten(2).transpose(1, 2)  # (n, g g, c)
        cells = cells + self.context(cells.mean(dim=1, keepdim=True))  # what a cell cannot see from where it is
        whole = cells.mean(dim=1)
        grid = (len(x), self.config.grid, self.config.grid)
        return CorruptionDistribution(
            mask=Cells(self.mask_head(cells).view(grid)),
            downsample_logits=self.downsample_head(whole),
            decolorize_logits=self.decolorize_head(whole).squeeze(1),
        )


class Head(nn.Module):
    """Features to limited logits: a common rate, and what the image adds to it.

    Features are normalized and never rectified to zero here: a head that reads dead units falls back to where it
    started. The weights start at zero, the common part at the given logits.
    """

    def __init__(self, width: int, start: list[float]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.image = nn.Linear(width, len(start), bias=False)
        within = [min(max(value, -START), START) for value in start]
        self.common = nn.Parameter(torch.tensor([BOUND * math.atanh(v / BOUND) / COMMON_GAIN for v in within]))
        nn.init.zeros_(self.image.weight)

    def forward(self, features: Float[Tensor, "*s c"]) -> Float[Tensor, "*s k"]:
        """Logits within ±BOUND."""
        return limited(self.image(self.norm(features)) + COMMON_GAIN * self.common)


def limited(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Limit logits softly to ±BOUND: BOUND tanh(x / BOUND), the identity near 0. In at least float32."""
    return BOUND * torch.tanh(x.to(torch.promote_types(x.dtype, torch.float32)) / BOUND)


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    """Convolution, norm, nonlinearity."""
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(8, after), after), nn.SiLU())
