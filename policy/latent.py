"""The policy that leaves corruption to chance and proposes the generator's codes instead."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.policy import PolicyConfig
from env.codes import CodeLaw
from env.distribution import CorruptionDistribution, fixed_rates
from policy.trunk import Trunk

REACH = 1.5
"""Largest absolute proposed mean: the generator was trained on standard normal codes, and nearly all of these lie
within 1.5 + 2 of zero."""
PROPOSED = 2
"""Views of an image that it proposes codes for."""


class LatentPolicy(nn.Module):
    """Image in; random corruption, and where in the space of codes each of the two views comes from, out.

    The means start at zero: a new policy proposes what the generator would have drawn by itself.

    Attributes:
        config: Its settings; mask ratio, decolorization and downsampling stay at their rates.
        image_size: Side of the square images it takes, in pixels.
        code_length: Numbers of a code that it proposes.
    """

    def __init__(self, config: PolicyConfig, image_size: int, code_length: int) -> None:
        super().__init__()
        self.config, self.image_size, self.code_length = config, image_size, code_length
        self.trunk = Trunk(config.width, image_size, config.grid)
        self.norm = nn.LayerNorm(self.trunk.features, elementwise_affine=False)
        self.means = nn.Linear(self.trunk.features, PROPOSED * code_length)
        nn.init.zeros_(self.means.weight)
        nn.init.zeros_(self.means.bias)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> CorruptionDistribution:
        """Give each image in [0, 1] its law of codes, beside fixed rates of corruption."""
        c = self.config
        _, whole = self.trunk(x)
        means = REACH * torch.tanh(self.means(self.norm(whole)) / REACH)
        rates = fixed_rates(len(x), c.grid, c.mask_ratio, c.decolorize, c.downsample, x.device)
        return replace(rates, code=CodeLaw(means.view(len(x), PROPOSED, self.code_length)))
