"""Which images."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from configs.checks import require_range


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The image set, its resolution and its fixed split."""

    name: Annotated[Literal["digits"], arg(aliases=["--data"])] = "digits"
    """digits: scikit-learn's 1,797 real handwritten digits, each drawn once in two random colors (no download)."""
    size: int = 16
    """Side of the square images in pixels: 16 or 32. The shipped generator is for 16."""
    seed: int = 0
    """Draws the colors and the train / validation / test split. Apart from the run's seed, so that every run is
    tested on the same images, which the shipped generator has never seen."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.size not in (16, 32):
            raise ValueError(f"--data.size must be 16 or 32, got {self.size}")
        require_range("data.seed", self.seed, 0, 2**31)
