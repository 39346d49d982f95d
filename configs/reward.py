"""What a run is told of its reward."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, cast

from tyro.conf import arg

from configs.checks import require_probabilities, require_range

RewardName = Literal["loss-slope", "val-loss", "prediction-gain", "adversarial", "cooperative", "knn", "none"]
BY_THE_BATCH = ("val-loss", "knn")
"""Rewards that know no single image."""
BASELINES = ("auto", "none", "ema", "batch", "critic", "table", "rloo", "greedy")


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """What the reward's reference loss is measured on: held-out data that the policy cannot touch."""

    kind: Literal["corruption", "expert", "labels"] = "corruption"
    """corruption: the contrastive loss of held-out images under the fixed, strong corruption below (no labels).
    expert: that of held-out images under expert augmentation at full strength (neither labels nor generator). labels: a
    soft nearest-neighbor loss on held-out labeled images."""
    mask_ratio: float = 0.1
    """Share of hidden cells in the reference corruption. In [0, 1]."""
    decolorize: float = 1.0
    """Probability of decolorization in the reference corruption. What it deletes is what the learner is asked to
    ignore: the reference defines what a good policy is."""
    downsample: tuple[float, float] = (0.0, 0.0)
    """Probabilities of downsampling by 2 and by 4 in the reference corruption; together at most 1."""
    batch: int = 64
    """Held-out images behind one gradient, each by one of its reference pairs (or its label)."""
    momentum: float = 0.9
    """Decay of the moving average of the reference gradient (credit per image). In [0, 1)."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        require_range("reward.reference.mask-ratio", self.mask_ratio, 0, 1)
        require_range("reward.reference.decolorize", self.decolorize, 0, 1)
        require_probabilities("reward.reference.downsample", self.downsample)
        require_range("reward.reference.batch", self.batch, 2, 1e6)
        require_range("reward.reference.momentum", self.momentum, 0, 0.9999)


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What the policy is paid for."""

    name: Annotated[RewardName, arg(aliases=["--reward"])] = "loss-slope"
    """loss-slope: moving average of the negative derivative of the contrastive loss. val-loss: minus the held-out loss
    itself. prediction-gain: how much the step lowered the loss of its own pairs. adversarial: the loss itself (hold the
    mask ratio, or it hides everything). cooperative: its negative. knn: accuracy on validation images; this one uses
    labels. none: the policy stays as it starts. docs/rewards.md tells what to expect of each."""
    measured_on: Literal["reference", "training"] = "reference"
    """loss-slope only. reference: the loss of held-out pairs that the policy cannot touch. training: the loss of the
    policy's own pairs, the literal reading, which pays for easy pairs (README says why)."""
    credit: Literal["image", "batch"] = "image"
    """image: each image is paid its own share of the slope. batch: one number for all of the batch (val-loss and knn
    always are)."""
    baseline: str = "auto"
    """Subtracted from the reward. none. ema: a moving average. batch: the batch's mean. critic: a network's guess from
    the image. table: a moving average for each training image. rloo:K (rloo:2, ...): the mean over the other K - 1 of K
    corruptions of the image. greedy: the reward of the image's most probable corruption. auto: batch, or ema where the
    batch shares one reward (minus its own mean, that leaves exactly nothing). disarm and evolution need none."""
    scaling: Literal["rms", "quantiles", "none"] = "rms"
    """rms: advantages are divided by their running root mean square. quantiles: rewards are mapped so that the 20 and
    80 % quantiles of past ones become -1 and 1, and cut there (Graves et al. 2017). none: as they are."""
    momentum: float = 0.9
    """Decay of the moving averages: of the literal reward, the baselines ema, critic and table, the root mean square
    that advantages are divided by, and the curves. In [0, 1)."""
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)

    def __post_init__(self) -> None:
        """Check the bounds and refuse combinations that cannot learn."""
        require_range("reward.momentum", self.momentum, 0, 0.9999)
        kind, _, count = self.baseline.partition(":")
        if kind not in BASELINES or (kind == "rloo") != bool(count) or not (count or "2").isdecimal():
            raise ValueError(
                f"--reward.baseline must be one of {', '.join(BASELINES)} with rloo as rloo:K, got {self.baseline!r}"
            )
        require_range("reward.baseline rloo:K", int(count or 2), 2, 64)
        if self.shared and kind in ("batch", "rloo", "greedy"):
            why = "--reward.credit batch" if self.name not in BY_THE_BATCH else f"--reward {self.name}"
            raise ValueError(
                f"{why} with --reward.baseline {self.baseline} has an exactly zero gradient: "
                "all images of the batch share one reward, which is its own baseline. Use --reward.baseline ema "
                "(or critic, table, none)"
            )
        if self.corruptions > 1:
            self.require_comparable(f"--reward.baseline {self.baseline}")

    @property
    def caution(self) -> str:
        """What to know before such a run begins; empty where there is nothing."""
        if self.name == "knn" or (self.name in ("loss-slope", "val-loss") and self.reference.kind == "labels"):
            return f"--reward {self.name} is paid by labels of validation images: what it learns is not self-supervised"
        if self.name == "loss-slope" and self.measured_on == "training":
            return (
                "--reward.measured-on training pays for pairs that are easier than recent ones (docs/rewards.md): the "
                "literal reading, kept for comparison"
            )
        if self.name == "cooperative":
            return "--reward cooperative pays for easy pairs, and nothing is easier than no corruption: a control"
        return ""

    @property
    def compares_held_out(self) -> bool:
        """Whether it is measured by a loss that compares held-out images, which takes at least two of them."""
        return self.name == "val-loss" or (self.name == "loss-slope" and self.measured_on == "reference")

    @property
    def shared(self) -> bool:
        """Whether one number pays the whole batch."""
        return self.credit == "batch" or self.name in BY_THE_BATCH

    @property
    def baseline_kind(self) -> Literal["none", "ema", "batch", "critic", "table", "rloo", "greedy"]:
        """The baseline in force, `auto` resolved."""
        kind = self.baseline.partition(":")[0]
        if kind == "auto":
            kind = "ema" if self.shared else "batch"
        return cast(Literal["none", "ema", "batch", "critic", "table", "rloo", "greedy"], kind)

    @property
    def corruptions(self) -> int:
        """Corruptions of each image that the baseline compares."""
        return {"rloo": int(self.baseline.partition(":")[2] or 0), "greedy": 2}.get(self.baseline_kind, 1)

    def require_comparable(self, by: str) -> None:
        """Refuse rewards that pay only for the pairs that the learner has learned from.

        Raises:
            ValueError: If several corruptions of one image cannot be compared by this reward.
        """
        if self.shared or self.name == "prediction-gain":
            raise ValueError(
                f"{by} compares several corruptions of an image, but the learner takes its step on only one of them, "
                f"and --reward {self.name}{' --reward.credit batch' * self.shared} pays for that step. "
                "Use loss-slope, adversarial or cooperative with --reward.credit image"
            )
