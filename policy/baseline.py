"""What a reward is compared with before REINFORCE uses it."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from policy.reinforce import MovingAverage


class Baseline:
    """The batch's mean reward, a moving average of past ones, or nothing.

    Args:
        kind: Which.
        momentum: Decay of the moving average.
        device: Where rewards live.
    """

    def __init__(self, kind: Literal["batch", "ema", "none"], momentum: float, device: torch.device) -> None:
        self.kind = kind
        self.average = MovingAverage.start(momentum, device)

    def value(self, reward: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """The baseline of this batch, then take the batch into the average (for the next one)."""
        past = self.average.value
        self.average.update(reward.mean())
        match self.kind:
            case "batch":
                return reward.mean()
            case "ema":
                return past
            case "none":
                return torch.zeros_like(past)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.average.load_state_dict(state)
