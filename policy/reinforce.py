"""REINFORCE: the policy's gradient from rewards alone, and what keeps it quiet and in range.

Symbols: r, reward of an image's action; b, baseline; A = r - b, advantage. Nothing here waits for the device.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def advantage(
    reward: Float[Tensor, " n"], baseline: float | Float[Tensor, ""] | Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Compute A = r - b, how much better each action was than expected.

    Unbiased for any b that does not depend on the image's own action. The batch's mean does, by 1/n: it
    shrinks the gradient to (n - 1) / n of its expectation, and to nothing where all images share one reward.

    Returns:
        Advantages, without gradient.
    """
    return (reward - baseline).detach()


def reinforce_loss(log_prob: Float[Tensor, " n"], advantage: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Compute the loss whose gradient is minus REINFORCE's estimate of the expected reward's gradient.

        loss = -mean( A log π(a | x) )

    The minus is the one change of sign: rewards are maximized, losses minimized. The value itself means
    nothing.

    Source: Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning".

    Args:
        log_prob: Log-probability of each image's whole action, in nats.
        advantage: Carries no gradient into the loss.
    """
    return -(log_prob * advantage.detach()).mean()


def ratio_penalty(expected_ratio: Float[Tensor, " n"], low: float, high: float) -> Float[Tensor, " n"]:
    """Compute each image's squared distance from its expected mask ratio to the allowed range.

    On the expectation, not on the drawn mask: it is differentiable, so the guard acts directly and without
    the noise of sampling, where a penalty in the reward would have to be discovered by REINFORCE.

    Args:
        expected_ratio: Expected share of hidden cells, in [0, 1].
        low: Lower end of the range.
        high: Upper end; equal to `low` it holds one ratio.

    Returns:
        Penalties to add to the loss; 0 inside the range.
    """
    return (expected_ratio - expected_ratio.clamp(low, high)).square()


@dataclass
class MovingAverage:
    """Exponential moving average of a number, corrected for its start at zero; 0 before the first update.

        m_t = β m_{t-1} + (1 - β) x_t,  w_t = β w_{t-1} + (1 - β),  value = m_t / w_t

    Source: Kingma and Ba 2015 (Adam), section 3, for the correction.

    Attributes:
        momentum: β in [0, 1); 0 keeps the last value alone.
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
        """Take in the next number."""
        self.total = self.momentum * self.total + (1 - self.momentum) * x.detach()
        self.weight = self.momentum * self.weight + (1 - self.momentum)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
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

    def update(self, advantage: Float[Tensor, " n"]) -> None:
        """Take in a batch of advantages (rewards already centered)."""
        self.squares.update(advantage.detach().square().mean())

    def scale(self, advantage: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Divide by the running root mean square; update first."""
        return advantage / (self.rms + self.epsilon)

    def __call__(self, advantage: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Take in a batch of advantages and scale it."""
        self.update(advantage)
        return self.scale(advantage)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return self.squares.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.squares.load_state_dict(state)
