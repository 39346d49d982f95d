"""DisARM: the gradient from pairs of corruptions whose bits were drawn from one noise and its mirror image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from env.corruption import Action
from env.distribution import CorruptionDistribution, Policy
from env.masks.cells import Cells
from env.masks.gumbel import perturbed
from policy.reinforce import reinforce_loss
from policy.scaling import Scaling


class DisARM:
    """Two corruptions per image, as unlike one another as their probabilities allow.

    Source: Dong, Mnih and Tucker 2020, "DisARM: An Antithetic Gradient Estimator for Binary Latent Variables"
    (arXiv 2006.10680). The downsampling factor, which is not a bit, is drawn twice independently and takes the
    leave-one-out estimate.

    Args:
        policy: Images to distributions, masks drawn cell by cell.
        scaling: Of rewards, or of half their differences.
    """

    def __init__(self, policy: Policy, scaling: Scaling) -> None:
        self.policy, self.scaling = policy, scaling

    def look(self, x: Float[Tensor, "n 3 h w"], random: torch.Generator) -> CorruptionDistribution:
        """π(· | x)."""
        return self.policy(x)

    def draw(self, pi: CorruptionDistribution, random: torch.Generator) -> list[Action]:
        """Draw an antithetic pair of corruptions for each image; no gradient."""
        with torch.no_grad():
            masks = antithetic_bits(_cells(pi).logits, random)
            grays = antithetic_bits(pi.decolorize_logits, random)
            factors = [perturbed(pi.downsample_logits, random).argmax(dim=1) for _ in range(2)]
        return [Action(*parts) for parts in zip(masks, factors, grays, strict=True)]

    def loss(
        self,
        pi: CorruptionDistribution,
        a: Sequence[Action],
        r: Float[Tensor, "k n"],
        x: Float[Tensor, "n 3 h w"],
        rows: Int[Tensor, " n"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compute the loss whose gradient is minus DisARM's, and the figures for the curves."""
        r = self.scaling.rewards(r)
        A = self.scaling.advantages((r[0] - r[1]) / 2)
        return reinforce_loss(pair_score(pi, a[0], a[1]), A), {"reward/advantage_std": A.std()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"scaling": self.scaling.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.scaling.load_state_dict(state["scaling"])


def antithetic_bits(
    logits: Float[Tensor, "*s"], random: torch.Generator
) -> tuple[Bool[Tensor, "*s"], Bool[Tensor, "*s"]]:
    """Draw pairs of bits from one uniform u each: b = [u < p], b̃ = [1 - u <= p], both true with probability p.

    u lies in [0, 1), so p = 0 and p = 1 are exact in both. The two differ as often as they can: with probability
    2 min(p, 1 - p).
    """
    p = logits.sigmoid()
    u = torch.rand(p.shape, generator=random, device=p.device)
    return u < p, 1 - u <= p


def bit_score(
    logits: Float[Tensor, "*s"], bit: Bool[Tensor, "*s"], mirrored: Bool[Tensor, "*s"]
) -> Float[Tensor, "*s"]:
    """Compute what stands for the log-probability of a pair of bits: its gradient is (b - b̃) σ(|φ|).

    Times half the difference of the two rewards that is DisARM's estimate for the logit φ,

        1/2 (r - r̃) (-1)^b̃ 1[b ≠ b̃] σ(|φ|)

    Bits that came out alike say nothing.
    """
    difference = bit.to(logits.dtype) - mirrored.to(logits.dtype)
    return difference * logits.abs().sigmoid().detach() * logits


def pair_score(pi: CorruptionDistribution, a: Action, mirrored: Action) -> Float[Tensor, " n"]:
    """Sum over an action's parts: DisARM for its bits, log p(c) - log p(c̃) for its downsampling factor c."""
    mask = bit_score(_cells(pi).logits, a.mask, mirrored.mask).sum(dim=(1, 2))
    gray = bit_score(pi.decolorize_logits, a.decolorize, mirrored.decolorize)
    log_p = F.log_softmax(pi.downsample_logits, dim=1)
    factor = log_p.gather(1, a.downsample[:, None]) - log_p.gather(1, mirrored.downsample[:, None])
    return mask + gray + factor.squeeze(1)


def _cells(pi: CorruptionDistribution) -> Cells:
    """The law of masks, which must be one of independent bits."""
    if not isinstance(pi.mask, Cells) or pi.code is not None:
        raise ValueError(f"DisARM is for independent bits and no codes, got {type(pi.mask).__name__} masks")
    return pi.mask
