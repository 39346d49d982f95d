"""Rewards and advantages in one unit, whatever the reward: what the policy's step size and weights are measured in.

Nothing here waits for the device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

LOW, HIGH = 0.2, 0.8
"""The quantiles of past rewards that become -1 and 1."""
REMEMBERED = 4096
"""Rewards whose quantiles are taken: those of the last 32 batches of 128."""


@dataclass
class MovingAverage:
    """Exponential moving average of a number, corrected for its start at zero; 0 before the first update.

        m_t = β m_{t-1} + (1 - β) x_t,  w_t = β w_{t-1} + (1 - β),  value = m_t / w_t

    Source: Kingma and Ba 2015 (Adam), section 3, for the correction.

    Attributes:
        momentum: β in [0, 1); 0 keeps only the last value.
        total: m.
        weight: w.
    """

    momentum: float
    total: Float[Tensor, ""]
    weight: Float[Tensor, ""]

    @classmethod
    def start(cls, momentum: float, device: torch.device) -> "MovingAverage":
        """An average of nothing yet."""
        return cls(momentum, torch.zeros((), device=device), torch.zeros((), device=device))

    @property
    def value(self) -> Float[Tensor, ""]:
        """The average, without gradient."""
        return self.total / self.weight.clamp(min=1e-12)

    def update(self, x: Float[Tensor, ""]) -> None:
        """Take in the next number; one that is not finite changes nothing."""
        known, x = x.isfinite(), x.detach()
        self.total = torch.where(known, self.momentum * self.total + (1 - self.momentum) * x, self.total)
        self.weight = torch.where(known, self.momentum * self.weight + (1 - self.momentum), self.weight)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint, on this average's device."""
        self.total, self.weight = state["total"].to(self.total), state["weight"].to(self.weight)


@dataclass
class RunningScale:
    """The running root mean square of advantages: step size and weights then mean the same for every reward.

    Attributes:
        squares: Moving average of the mean square.
        epsilon: Smallest scale: below it, advantages are taken for rounding and fade out.
    """

    squares: MovingAverage
    epsilon: float = 1e-8

    @classmethod
    def start(cls, momentum: float, device: torch.device) -> "RunningScale":
        """A scale that has seen nothing yet."""
        return cls(MovingAverage.start(momentum, device))

    @property
    def rms(self) -> Float[Tensor, ""]:
        """The running root mean square; 0 before the first update."""
        return self.squares.value.sqrt()

    def update(self, advantage: Float[Tensor, "*s"]) -> None:
        """Take in a batch of advantages (rewards already centered)."""
        self.squares.update(advantage.detach().square().mean())

    def scale(self, advantage: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Divide by the running root mean square; update first."""
        return advantage / (self.rms + self.epsilon)

    def __call__(self, advantage: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Take in a batch of advantages and scale it."""
        self.update(advantage)
        return self.scale(advantage)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return self.squares.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.squares.load_state_dict(state)


class Quantiles:
    """Rewards by their place among the latest ones: the 20 % quantile becomes -1, the 80 % quantile 1, cut there.

        clip( 2 (r - q20) / (q80 - q20) - 1, -1, 1 )

    Written around the middle of the two, so that a reward that never changes becomes 0.

    Source: Graves et al. 2017, "Automated Curriculum Learning for Neural Networks". There the quantiles are those of
    a reservoir, a sample of all rewards since the start; here those of the latest ones, since the rewards of learning
    progress shrink as the learner learns.

    Attributes:
        seen: The latest rewards, oldest first; at most `REMEMBERED`.
        epsilon: Smallest half distance of the quantiles: below it, differences are taken for rounding and fade out.
    """

    epsilon = 1e-8

    def __init__(self, device: torch.device) -> None:
        self.seen: Float[Tensor, " m"] = torch.zeros(0, device=device)

    def __call__(self, reward: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Take in a batch of rewards and map it to [-1, 1]; no gradient."""
        # How many there are follows from shapes, which the host knows: no waiting for the device.
        self.seen = torch.cat([self.seen, reward.detach().flatten()])[-REMEMBERED:]
        low, high = self.seen.nanquantile(LOW), self.seen.nanquantile(HIGH)  # NaN: a reward that nobody knows
        middle, half = (low + high) / 2, (high - low) / 2
        return ((reward.detach() - middle) / (half + self.epsilon)).clamp(-1, 1)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint, on this object's device."""
        self.seen = state["seen"].to(self.seen)


class Scaling:
    """`--reward.scaling`: quantiles act on rewards, before the baseline; the root mean square on advantages, after it.

    Args:
        kind: Which of the two, if any.
        momentum: Decay of the running root mean square, in [0, 1).
        device: Where rewards live.
    """

    def __init__(self, kind: Literal["rms", "quantiles", "none"], momentum: float, device: torch.device) -> None:
        self.quantiles = Quantiles(device) if kind == "quantiles" else None
        self.rms = RunningScale.start(momentum, device) if kind == "rms" else None

    def rewards(self, r: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        """Scale rewards; no gradient."""
        return r.detach() if self.quantiles is None else self.quantiles(r)

    def advantages(self, A: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Scale what is left after the comparison."""
        return A if self.rms is None else self.rms(A)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        parts = {"quantiles": self.quantiles, "rms": self.rms}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        if self.quantiles is not None:
            self.quantiles.load_state_dict(state["quantiles"])
        if self.rms is not None:
            self.rms.load_state_dict(state["rms"])
