"""What run_rl.py is told. Every field is a flag: `policy.mask_ratio` is `--policy.mask-ratio`."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from configs.augment import AugmentConfig
from configs.checks import require_range
from configs.contrastive import ContrastiveConfig
from configs.data import DataConfig
from configs.policy import PolicyConfig
from configs.reward import RewardConfig
from configs.views import ViewsConfig


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How long, and how often each part has its turn. Every interval is counted in learner steps."""

    steps: Annotated[int, arg(aliases=["--steps"])] = 400
    """Learner steps in all. A finished run goes on when this is raised."""
    batch: int = 128
    """Images per step; the learner sees two views of each."""
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
    """Folder of the run under --runs. Empty: made from data, reward, seed and what else is chosen by name and not the
    default; runs that differ otherwise need names."""
    runs: Path = Path("runs")
    """Where run folders are kept."""
    algorithm: Literal["reinforce", "a2c", "ppo"] = "reinforce"
    """Who trains the policy: this project's REINFORCE, or Stable-Baselines3's A2C or PPO, unmodified, with a critic of
    their own (baseline, scaling, entropy weight and mask-ratio guard are only REINFORCE's)."""
    generator: str = "auto"
    """The frozen decorruptor. auto: the CAMNet shipped for the digits, or for photographs of --data.size (32, 64 or 96
    pixels). A name in camnet/weights, or the path of a .safetensors file: that CAMNet. erase, mean, blur, noise: a
    plain fill in place of a generator, as a control. package.module:factory: your own (docs/bring-your-own.md)."""
    amp: bool = False
    """Run a CAMNet in bfloat16: faster on a GPU, and on a CPU that knows it (docs/camnet.md has how exact it stays).
    The learner stays in float32 (its convolutions on a GPU in TF32): the reward is a small difference of its losses."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where everything lives; auto takes the GPU where there is one."""
    data: DataConfig = field(default_factory=DataConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
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
            self._require_estimable()
        if (self.views.name == "policy") != (self.policy.name == "latent") and self.views.name != "auto":
            raise ValueError(
                "--policy latent and --views policy belong together: its codes are the views. "
                "Give both (or --policy latent alone)"
            )
        if self.algorithm != "reinforce":
            self._require_plain_policy()

    @property
    def augment_strength(self) -> float:
        """The augmentation's dial, `auto` resolved.

        Wang et al. 2024 (AdaInf): beside generated images, full strength hurt on CIFAR-10, half of it helped.
        """
        if self.augment.strength != "auto":
            return float(self.augment.strength)
        if self.data.name == "digits":
            return 0.0
        return 1.0 if self.policy.name == "none" else 0.5

    @property
    def cautions(self) -> list[str]:
        """What to know before such a run begins, sentence by sentence."""
        said = [self.reward.caution] if self.reward.caution else []
        unheard = self._unheard()
        if unheard:
            said.append(
                f"--algorithm {self.algorithm} has no entropy bonus, no guard of the mask ratio, and a scaling of its "
                f"own: {', '.join(unheard)} changes nothing"
            )
        if self.contrastive.encoder == "small" and self.data.size > 32:
            said.append(
                f"--contrastive.encoder small is meant for images up to 32 pixels, these have {self.data.size}; for "
                "larger ones take for example resnet18, which needs more time"
            )
        off = AugmentConfig(strength=self.augment.strength)
        asked = [field.name for field in fields(off) if getattr(self.augment, field.name) != getattr(off, field.name)]
        if asked and self.augment_strength == 0 and self.reward.reference.kind != "expert":
            said.append(
                f"--augment.{asked[0]} changes nothing at --augment.strength 0 (auto, on digits): the views are not "
                "augmented"
            )
        return said

    def _unheard(self) -> list[str]:
        """Flags that are set and that Stable-Baselines3's algorithms do not hear."""
        if self.algorithm == "reinforce":
            return []
        policy, plain = self.policy, PolicyConfig()
        names = ("entropy_weight", "ratio_range", "ratio_weight")
        found = [name.replace("_", "-") for name in names if getattr(policy, name) != getattr(plain, name)]
        scaling = ["--reward.scaling"] if self.reward.scaling != RewardConfig().scaling else []
        return [f"--policy.{name}" for name in found] + scaling

    def _require_estimable(self) -> None:
        """Refuse what the estimators that compare two corruptions of an image cannot work with."""
        policy, by = self.policy, f"--policy.estimator {self.policy.estimator}"
        if not policy.learns:
            raise ValueError(f"--policy {policy.name} has nothing to estimate a gradient for: leave {by} out")
        if policy.estimator == "evolution" and policy.perturbations > self.schedule.batch:
            raise ValueError(
                f"--policy.perturbations {policy.perturbations} needs at least as many images per step: raise "
                f"--schedule.batch {self.schedule.batch}, or try fewer"
            )
        self.reward.require_comparable(by)
        if self.reward.baseline != "auto":
            raise ValueError(
                f"{by} compares two corruptions of an image with one another and takes no --reward.baseline, "
                f"got {self.reward.baseline}"
            )

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
        """The run's folder name: --name, or data, reward, choices that are not the default, and seed."""
        if self.name:
            return self.name
        plain = {"learned", "reinforce", "auto", "ntxent", "small"}
        parts = (self.policy.name, self.algorithm, self.views.name, self.contrastive.loss, self.contrastive.encoder)
        chosen = [part for part in (*parts, Path(self.generator).stem) if part not in plain]
        return re.sub(r"[^\w.-]", "_", "-".join([self.data.name, self.reward.name, *chosen, f"seed{self.seed}"]))
