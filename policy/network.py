"""π_θ: a small convolutional network that looks at an image and says how likely each corruption is."""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.run import PolicyConfig
from env.corruption import FACTORS
from env.distribution import CorruptionDistribution, log, logit

BOUND = 4.6
"""Largest absolute logit: probabilities of bits stay within about [0.01, 0.99], so that log-probabilities
stay finite and exploration never dies."""
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
        self.mask_head = nn.Conv2d(widths[-1], 1, 1)
        self.downsample_head = nn.Linear(widths[-1], len(FACTORS))
        self.decolorize_head = nn.Linear(widths[-1], 1)
        factors = (1 - sum(config.downsample), *config.downsample)
        _start_at(self.mask_head, [logit(config.mask_ratio)])
        _start_at(self.downsample_head, [log(p) for p in factors])
        _start_at(self.decolorize_head, [logit(config.decolorize)])

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> CorruptionDistribution:
        """Give each image in [0, 1] its distribution over corruptions.

        Raises:
            ValueError: If the images are not of the size that the network was made for.
        """
        if x.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"this policy takes {self.image_size} x {self.image_size} images, got {tuple(x.shape)}"
            )
        cells = self.trunk(2 * x - 1)
        whole = self.context(cells.mean(dim=(2, 3)))  # what a cell cannot see from where it is
        cells = torch.relu(cells + whole[:, :, None, None])
        whole = cells.mean(dim=(2, 3))
        return CorruptionDistribution(
            mask_logits=limited(self.mask_head(cells).squeeze(1)),
            downsample_logits=limited(self.downsample_head(whole)),
            decolorize_logits=limited(self.decolorize_head(whole).squeeze(1)),
        )


def limited(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Limit logits softly to ±BOUND: BOUND tanh(x / BOUND), the identity near 0. In at least float32."""
    return BOUND * torch.tanh(x.to(torch.promote_types(x.dtype, torch.float32)) / BOUND)


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    """Convolution, norm, nonlinearity."""
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(8, after), after), nn.ReLU(inplace=True))


def _start_at(head: nn.Conv2d | nn.Linear, logits: list[float]) -> None:
    """Zero the head's weights and bias it so that its limited output is the given logits, for every image."""
    assert head.bias is not None
    within = [min(max(value, -START), START) for value in logits]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([BOUND * math.atanh(value / BOUND) for value in within]))
