"""Estimators: from rewards of corruptions to a gradient of the policy, behind one interface."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from configs.policy import PolicyConfig
from configs.reward import RewardConfig
from env.corruption import Action
from env.distribution import CorruptionDistribution, Policy
from policy import baseline as baselines
from policy.critic import Critic
from policy.disarm import DisARM
from policy.evolution import Evolution
from policy.reinforce import advantage, reinforce_loss
from policy.scaling import Scaling
from training.seeding import seeded


@runtime_checkable
class Estimator(Protocol):
    """What a policy's turn consists of: look at images, draw corruptions, and learn from their rewards."""

    def look(self, x: Float[Tensor, "n 3 h w"], random: torch.Generator) -> CorruptionDistribution:
        """π(· | x), differentiable, for images in [0, 1]."""

    def draw(self, pi: CorruptionDistribution, random: torch.Generator) -> list[Action]:
        """Draw k corruptions of each image from what `look` returned; the learner learns from the first."""

    def loss(
        self,
        pi: CorruptionDistribution,
        a: Sequence[Action],
        r: Float[Tensor, "k n"],
        x: Float[Tensor, "n 3 h w"],
        rows: Int[Tensor, " n"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compute a loss to descend, and take the rewards into the running averages.

        Args:
            pi: What `look` returned.
            a: What `draw` returned.
            r: Rewards, one row per corruption.
            x: The images.
            rows: Which training images they are; no row twice.

        Returns:
            A loss whose gradient is minus the estimate of the expected reward's (its value means nothing), and
            figures for the curves.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; the policy is not in it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


class ScoreFunction:
    """REINFORCE with any baseline: A ∇ log π(a | x).

    Args:
        policy: Images to distributions.
        baseline: What rewards are compared with.
        scaling: Of rewards or advantages.
        samples: Corruptions of an image that are drawn and scored.
        greedy: Whether its most probable corruption follows them, only for comparison.
    """

    def __init__(
        self,
        policy: Policy,
        baseline: baselines.Baseline,
        scaling: Scaling,
        samples: int = 1,
        greedy: bool = False,
    ) -> None:
        self.policy, self.baseline, self.scaling = policy, baseline, scaling
        self.samples, self.greedy = samples, greedy

    def look(self, x: Float[Tensor, "n 3 h w"], random: torch.Generator) -> CorruptionDistribution:
        """π(· | x)."""
        return self.policy(x)

    def draw(self, pi: CorruptionDistribution, random: torch.Generator) -> list[Action]:
        """Draw each corruption by itself; no gradient."""
        drawn = [pi.sample(random) for _ in range(self.samples)]
        return [*drawn, pi.mode()] if self.greedy else drawn

    def loss(
        self,
        pi: CorruptionDistribution,
        a: Sequence[Action],
        r: Float[Tensor, "k n"],
        x: Float[Tensor, "n 3 h w"],
        rows: Int[Tensor, " n"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compute REINFORCE's loss, averaged over the scored corruptions, and the figures for the curves."""
        r = self.scaling.rewards(r)
        b = self.baseline.value(r, x, rows)
        A = self.scaling.advantages(advantage(r[: self.samples], b))
        log_prob = torch.stack([pi.log_prob(drawn) for drawn in a[: self.samples]])
        return reinforce_loss(log_prob, A.to(log_prob)), {"reward/advantage_std": A.std()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"baseline": self.baseline.state_dict(), "scaling": self.scaling.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.baseline.load_state_dict(state["baseline"])
        self.scaling.load_state_dict(state["scaling"])


def build(
    policy: Policy,
    config: PolicyConfig,
    reward: RewardConfig,
    *,
    images: int,
    image_size: int,
    device: torch.device,
    seed: int,
) -> Estimator:
    """Build the estimator that the settings name.

    Args:
        policy: What learns; on the device already.
        config: The policy's settings.
        reward: The reward's settings: baseline and scaling.
        images: Training images, for a baseline that remembers each.
        image_size: Their side in pixels, for a critic that looks at them.
        device: Where rewards live.
        seed: The run's, for a critic's first weights.
    """
    scaling = Scaling(reward.scaling, reward.momentum, device)
    match config.estimator:
        case "disarm":
            return DisARM(policy, scaling)
        case "evolution":
            assert isinstance(policy, nn.Module)  # its weights are what is perturbed
            return Evolution(policy, config.perturbations, config.sigma, scaling, config.clip_norm)
    greedy = reward.baseline_kind == "greedy"
    samples = 1 if greedy else reward.corruptions
    baseline = build_baseline(
        reward, width=config.width, images=images, image_size=image_size, device=device, seed=seed
    )
    return ScoreFunction(policy, baseline, scaling, samples, greedy)


def build_baseline(
    reward: RewardConfig, *, width: int, images: int, image_size: int, device: torch.device, seed: int
) -> baselines.Baseline:
    """Build the baseline that the settings name; arguments as for `build`, `width` that of a critic."""
    match reward.baseline_kind:
        case "none":
            return baselines.Nothing()
        case "ema":
            return baselines.PastMean(reward.momentum, device)
        case "batch":
            return baselines.BatchMean()
        case "critic":
            with seeded(seed, "critic"):
                critic = Critic(width, image_size).to(device)
            return baselines.Guess(critic, reward.momentum, device)
        case "table":
            return baselines.Table(images, reward.momentum, device)
        case "rloo":
            return baselines.LeaveOneOut()
        case "greedy":
            return baselines.Greedy()
