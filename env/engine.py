"""The learner's turn: one step on the pairs, and what each image is paid for it.

Generator and learner come as arguments. run_rl.py drives this engine; any other face of the environment drives the
same one.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from env.reference import Reference
from env.rewards import Moment, Reward, Weights, finite
from training.descent import Descent
from training.stopwatch import Stopwatch

PairLoss = Callable[[Tensor, Tensor], Tensor]
"""Per-image contrastive loss (n) of two views' unit vectors (n, d)."""
HeldOutLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Loss (0-d) of the learner on reference examples (both parts)."""


class Engine:
    """Takes the learner's steps and measures around them.

    Args:
        learner: Encoder and projector; unit vectors out.
        descent: Its optimizer.
        contrast: The contrastive loss, image by image.
        reference: Held-out examples that the policy cannot touch.
        held_out: The loss on them, in evaluation mode.
        reward: What the policy is paid; None pays nothing.
    """

    def __init__(
        self,
        learner: nn.Module,
        descent: Descent,
        contrast: PairLoss,
        reference: Reference,
        held_out: HeldOutLoss,
        reward: Reward | None,
    ) -> None:
        self.learner, self.descent, self.contrast = learner, descent, contrast
        self.reference, self.held_out, self.reward = reference, held_out, reward

    def learn(
        self,
        v1: Float[Tensor, "n 3 h w"],
        v2: Float[Tensor, "n 3 h w"],
        step: int,
        share: float,
        *,
        rewarded: bool,
        watched: bool,
        watch: Stopwatch,
    ) -> tuple[Float[Tensor, " n"] | None, dict[str, Tensor]]:
        """Take one step on the mean contrastive loss of the pairs.

        Args:
            v1: First views.
            v2: Second views of the same images.
            step: Chooses the reference examples.
            share: Step size as a share of the learning rate.
            rewarded: Whether the policy has its turn too, and wants to be paid.
            watched: Whether to measure the reference loss and its slope for the curves as well.
            watch: Times the parts.

        Returns:
            One reward an image (None where none is due), and the step's figures by tag.
        """
        views = torch.cat([v1, v2])  # one call, so that both views share BatchNorm's statistics
        with watch("learner"):
            kept = [buffer.clone() for buffer in self.learner.buffers()]
            losses = self.contrast(*self.learner(views).chunk(2))
        with watch("reward"):
            moment = self._moment(views, losses.detach(), step)
            if rewarded and self.reward:
                self.reward.before(moment)
            level = moment.reference_loss().detach() if watched else None
        with watch("learner"):
            loss = losses.mean()
            figures = {"learner/loss": loss, "learner/grad_norm": self.descent.step(loss, share)}
            for buffer, before in zip(self.learner.buffers(), kept, strict=True):
                buffer.copy_(torch.where(loss.detach().isfinite(), buffer, before))  # BatchNorm's, of a skipped step
        with watch("reward"):
            r = finite(self.reward.after(moment)) if rewarded and self.reward else None
            if level is not None:
                after = moment.reference_loss().detach()
                figures |= {"reference/loss": after, "reference/slope": level - after}
        return r, figures

    def _moment(self, views: Tensor, losses: Tensor, step: int) -> Moment:
        """What the reward may ask of the learner around this step."""
        names, parameters = zip(*self.learner.named_parameters(), strict=True)

        def per_image(weights: Weights) -> Tensor:
            # Buffers are cloned: BatchNorm's running statistics must not see the measurement.
            buffers = {name: buffer.clone() for name, buffer in self.learner.named_buffers()}
            u = functional_call(self.learner, dict(zip(names, weights, strict=True)) | buffers, (views,))
            return self.contrast(*u.chunk(2))

        return Moment(
            losses=losses,
            per_image=per_image,
            reference_loss=lambda: self.held_out(self.learner, *self.reference.at(step)),
            weights=list(parameters),
            precondition=self.descent.precondition,
        )
