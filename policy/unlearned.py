"""Policies that look at nothing and learn nothing: what a learned one is compared with."""

from jaxtyping import Float
from torch import Tensor

from configs.policy import PolicyConfig
from env.distribution import CorruptionDistribution, fixed_rates
from env.masks.cow import Cow
from env.masks.law import MaskLaw
from env.masks.rectangle import Rectangle

NOTHING = (0.0, 0.0)


class Unlearned:
    """The configured rates, exactly, for every image.

    `random` draws cells of a grid; `cowmask` and `crop` draw blobs, or one rectangle, of the same mask ratio; color and
    detail are deleted at their rates beside. `downsample` and `decolorize` do this alone, and always (downsampling by 2
    and by 4 in the proportion of their rates). `none` deletes nothing.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config

    def __call__(self, x: Float[Tensor, "n 3 h w"]) -> CorruptionDistribution:
        """Give each image the same distribution, on the images' device."""
        n, size, c = len(x), x.shape[-1], self.config
        mask_ratio, decolorize, downsample = c.mask_ratio, c.decolorize, c.downsample
        match c.name:
            case "none":
                mask_ratio, decolorize, downsample = 0.0, 0.0, NOTHING
            case "decolorize":
                mask_ratio, decolorize, downsample = 0.0, 1.0, NOTHING
            case "downsample":
                mask_ratio, decolorize, downsample = 0.0, 0.0, _always(downsample)
        rates = fixed_rates(n, c.grid, mask_ratio, decolorize, downsample, x.device)
        mask: MaskLaw
        match c.name:
            case "cowmask":
                mask = Cow(n, size, mask_ratio, x.device)
            case "crop":
                mask = Rectangle(n, size, mask_ratio, x.device)
            case _:
                return rates
        return CorruptionDistribution(mask, rates.downsample_logits, rates.decolorize_logits)


def _always(rates: tuple[float, float]) -> tuple[float, float]:
    """The two rates scaled to add up to 1; half and half where both are 0."""
    total = sum(rates)
    return (rates[0] / total, 1 - rates[0] / total) if total else (0.5, 0.5)
