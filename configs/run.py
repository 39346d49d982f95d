"""What run_rl.py is told. Every field is a flag: `policy.mask_ratio` is `--policy.mask-ratio`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from configs.checks import require_range
from configs.data import DataConfig


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Who corrupts, and how boldly."""

    name: Annotated[Literal["learned", "fixed"], arg(aliases=["--policy"])] = "learned"
    """learned: the mask network, trained by REINFORCE. fixed: independent draws from the three rates below, for
    every image alike (all rates 0: no corruption)."""
    grid: int = 4
    """The mask hides whole cells of a grid x grid partition of the image. Cells must be at least 4 pixels wide."""
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

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.grid not in (1, 2, 4, 8):
            raise ValueError(f"--policy.grid must be 1, 2, 4 or 8, got {self.grid}")
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

    name: Annotated[Literal["loss-slope", "adversarial", "cooperative", "none"], arg(aliases=["--reward"])] = (
        "loss-slope"
    )
    """loss-slope: moving average of the negative derivative of the contrastive loss. adversarial: the loss itself
    (hold the mask ratio, or it hides everything). cooperative: its negative. none: the policy stays as it starts."""
    measured_on: Literal["reference", "training"] = "reference"
    """loss-slope only. reference: the loss of held-out pairs that the policy cannot touch. training: the loss of the
    policy's own pairs, the literal reading, which pays for easy pairs (README says why)."""
    credit: Literal["image", "batch"] = "image"
    """image: each image is paid its own share of the slope. batch: one number for all of the batch."""
    baseline: Literal["auto", "batch", "ema", "none"] = "auto"
    """Subtracted from the reward: the batch's mean, a moving average, or nothing. auto: batch with credit image,
    ema with credit batch (one shared reward minus its own mean leaves exactly nothing)."""
    momentum: float = 0.9
    """Decay of the moving averages: of the literal reward, the ema baseline and the curves. In [0, 1)."""
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)

    def __post_init__(self) -> None:
        """Check the bounds and refuse combinations that cannot learn."""
        require_range("reward.momentum", self.momentum, 0, 0.9999)
        if self.credit == "batch" and self.baseline == "batch":
            raise ValueError(
                "--reward.credit batch with --reward.baseline batch has an exactly zero gradient: "
                "every image's reward equals the batch's mean. Use --reward.baseline ema (or none)"
            )

    @property
    def baseline_kind(self) -> Literal["batch", "ema", "none"]:
        """The baseline in force, `auto` resolved."""
        if self.baseline == "auto":
            return "batch" if self.credit == "image" else "ema"
        return self.baseline


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
        cell = self.data.size // self.policy.grid
        if cell < 4:
            raise ValueError(
                f"--policy.grid {self.policy.grid} makes cells of {cell} pixels on images of {self.data.size}: a cell "
                f"must hold a whole 4 x 4 block, so that downsampling by 4 never mixes hidden with visible pixels. "
                f"Use --policy.grid {self.data.size // 4} or less"
            )
        if self.policy.name == "fixed" and self.reward.name != "none":
            raise ValueError("--policy fixed has nothing to learn from a reward: add --reward none")

    @property
    def run_name(self) -> str:
        """The run's folder name: --name, or data, reward and seed."""
        return self.name or f"{self.data.name}-{self.reward.name}-seed{self.seed}"
