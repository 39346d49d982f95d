"""Gradient steps: the only place that knows backward, clipping, skipping and AdamW."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import UsageError
from training.ranks import Ranks


class Descent:
    """AdamW on one module.

    A step whose gradient is not finite changes nothing and is counted, without waiting for the device.

    Args:
        module: What is trained.
        learning_rate: Step size at a share of 1.
        weight_decay: AdamW's.
        clip: Largest norm of a gradient.
        ranks: The processes that train the module together: all step down the mean of their gradients.
        betas: Adam's decays of the first and second moments.

    Attributes:
        skipped: How many steps were left out, 0-d, on the device.
        in_a_row: Length of the current run of skipped steps; not saved.
    """

    def __init__(
        self,
        module: nn.Module,
        learning_rate: float,
        weight_decay: float = 0.0,
        clip: float = 1e6,
        ranks: Ranks | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.parameters = list(module.parameters())
        self.ranks = ranks or Ranks.single()
        self.learning_rate, self.clip = learning_rate, clip
        # fused: one kernel, and the only one that can be told on the device to leave a step out (found_inf below).
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True
        )
        self.skipped = torch.zeros((), device=self.parameters[0].device)
        self.in_a_row = torch.zeros_like(self.skipped)

    def step(self, loss: Tensor, share: float = 1.0) -> Tensor:
        """Take one step down the loss.

        Args:
            loss: What to minimize, 0-d.
            share: Step size as a share of the learning rate.

        Returns:
            The gradient's norm before clipping, 0-d, on the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = share * self.learning_rate
        self.optimizer.zero_grad()
        loss.backward()
        # Before the norm is taken, so that all ranks clip and skip alike.
        self.ranks.average(p.grad for p in self.parameters if p.grad is not None)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        unusable = (~torch.isfinite(norm)).float()
        self.skipped = self.skipped + unusable
        self.in_a_row = (self.in_a_row + 1) * unusable
        # The attributes by which GradScaler tells a fused optimizer to skip.
        self.optimizer.grad_scale, self.optimizer.found_inf = None, unusable  # type: ignore[attr-defined]
        self.optimizer.step()
        return norm

    def precondition(self, gradient: Sequence[Tensor]) -> Sequence[Tensor]:
        """Apply Adam's diagonal to a gradient: P g, P = 1 / (sqrt(v̂) + ε) with the second moments of the steps so far.

        Before the first step, returns the gradient unchanged.

        Args:
            gradient: For the module's parameters, or for the first of them.
        """
        if not self.optimizer.state:
            return gradient
        group = self.optimizer.param_groups[0]
        scaled = []
        for parameter, g in zip(self.parameters, gradient, strict=False):
            state = self.optimizer.state[parameter]
            correction = 1 - group["betas"][1] ** state["step"]
            scaled.append(g / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"]))
        return scaled

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"optimizer": self.optimizer.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            UsageError: If its moments are those of other parameters, or of the same in another order.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in self.optimizer.state.items():
            if moments["exp_avg"].shape != parameter.shape:
                raise UsageError(
                    "the checkpoint's optimizer does not fit the network: an older version made it, whose parameters "
                    "came in another order. Begin again under another name, or go on with the version that made it"
                )
        # Checkpoints are contiguous, but fused AdamW wants moments that lie like their parameters (channels_last).
        for parameter, moments in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name] = torch.empty_like(parameter).copy_(moments[name])
        self.skipped = state["skipped"].to(self.skipped)
