"""What a run is told of the expert augmentation of its views."""

from dataclasses import dataclass
from typing import Literal

from configs.checks import require_range


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Expert augmentation of each view: what people know to be beside the point.

    Source: Chen et al. 2020 (SimCLR), appendix A; weakened beside generated views as in Wang et al. 2024 (AdaInf).
    """

    strength: str = "auto"
    """One dial from 0 (no augmentation at all) to 1 (SimCLR's). It scales crop and color jitter: at 1 crops keep at
    least 8 % of the area and colors jitter by 0.8 with probability 0.8; at 0.5, 20 % and 0.4 (AdaInf's weak setting).
    auto: 0 for digits; otherwise 0.5 where a generator makes the views and 1 with --policy none."""
    crop: Literal["resized", "edge", "none"] = "resized"
    """resized: a random part, enlarged (RandomResizedCrop). edge: the same, but every part shares at least one edge
    with the image. none: no crop."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    rotation: float = 0.0
    """Largest rotation in degrees, to either side."""
    gray: float = 0.2
    """Probability of grayscale."""
    blur: float = 0.0
    """Probability of Gaussian blur (SimCLR: 0.5 on photographs of 224 pixels, none on CIFAR-10)."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.strength != "auto":
            try:
                strength = float(self.strength)
            except ValueError:
                raise ValueError(
                    f"--augment.strength must be auto or a number from 0 to 1, got {self.strength!r}"
                ) from None
            require_range("augment.strength", strength, 0, 1)
        for name in ("flip", "gray", "blur"):
            require_range(f"augment.{name}", getattr(self, name), 0, 1)
        require_range("augment.rotation", self.rotation, 0, 180)
