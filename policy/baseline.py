"""What a reward is compared with before REINFORCE uses it: `--reward.baseline`.

r holds the rewards of k corruptions of n images (k = 1 unless corruptions are compared); a baseline answers with a
tensor that broadcasts to the rewards that are scored. It leaves REINFORCE's estimate unbiased where it does not depend
on the action at hand. Nothing here waits for the device.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policy.critic import Critic
from policy.scaling import MovingAverage, RunningScale
from training.descent import Descent

CRITIC_STEP = 1e-3
"""Adam's step size for the critic."""
CRITIC_CLIP = 1.0
"""Largest norm of the critic's gradient: a rare reward must not throw it."""


@runtime_checkable
class Baseline(Protocol):
    """What rewards are compared with; one with a memory keeps it in checkpoints."""

    def value(
        self, r: Float[Tensor, "k n"], x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "#k #n"]:
        """Give the baseline of this batch, then learn from the batch (for the next one).

        Args:
            r: Rewards of each image's corruptions.
            x: The images, in [0, 1].
            rows: Which training images they are; no row twice.

        Returns:
            The baseline, without gradient.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        return


class Nothing(Baseline):
    """Zero."""

    def value(
        self, r: Float[Tensor, "k n"], x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "#k #n"]:
        """Zero."""
        return r.new_zeros(1, 1)


class BatchMean(Baseline):
    """The batch's mean reward. It includes an image's own, which shrinks the gradient to (n - 1) / n of itself."""

    def value(
        self, r: Float[Tensor, "k n"], x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "#k #n"]:
        """Average over the batch."""
        return r.detach().mean().view(1, 1)


class PastMean(Baseline):
    """A moving average of the mean rewards of past batches; 0 before the first.

    Args:
        momentum: Decay, in [0, 1).
        device: Where rewards live.
    """

    def __init__(self, momentum: float, device: torch.device) -> None:
        self.average = MovingAverage.start(momentum, device)

    def value(
        self, r: Float[Tensor, "k n"], x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "#k #n"]:
        """The average as it was before this batch."""
        past = self.average.value
        self.average.update(r.mean())
        return past.view(1, 1)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.average.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.average.load_state_dict(state)


class Table(Baseline):
    """A moving average for each training image, of its own past rewards; the average of all for one not seen yet.

    Args:
        images: Training images.
        momentum: Decay, in [0, 1): of an image's average at each visit, of the average of all at each batch.
        device: Where rewards live.
    """

    def __init__(self, images: int, momentum: float, device: torch.device) -> None:
        self.momentum = momentum
        self.total = torch.zeros(images, device=device)
        self.weight = torch.zeros(images, device=device)
        self.overall = MovingAverage.start(momentum, device)

    def value(
        self, r: Float[Tensor, "k n"], x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "#k #n"]:
        """Each image's average as it was before this batch."""
        total, weight = self.total[rows], self.weight[rows]
        past = torch.where(weight > 0, total / weight.clamp(min=1e-12), self.overall.value)
        present = r.detach().mean(dim=0)
        known = present.isfinite()
        self.total[rows] = torch.where(known, self.momentum * total + (1 - self.momentum) * present.to(total), total)
        self.weight[rows] = torch.where(known, self.momentum * weight + (1 - self.momentum), weight)
        self.overall.update(present.mean())
        return past[None]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"total": self.total, "weight": self.weight, "overall": self.overall.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.total.copy_(state["total"])
        self.weight.copy_(state["weight"])
        self.overall.load_state_dict(state["overall"])


class Guess(Baseline):
    """A critic's guess from the image, V(x), made before the critic sees the reward it is compared with.

        b = m + s V(x),  then one step on mean( ((r - m') / s' - V(x))² )

    m and s are running mean and spread of the rewards, m' and s' the same with this batch: the critic's own numbers
    are then near 1, whatever the reward's unit.

    Args:
        critic: Images to n numbers; already on the rewards' device.
        momentum: Decay of m and s, in [0, 1).
        device: Where rewards live.
    """

    def __init__(self, critic: Critic, momentum: float, device: torch.device) -> None:
        self.critic = critic
        self.descent = Descent(critic, CRITIC_STEP, clip=CRITIC_CLIP)
        self.center = MovingAverage.start(momentum, device)
        self.spread = RunningScale.start(momentum, device)

    def value(
        self, r: Float[Tensor, "k n"], x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "#k #n"]:
        """The guess; the critic then takes its step."""
        guess = self.critic(x)
        value = self.center.value + self.spread.rms * guess.detach()
        present = r.detach().mean(dim=0)
        self.center.update(present.mean())
        self.descent.step((self.spread(present - self.center.value) - guess).square().mean())
        return value[None]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        """Everything that a batch changes."""
        return {"critic": self.critic, "descent": self.descent, "center": self.center, "spread": self.spread}


class LeaveOneOut(Baseline):
    """The mean reward of the other corruptions of the same image.

        b_i = (sum_j r_j - r_i) / (k - 1)

    Unbiased: corruptions of an image are drawn independently, so b_i knows nothing of corruption i.

    Source: Kool, van Hoof and Welling 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!".
    """

    def value(
        self, r: Float[Tensor, "k n"], x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "#k #n"]:
        """Average over the others.

        Raises:
            ValueError: If there are no others.
        """
        if len(r) < 2:
            raise ValueError("leave-one-out compares at least two corruptions of an image, got one")
        return (r.sum(dim=0) - r).detach() / (len(r) - 1)


class Greedy(Baseline):
    """The reward of the image's most probable corruption, second of two; only the first is scored.

    Source: Rennie et al. 2017, "Self-Critical Sequence Training for Image Captioning".
    """

    def value(
        self, r: Float[Tensor, "k n"], x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "#k #n"]:
        """The second corruption's reward.

        Raises:
            ValueError: If there are not exactly two.
        """
        if len(r) != 2:
            raise ValueError(f"greedy compares a drawn corruption with the most probable one, got {len(r)}")
        return r[1:].detach()
