"""The learner's turn: one step on the pairs, and what each image is paid for it.

Generator and learner come as arguments. run_rl.py drives this engine; any other face of the environment drives the
same one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from env.credit import PerImageLoss, Weights
from env.reference import Reference
from env.rewards import Judged, Moment, Reward
from training.descent import Descent
from training.stopwatch import Stopwatch

ViewsLoss = Callable[[Tensor, Tensor], Tensor]
"""Per-image contrastive loss (n) of the unit vectors (k, n, d) of k views, and the images' rows (n)."""
HeldOutLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Loss (0-d) of the learner on reference examples (both parts)."""


@dataclass(frozen=True)
class Turn:
    """What is wanted of one turn of the learner.

    Attributes:
        share: Step size as a share of the learning rate.
        rewarded: Whether the policy has its turn too, and is to be paid.
        watched: Whether to measure the reference loss and its slope for the curves as well.
        watch: Times the parts.
    """

    share: float = 1.0
    rewarded: bool = True
    watched: bool = False
    watch: Stopwatch = field(default_factory=lambda: Stopwatch(torch.device("cpu")))


class Engine:
    """Takes the learner's steps and measures around them.

    Args:
        learner: Encoder and projector; unit vectors out.
        descent: Its optimizer.
        contrast: The contrastive loss, image by image.
        reference: Held-out examples that the policy cannot touch.
        held_out: The loss on them, in evaluation mode.
        reward: What the policy is paid; None pays nothing.
        accuracy: How well the learner does on labeled held-out images, for the one reward that asks.
    """

    def __init__(
        self,
        learner: nn.Module,
        descent: Descent,
        contrast: ViewsLoss,
        reference: Reference,
        held_out: HeldOutLoss,
        reward: Reward | None,
        accuracy: Callable[[], Tensor],
    ) -> None:
        self.learner, self.descent, self.contrast = learner, descent, contrast
        self.reference, self.held_out = reference, held_out
        self.reward, self.accuracy = reward, accuracy

    def learn(
        self, views: Sequence[Float[Tensor, "k n 3 h w"]], rows: Int[Tensor, " n"], step: int, turn: Turn
    ) -> tuple[Float[Tensor, "c n"] | None, dict[str, Tensor]]:
        """Take one step on the mean contrastive loss of the first views; pay for them and for all others.

        Args:
            views: k views of the same images, once for each of c corruptions that are compared. The learner learns from
                the first; the others are looked at as if it had.
            rows: Which training images they are.
            step: Chooses the reference examples.
            turn: What is wanted.

        Returns:
            One reward for each corruption and image (None where none is due; see `without_gaps`), and the step's
            figures by tag.
        """
        first, *others = views
        reward = self.reward if turn.rewarded else None
        with turn.watch("learner"):
            statistics = running_statistics(self.learner)
            before = [torch.empty_like(buffer) for buffer in statistics]
            copy_all(statistics, before)
            u = self._vectors(first)
            losses = self.contrast(u, rows)
        with turn.watch("reward"):
            moment = self._moment(first, losses.detach(), others if reward is not None else [], rows, step)
            if reward is not None:
                reward.before(moment)
            level = moment.reference_loss().detach() if turn.watched else None
        with turn.watch("learner"):
            loss = losses.mean()
            figures = {
                "learner/loss": loss,
                "learner/positive_similarity": positive_similarity(u.detach()),
                "learner/grad_norm": self.descent.step(loss, turn.share),
            }
            taken = loss.detach().isfinite()  # or the step was skipped, and must leave no trace
            copy_all([torch.where(taken, now, then) for now, then in zip(statistics, before, strict=True)], statistics)
        with turn.watch("reward"):
            r = without_gaps(reward.after(moment)) if reward is not None else None
            if level is not None:
                after = moment.reference_loss().detach()
                figures |= {"reference/loss": after, "reference/slope": level - after}
        return r, figures

    def _vectors(self, views: Float[Tensor, "k n 3 h w"]) -> Float[Tensor, "k n d"]:
        """The learner's unit vectors; one call, so that all views share BatchNorm's statistics."""
        return self.learner(views.flatten(0, 1)).unflatten(0, views.shape[:2])

    def _moment(
        self, first: Tensor, losses: Tensor, others: Sequence[Tensor], rows: Int[Tensor, " n"], step: int
    ) -> Moment:
        """What the reward may ask of the learner around this step."""
        names, parameters = zip(*self.learner.named_parameters(), strict=True)

        def losses_of(views: Tensor) -> PerImageLoss:
            def per_image(weights: Weights) -> Tensor:
                # Buffers are cloned: BatchNorm's running statistics must not see the measurement.
                buffers = {name: buffer.clone() for name, buffer in self.learner.named_buffers()}
                state = dict(zip(names, weights, strict=True)) | buffers
                u = functional_call(self.learner, state, (views.flatten(0, 1),))
                return self.contrast(u.unflatten(0, views.shape[:2]), rows)

            return per_image

        weights = list(parameters)
        with torch.no_grad():
            compared = [Judged(of(weights), of) for of in map(losses_of, others)]
        return Moment(
            judged=[Judged(losses, losses_of(first)), *compared],
            reference_loss=lambda: self.held_out(self.learner, *self.reference.at(step)),
            weights=weights,
            precondition=self.descent.precondition,
            accuracy=self.accuracy,
        )


def positive_similarity(u: Float[Tensor, "k n d"]) -> Float[Tensor, ""]:
    """Mean cosine similarity over all pairs of views of an image, and over images; unit vectors, k at least 2."""
    k = len(u)
    return ((u.sum(dim=0).square().sum(dim=-1) - k) / (k * (k - 1))).mean()


def running_statistics(module: nn.Module) -> list[Tensor]:
    """The buffers that a forward pass in training mode changes: those of BatchNorm and its kind."""
    norms = [part for part in module.modules() if getattr(part, "track_running_stats", False)]
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


def copy_all(source: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Copy tensors in a few launches, however many they are: a ResNet-50 has 159 statistics, a transformer none."""
    for dtype in {tensor.dtype for tensor in source}:  # BatchNorm counts in int64; a mixed list is copied one by one
        torch._foreach_copy_([t for t in into if t.dtype == dtype], [t for t in source if t.dtype == dtype])


def without_gaps(r: Float[Tensor, "c n"]) -> Float[Tensor, "c n"]:
    """Pay an image whose reward is not finite what the others get on average for the same corruption.

    So it neither gains nor loses, where 0 would be a reward like any other. If no reward of a corruption is finite, all
    of them become NaN: there is nothing to learn from, and `Descent` leaves out a step on them.
    """
    usable = r.isfinite()
    mean = r.where(usable, torch.nan).nanmean(dim=1, keepdim=True)
    return r.where(usable, mean)
