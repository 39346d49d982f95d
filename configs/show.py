"""What policy.show is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from configs.checks import require_range
from configs.places import RUN, in_run


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Draw what a trained policy does to test images, and print its rates."""

    run: Positional[Path]
    """The run's folder, such as runs/digits-loss-slope-seed0; it must have ended."""
    out: Path = Path(RUN, "policy.png")
    """The PNG, which is overwritten. RUN is the run's folder."""
    images: int = 1000
    """How many test images to look at, evenly spread; 0: all."""
    data_root: Annotated[str, arg(aliases=["--data.root"])] = ""
    """Where the image files lie. Empty: where the run found them."""

    def __post_init__(self) -> None:
        """Put the picture into the run's folder where no other place is given, and check the bounds."""
        object.__setattr__(self, "out", in_run(self.out, self.run))
        require_range("images", self.images, 0, 1e9)
