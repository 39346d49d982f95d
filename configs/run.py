"""What run_rl.py is told. Every field is a flag: `policy.mask_ratio` is `--policy.mask-ratio`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast

from tyro.conf import arg

from configs.checks import require_range
from configs.data import DataConfig

PolicyName = Literal[
    "learned", "autodropout", "latent", "random", "cowmask", "crop", "downsample", "decolorize", "none"
]
LEARNED = ("learned", "autodropout", "latent")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Who corrupts, and how boldly."""

    name: Annotated[PolicyName, arg(aliases=["--policy"])] = "learned"
    """learned: the mask network, trained by REINFORCE. autodropout: one learned pattern of rectangles for all images,
    at first each as likely (28 % hidden). latent: random corruptions; the codes of the two views are what is learned.
    The others learn nothing and look at nothing. random: independent draws from the three rates below. cowmask, crop: a
    blob-shaped mask, or one rectangle, of that mask ratio. downsample, decolorize: this alone, always. none: no
    corruption."""
    start: Annotated[str, arg(aliases=["--policy.from"])] = ""
    """Start from an exported policy: a run's folder, or its policy.safetensors. With --reward none it stays as it is:
    a frozen policy."""
    mask: Literal["cells", "budget", "smooth"] = "cells"
    """How the learned policy draws its mask. cells: each by itself. budget: exactly --policy.mask-ratio of the cells
    (Gumbel top-k). smooth: a coarse field, enlarged and cut at zero, so that edges follow no grid."""
    grid: int = 4
    """The mask hides whole cells of a grid x grid partition of the image; a power of two, at most one cell a pixel."""
    mask_ratio: float = 0.3
    """Probability that a cell is hidden; where a learned policy starts, where a fixed one stays. In [0, 1]."""
    decolorize: float = 0.1
    """Probability of deleting color; where a learned policy starts, where a fixed one stays. In [0, 1]."""
    downsample: tuple[float, float] = (0.1, 0.1)
    """Probabilities of downsampling by 2 and by 4; where a learned policy starts, where a fixed one stays."""
    width: int = 16
    """Channels of the policy network's first stage."""
    learning_rate: float = 3e-3
    """Adam's peak step size for the policy."""
    entropy_weight: float = 0.002
    """Weight of the entropy bonus (nats an image), in units of the reward's running RMS."""
    ratio_range: tuple[float, float] = (0.0, 0.5)
    """Mask-ratio guard: an image's expected mask ratio is free inside this range and pulled back outside it.
    Equal ends hold one ratio."""
    ratio_weight: float = 20.0
    """Strength of the guard: weight of the squared distance to the range, in units of the reward's RMS."""
    clip_norm: float = 1.0
    """Largest norm of the policy's gradient."""
    estimator: Literal["reinforce", "disarm", "evolution"] = "reinforce"
    """From rewards to a gradient. reinforce: the score function. disarm: antithetic pairs of masks (Dong et al. 2020);
    two corruptions an image. evolution: antithetic perturbations of the weights, no gradient of the policy at all; two
    corruptions an image."""
    perturbations: int = 8
    """evolution only: directions tried a step, each on its own part of the batch."""
    sigma: float = 0.1
    """evolution only: standard deviation of a perturbation of each weight."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.grid < 1 or self.grid & (self.grid - 1):
            raise ValueError(f"--policy.grid must be a power of two (1, 2, 4, 8, ...), got {self.grid}")
        if self.estimator == "disarm" and (self.name, self.mask) != ("learned", "cells"):
            raise ValueError(
                "--policy.estimator disarm is for bits alone: it needs --policy learned --policy.mask cells"
            )
        if self.start and self.name not in LEARNED:
            raise ValueError(f"--policy {self.name} learns nothing, so there is nothing to take --policy.from a run")
        require_range("policy.mask-ratio", self.mask_ratio, 0, 1)
        require_range("policy.decolorize", self.decolorize, 0, 1)
        for probability in self.downsample:
            require_range("policy.downsample", probability, 0, 1)
        if sum(self.downsample) > 1:
            raise ValueError(
                f"--policy.downsample: the two probabilities add up to {sum(self.downsample):g}, at most 1 is possible"
            )
        if not 0 <= self.ratio_range[0] <= self.ratio_range[1] <= 1:
            raise ValueError(
                f"--policy.ratio-range must be LOW HIGH with 0 <= LOW <= HIGH <= 1, got {self.ratio_range}"
            )
        require_range("policy.width", self.width, 8, 1024)
        require_range("policy.learning-rate", self.learning_rate, 0, 1)
        require_range("policy.entropy-weight", self.entropy_weight, 0, 100)
        require_range("policy.ratio-weight", self.ratio_weight, 0, 1e4)
        require_range("policy.clip-norm", self.clip_norm, 1e-6, 1e6)
        require_range("policy.perturbations", self.perturbations, 1, 1e6)
        require_range("policy.sigma", self.sigma, 1e-6, 10)

    @property
    def hidden_cells(self) -> int:
        """How many cells --policy.mask budget hides: the nearest whole number to the mask ratio."""
        return round(self.mask_ratio * self.grid**2)

    @property
    def learns(self) -> bool:
        """Whether it has anything that a reward could teach."""
        return self.name in LEARNED


RewardName = Literal["loss-slope", "val-loss", "prediction-gain", "adversarial", "cooperative", "knn", "none"]
BY_THE_BATCH = ("val-loss", "knn")
"""Rewards that know no single image."""
BASELINES = ("auto", "none", "ema", "batch", "critic", "table", "rloo", "greedy")


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """What the reward's reference loss is measured on: held-out data that the policy cannot touch."""

    kind: Literal["corruption", "labels"] = "corruption"
    """corruption: the contrastive loss of held-out images under the fixed, strong corruption below (no labels).
    labels: a soft nearest-neighbor loss on held-out labelled images."""
    mask_ratio: float = 0.1
    """Share of hidden cells in the reference corruption. In [0, 1]."""
    decolorize: float = 1.0
    """Probability of decolorization in the reference corruption. What it deletes is what the learner is asked to
    ignore: the reference defines what a good policy is."""
    downsample: tuple[float, float] = (0.0, 0.0)
    """Probabilities of downsampling by 2 and by 4 in the reference corruption."""
    batch: int = 64
    """Reference pairs (or labelled images) behind one gradient."""
    momentum: float = 0.9
    """Decay of the moving average of the reference gradient (credit per image). In [0, 1)."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        require_range("reward.reference.mask-ratio", self.mask_ratio, 0, 1)
        require_range("reward.reference.decolorize", self.decolorize, 0, 1)
        for probability in self.downsample:
            require_range("reward.reference.downsample", probability, 0, 1)
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
    """Decay of the moving averages: of the literal reward, the ema baseline and the curves. In [0, 1)."""
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
                "--reward.measured-on training pays for pairs that are easier than of late (docs/rewards.md): the "
                "literal reading, kept for comparison"
            )
        if self.name == "cooperative":
            return "--reward cooperative pays for easy pairs, and nothing is easier than no corruption: a control"
        return ""

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
                f"{by} compares several corruptions of an image, but the learner takes its step on one of them alone, "
                f"and --reward {self.name}{' --reward.credit batch' * self.shared} pays for that step. "
                "Use loss-slope, adversarial or cooperative with --reward.credit image"
            )


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """The SimCLR learner."""

    width: int = 32
    """Channels of the encoder's first stage; the others have twice as many."""
    projection: int = 64
    """Length of the projected vectors that the loss compares."""
    temperature: float = 0.2
    """NT-Xent's temperature."""
    learning_rate: float = 3e-4
    """AdamW's peak step size for the learner. A fast learner is done before the policy has found the right pairs."""
    weight_decay: float = 1e-4
    """Decoupled weight decay (AdamW)."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        require_range("contrastive.width", self.width, 8, 1024)
        require_range("contrastive.projection", self.projection, 8, 4096)
        require_range("contrastive.temperature", self.temperature, 0.01, 10)
        require_range("contrastive.learning-rate", self.learning_rate, 0, 1)
        require_range("contrastive.weight-decay", self.weight_decay, 0, 1)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How long, and how often each part has its turn. Every interval is counted in learner steps."""

    steps: Annotated[int, arg(aliases=["--steps"])] = 400
    """Learner steps in all. A finished run goes on when this is raised."""
    batch: int = 128
    """Images a step; the learner sees two views of each."""
    warmup: int = 10
    """Learner steps before the policy's first."""
    policy_every: int = 1
    """The policy takes one step after this many learner steps."""
    policy_until: float = 1.0
    """Share of the run after which the policy stays as it is, and the learner goes on alone. In [0, 1]."""
    log_every: int = 10
    """Steps between points of the TensorBoard curves."""
    evaluate_every: int = 50
    """Steps between kNN evaluations."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    max_minutes: Annotated[float, arg(aliases=["--max-minutes"])] = 0.0
    """Stop cleanly after this many minutes, everything exported; 0: no limit."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        require_range("schedule.steps", self.steps, 1, 1e9)
        require_range("schedule.batch", self.batch, 2, 1e6)
        require_range("schedule.warmup", self.warmup, 0, 1e9)
        require_range("schedule.policy-until", self.policy_until, 0, 1)
        for name in ("policy_every", "log_every", "evaluate_every", "checkpoint_every"):
            require_range(f"schedule.{name.replace('_', '-')}", getattr(self, name), 1, 1e9)
        require_range("schedule.max-minutes", self.max_minutes, 0, 1e6)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Learn which corruption makes the best positive pairs."""

    seed: int = 0
    """Seed of everything drawn in the run: initial weights, batches, actions, codes."""
    name: str = ""
    """Folder of the run under --runs; made from data, reward and seed where empty."""
    runs: Path = Path("runs")
    """Where run folders are kept."""
    algorithm: Literal["reinforce", "a2c", "ppo"] = "reinforce"
    """Who trains the policy: this project's REINFORCE, or Stable-Baselines3's A2C or PPO, unmodified, with a critic of
    their own (baseline, scaling, entropy weight and mask-ratio guard are REINFORCE's alone)."""
    generator: str = "auto"
    """The frozen decorruptor. auto: the CAMNet shipped for these images. A name in camnet/weights, or the path of a
    .safetensors file: that CAMNet. erase, mean, blur, noise: a plain fill in place of a generator, as a control.
    package.module:factory: your own (docs/bring-your-own.md)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where everything lives; auto takes the GPU where there is one."""
    data: DataConfig = field(default_factory=DataConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        """Check what involves several parts."""
        require_range("seed", self.seed, 0, 2**31)
        if {"/", "\\"} & set(self.name) or self.name in (".", ".."):
            raise ValueError(f"--name must be the plain name of a folder below --runs, got {self.name!r}")
        if self.data.size % self.policy.grid:
            raise ValueError(
                f"--policy.grid {self.policy.grid} does not divide images of {self.data.size} x {self.data.size} "
                "pixels into whole cells"
            )
        if not self.policy.learns and self.reward.name != "none":
            raise ValueError(f"--policy {self.policy.name} has nothing to learn from a reward: add --reward none")
        if self.policy.estimator != "reinforce":
            self.reward.require_comparable(f"--policy.estimator {self.policy.estimator}")
            if self.reward.baseline != "auto":
                raise ValueError(
                    f"--policy.estimator {self.policy.estimator} compares two corruptions of an image with one "
                    f"another and takes no --reward.baseline, got {self.reward.baseline}"
                )
        if self.algorithm != "reinforce":
            self._require_plain_policy()

    def _require_plain_policy(self) -> None:
        """Refuse what Stable-Baselines3's algorithms would silently leave out."""
        policy, reward = self.policy, self.reward
        if (policy.name, policy.mask, policy.estimator) != ("learned", "cells", "reinforce"):
            raise ValueError(
                f"--algorithm {self.algorithm} trains --policy learned with --policy.mask cells and no other estimator"
            )
        if reward.shared:
            raise ValueError(
                f"--algorithm {self.algorithm} centers rewards within the batch, and here one reward pays all of it "
                f"(--reward {reward.name}, --reward.credit {reward.credit}): nothing would be left to learn from"
            )
        if reward.name == "none" or reward.baseline != "auto":
            raise ValueError(
                f"--algorithm {self.algorithm} needs a reward and brings its own critic: "
                "choose a --reward and leave --reward.baseline out"
            )

    @property
    def run_name(self) -> str:
        """The run's folder name: --name, or data, reward and seed."""
        return self.name or f"{self.data.name}-{self.reward.name}-seed{self.seed}"
