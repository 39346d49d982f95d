"""The dial: how strong crop and color jitter are, from nothing to SimCLR's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dial:
    """One strength from 0 to 1 sets five numbers; all are neutral at 0.

    Source: at 1, Chen et al. 2020 (SimCLR), appendix A, as solo-learn sets it for CIFAR-10; at 0.5, the weak setting of
    Wang et al. 2024 (AdaInf), which helped beside generated images. Between them the numbers move steadily.

    Attributes:
        strength: In [0, 1].
    """

    strength: float

    @property
    def smallest_area(self) -> float:
        """Least share of the image's area that a crop keeps: 1, 0.2, 0.08 at strength 0, 0.5, 1."""
        return 0.08 ** (self.strength**0.65)

    @property
    def jitter_probability(self) -> float:
        """Probability that an image's colors are jittered at all."""
        return 0.8 * self.strength

    @property
    def blend(self) -> float:
        """Factors of brightness, contrast and saturation lie within 1 ± this."""
        return 0.8 * self.strength

    @property
    def turn(self) -> float:
        """Hue moves by up to this, to either side, in turns of the color circle."""
        return 0.2 * self.strength
