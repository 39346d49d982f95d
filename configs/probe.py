"""What contrastive.evaluate is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from configs.checks import require_range
from configs.places import RUN, in_run


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Measure what a run's learner has learned: kNN, linear probe, alignment, uniformity, RankMe, and a map."""

    run: Positional[Path]
    """The run's folder, such as runs/digits-loss-slope-seed0; its newest checkpoint is measured."""
    out: Path = Path(RUN, "evaluation")
    """Folder for figures.json, table.md and map.png, which are overwritten. RUN is the run's folder."""
    split: Literal["validation", "test"] = "test"
    """What is asked about: validation for choosing between settings, test for figures that are reported."""
    train_images: int = 10000
    """Training images behind kNN and linear probe, evenly spread over the split; 0: all."""
    test_images: int = 0
    """Images asked about, evenly spread over the split; 0: all."""
    k: int = 20
    """Neighbors that vote."""
    temperature: float = 0.1
    """Each neighbor's vote weighs exp(cosine / temperature)."""
    augment_strength: float = 1.0
    """How strongly the pairs of alignment are augmented: 1 is SimCLR's. Compare runs at equal strength."""
    map: Literal["tsne", "pca"] = "tsne"
    """tsne: near images stay near, and distances between groups mean nothing. pca: the two strongest directions."""
    seed: int = 0
    """Draws the pairs of alignment, and the map."""
    data_root: Annotated[str, arg(aliases=["--data.root"])] = ""
    """Where the image files lie. Empty: where the run found them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure; auto takes the GPU where there is one."""

    def __post_init__(self) -> None:
        """Put the folder into the run's where no other place is given, and check the bounds."""
        object.__setattr__(self, "out", in_run(self.out, self.run))
        require_range("train-images", self.train_images, 0, 1e9)
        require_range("test-images", self.test_images, 0, 1e9)
        require_range("k", self.k, 1, 1e6)
        require_range("temperature", self.temperature, 0.001, 100)
        require_range("augment-strength", self.augment_strength, 0.01, 1)
        require_range("seed", self.seed, 0, 2**31)
