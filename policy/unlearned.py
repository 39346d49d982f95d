"""Policies that look at nothing and learn nothing: what a learned one is compared with."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from configs.policy import PolicyConfig
from env.distribution import CorruptionDistribution, fixed_rates
from env.masks.cow import Cow
from env.masks.rectangle import Rectangle

NOTHING = (0.0, 0.0)


class Unlearned:
    """The configured rates, exactly, for every image.

    `random` draws cells of a grid; `cowmask` and `crop` draw blobs, or one rectangle, of the same mask ratio; color and
    detail are deleted at their rates beside. `downsample` and `decolorize` do only this, and always (downsampling by 2
    and by 4 in the proportion of their rates). `none` deletes nothing.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config

    def __call__(self, x: Float[Tensor, "n 3 h w"]) -> CorruptionDistribution:
        """Give each image the same distribution, on the images' device."""
        n, size, c = len(x), x.shape[-1], self.config
        mask_ratio, decolorize, downsample = {
            "none": (0.0, 0.0, NOTHING),
            "decolorize": (0.0, 1.0, NOTHING),
            "downsample": (0.0, 0.0, _always(c.downsample)),
        }.get(c.name, (c.mask_ratio, c.decolorize, c.downsample))
        rates = fixed_rates(n, c.grid, mask_ratio, decolorize, downsample, x.device)
        match c.name:
            case "cowmask":
                return replace(rates, mask=Cow(n, size, mask_ratio, x.device))
            case "crop":
                return replace(rates, mask=Rectangle(n, size, mask_ratio, x.device))
        return rates


def _always(rates: tuple[float, float]) -> tuple[float, float]:
    """The two rates scaled to add up to 1; half and half where both are 0."""
    total = sum(rates)
    return (rates[0] / total, 1 - rates[0] / total) if total else (0.5, 0.5)
