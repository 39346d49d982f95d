"""What a run is told of the views that the learner sees."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from configs.checks import require_range

ViewsName = Literal["auto", "random", "most-different", "hard", "all", "policy"]
CHOOSING = ("most-different", "hard")
"""Views that the learner chooses among candidates."""


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Which decorruptions of an image the learner sees, and how many."""

    name: Annotated[ViewsName, arg(aliases=["--views"])] = "auto"
    """random: two. most-different: of --views.count, the two that the learner finds least similar. hard: the two of
    highest loss (HVP). all: all --views.count, each a positive of every other. policy: two, from codes that --policy
    latent proposes. auto: policy with --policy latent, random otherwise."""
    count: int = 4
    """Decorruptions of an image: candidates of most-different and hard, views of all. The others take two."""
    scoring_scale: Literal[1, 2, 4] = 1
    """Candidates are judged at 1 / this of their side: cheaper, and less like what the learner would see."""
    scoring_bfloat16: bool = False
    """Candidates are judged in bfloat16: cheaper where the device computes in it."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        require_range("views.count", self.count, 2, 64)

    @property
    def drawn(self) -> int:
        """Decorruptions of each image."""
        return self.count if self.name == "all" or self.chooses else 2

    @property
    def shown(self) -> int:
        """Of these, those that the learner sees."""
        return self.count if self.name == "all" else 2

    @property
    def chooses(self) -> bool:
        """Whether the learner chooses among candidates."""
        return self.name in CHOOSING
