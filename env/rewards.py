"""Rewards: what the policy is paid for, image by image.

Symbols: φ, the learner's weights; ℓ_i, contrastive loss of image i; L_ref, the reference loss; P, the optimizer's
diagonal; η, its step size. Losses are minimized, rewards maximized. Nothing here waits for the device.
docs/rewards.md tells what to expect of each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from configs.reward import RewardConfig
from env.credit import PerImageLoss, Weights, bounded, credit_shares


def finite(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Zero what is not finite: one NaN must not stay in a moving average for good."""
    return torch.where(x.isfinite(), x, torch.zeros_like(x))


def literal_slope(loss: Float[Tensor, "*s"], average: Float[Tensor, ""], momentum: float) -> Float[Tensor, "*s"]:
    """The reward, read literally, on the training loss: R_t = β R_{t-1} + (1 - β)(L_{t-1} - L_t).

    Unrolled this is (1 - β)(EMA(L)_{t-1} - L_t), which is how it is computed: the policy is paid for pairs that are
    easier than they were recently.

    Args:
        loss: L_t, one number, or one for each image.
        average: EMA(L)_{t-1}, with EMA(L)_t = β EMA(L)_{t-1} + (1 - β) L_t and EMA(L)_0 = L_0.
        momentum: β.
    """
    return (1 - momentum) * (average - loss)


class Judged(NamedTuple):
    """One corruption of each image, as the learner sees it.

    Attributes:
        losses: ℓ_i at the current weights, without gradient.
        per_image: ℓ_i as a function of the weights, on the same pairs.
    """

    losses: Float[Tensor, " n"]
    per_image: PerImageLoss


@dataclass(frozen=True)
class Moment:
    """What a reward may ask of the learner in one step.

    Attributes:
        judged: The corruptions of the images; the learner's step is taken on the first, others are compared with it.
        reference_loss: L_ref at the current weights, whatever they are when called; differentiable.
        weights: The learner's parameters.
        precondition: P, applied to a gradient.
        accuracy: Share of labeled held-out images that the learner gets right, at the current weights.
    """

    judged: Sequence[Judged]
    reference_loss: Callable[[], Float[Tensor, ""]]
    weights: Weights
    precondition: Callable[[Weights], Weights]
    accuracy: Callable[[], Float[Tensor, ""]]

    @property
    def losses(self) -> Float[Tensor, "k n"]:
        """ℓ_i of every corruption."""
        return torch.stack([judged.losses for judged in self.judged])


@runtime_checkable
class Reward(Protocol):
    """Measures around the learner's step; returns one reward for each corruption and image."""

    def before(self, moment: Moment) -> None:
        """Measure before the learner's step."""

    def after(self, moment: Moment) -> Float[Tensor, "k n"]:
        """Measure after the learner's step; the rewards of the step's actions, without gradient."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


class Stateless:
    """A reward that remembers nothing between steps, and needs nothing before the step."""

    def before(self, moment: Moment) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


class ImageSlope:
    """loss-slope by the image: slope of the reference loss in nats per step, r_i = η <P EMA(∇L_ref), ∇ℓ_i>.

    The moving average sits on the reference's side: it takes noise away while every term stays the current action's.
    η is the learner's peak step size, whatever the schedule makes of it, so that the unit stays the same.
    """

    def __init__(self, weights: Weights, momentum: float, step_size: float) -> None:
        self.momentum, self.step_size = momentum, step_size
        self.gradient = [torch.zeros_like(w) for w in weights]
        self.weight = torch.zeros((), device=weights[0].device)  # of all that the average has seen, below 1 at first

    def before(self, moment: Moment) -> None:
        """Take in the reference gradient, then one directional derivative of all the per-image losses."""
        fresh = [finite(g) for g in torch.autograd.grad(moment.reference_loss(), moment.weights)]
        torch._foreach_lerp_(self.gradient, fresh, 1 - self.momentum)
        self.weight = torch.lerp(torch.ones_like(self.weight), self.weight, self.momentum)
        direction = bounded(moment.precondition([g / self.weight for g in self.gradient]))
        shares = [credit_shares(each.per_image, moment.weights, direction, each.losses) for each in moment.judged]
        self._shares = self.step_size * torch.stack(shares)

    def after(self, moment: Moment) -> Float[Tensor, "k n"]:
        """The shares."""
        return self._shares

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"gradient": self.gradient, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.gradient = [kept.to(zero) for kept, zero in zip(state["gradient"], self.gradient, strict=True)]
        self.weight = state["weight"].to(self.weight)


class BatchSlope(Stateless):
    """loss-slope by the batch: L_ref(φ_t) - L_ref(φ_{t+1}) on the same examples."""

    def before(self, moment: Moment) -> None:
        """The reference loss before the step."""
        with torch.no_grad():
            self._level = moment.reference_loss()

    def after(self, moment: Moment) -> Float[Tensor, "k n"]:
        """By how much the step lowered it."""
        with torch.no_grad():
            return (self._level - moment.reference_loss()).expand_as(moment.losses)


class LiteralSlope:
    """loss-slope, the literal reading: the moving average of the training loss's decrease (see `literal_slope`)."""

    def __init__(self, momentum: float, device: torch.device) -> None:
        self.momentum = momentum
        self.average = torch.full((), torch.nan, device=device)

    def before(self, moment: Moment) -> None:
        """Nothing: the training loss is known."""

    def after(self, moment: Moment) -> Float[Tensor, "k n"]:
        """How much easier these pairs were than recent ones."""
        mean = moment.losses[0].mean()
        average = torch.where(self.average.isnan(), mean, self.average)  # EMA(L)_0 = L_0
        self.average = torch.where(mean.isfinite(), torch.lerp(mean, average, self.momentum), self.average)
        return literal_slope(moment.losses, average, self.momentum)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.average = state["average"].to(self.average)


class ValidationLoss(Stateless):
    """val-loss: -L_ref(φ_{t+1}), the level of the held-out loss.

    Source: Pham and Le 2021 (AutoDropout), who pay one such number for a whole training; here it is paid each step.
    """

    def after(self, moment: Moment) -> Float[Tensor, "k n"]:
        """Minus the reference loss after the step."""
        with torch.no_grad():
            return (-moment.reference_loss()).expand_as(moment.losses)


class PredictionGain(Stateless):
    """prediction-gain: r_i = ℓ_i(φ_t) - ℓ_i(φ_{t+1}) on the very pairs that the step was taken on.

    Source: Graves et al. 2017, "Automated Curriculum Learning for Neural Networks", section 3.1.1 (there: one
    sample per step).
    """

    def after(self, moment: Moment) -> Float[Tensor, "k n"]:
        """By how much the step lowered each image's own loss."""
        with torch.no_grad():
            return moment.losses - moment.judged[0].per_image(moment.weights)


class Level(Stateless):
    """The loss itself: sign +1 pays for hard pairs (adversarial, as in ADIOS), -1 for easy ones (cooperative)."""

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def after(self, moment: Moment) -> Float[Tensor, "k n"]:
        """The signed loss of each image."""
        return self.sign * moment.losses


class Accuracy(Stateless):
    """knn: accuracy of the learner's features on labeled held-out images, after the step. Uses labels."""

    def after(self, moment: Moment) -> Float[Tensor, "k n"]:
        """The accuracy."""
        return moment.accuracy().expand_as(moment.losses)


class Shared:
    """One reward for all of the batch: the mean of another's."""

    def __init__(self, reward: Reward) -> None:
        self.reward = reward
        self.before, self.state_dict, self.load_state_dict = reward.before, reward.state_dict, reward.load_state_dict

    def after(self, moment: Moment) -> Float[Tensor, "k n"]:
        """The other's mean over the images, for each of them."""
        r = self.reward.after(moment)
        return r.mean(dim=1, keepdim=True).expand_as(r)


def build(config: RewardConfig, weights: Weights, step_size: float, device: torch.device) -> Reward | None:
    """The configured reward; None where the policy is to stay as it is.

    Args:
        config: Which.
        weights: The learner's parameters.
        step_size: Its peak step size.
        device: Where rewards live.
    """
    by_image: Reward
    match config.name, config.measured_on:
        case "none", _:
            return None
        case "val-loss", _:
            return ValidationLoss()
        case "knn", _:
            return Accuracy()
        case "prediction-gain", _:
            by_image = PredictionGain()
        case "adversarial", _:
            by_image = Level(+1.0)
        case "cooperative", _:
            by_image = Level(-1.0)
        case _, "training":
            by_image = LiteralSlope(config.momentum, device)
        case _ if config.credit == "batch":
            return BatchSlope()
        case _:
            return ImageSlope(weights, config.reference.momentum, step_size)
    return Shared(by_image) if config.credit == "batch" else by_image
