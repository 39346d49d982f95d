"""A policy that looks at nothing: the same rates for every image."""

from jaxtyping import Float
from torch import Tensor

from configs.run import PolicyConfig
from env.distribution import CorruptionDistribution, fixed_rates


class FixedPolicy:
    """The configured rates, exactly, for every image; what a learned policy is compared with."""

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config

    def __call__(self, x: Float[Tensor, "n 3 h w"]) -> CorruptionDistribution:
        """Give each image the same distribution, on the images' device."""
        config = self.config
        return fixed_rates(len(x), config.grid, config.mask_ratio, config.decolorize, config.downsample, x.device)
