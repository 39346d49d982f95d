"""π(a | x): the distribution of corruptions that a policy gives for each image, and the one with fixed rates.

Independent parts: a Bernoulli bit for each cell of the mask, a category for the downsampling factor, a bit
for decolorization. Written out, since torch.distributions validates arguments at every call (slow, and it
breaks export).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from env.corruption import Action


@dataclass(frozen=True)
class CorruptionDistribution:
    """Independent corruptions for n images.

    Certain outcomes (logits of ±inf) are allowed and exact: the other outcome is never drawn, has
    log-probability -inf, and adds no entropy. Gradients want finite logits.

    Attributes:
        mask_logits: Log-odds of hiding each cell (1 = hidden).
        downsample_logits: Unnormalized log-probabilities of `env.corruption.FACTORS`.
        decolorize_logits: Log-odds of deleting color.
    """

    mask_logits: Float[Tensor, "n g g"]
    downsample_logits: Float[Tensor, "n k"]
    decolorize_logits: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.mask_logits)

    def sample(self, generator: torch.Generator) -> Action:
        """Draw one action an image. The generator must live on the logits' device; no gradient."""
        return Action(
            mask=_draw_bits(self.mask_logits, generator),
            # Gumbel's maximum: adding noise to the logits cannot pick a category of probability 0, which the
            # rounding of a cumulative sum could.
            downsample=(self.downsample_logits.detach() + _gumbel(self.downsample_logits, generator)).argmax(dim=1),
            decolorize=_draw_bits(self.decolorize_logits, generator),
        )

    def mode(self) -> Action:
        """The most probable action of each image; a bit of probability 1/2 deletes nothing."""
        return Action(
            mask=self.mask_logits > 0,
            downsample=self.downsample_logits.argmax(dim=1),
            decolorize=self.decolorize_logits > 0,
        )

    def log_prob(self, action: Action) -> Float[Tensor, " n"]:
        """The joint log-probability of each image's whole action, in nats: log π(a | x).

        The sum over the mask's bits, the downsampling factor and the decolorization; differentiable in the
        logits.
        """
        factor = F.log_softmax(self.downsample_logits, dim=1).gather(1, action.downsample[:, None]).squeeze(1)
        mask = _bit_log_prob(self.mask_logits, action.mask).sum(dim=(1, 2))
        return mask + factor + _bit_log_prob(self.decolorize_logits, action.decolorize)

    def entropy(self) -> Float[Tensor, " n"]:
        """Entropy of each image's action in nats, the sum over its independent parts; differentiable."""
        factor = torch.special.entr(self.downsample_logits.softmax(dim=1)).sum(dim=1)
        return _bit_entropy(self.mask_logits).sum(dim=(1, 2)) + factor + _bit_entropy(self.decolorize_logits)

    def mask_ratio(self) -> Float[Tensor, " n"]:
        """Expected share of hidden cells of each image, in [0, 1]; differentiable."""
        return self.mask_logits.sigmoid().mean(dim=(1, 2))

    def probabilities(self) -> dict[str, Tensor]:
        """All rates: `mask` (n, g, g), `downsample` (n, 3) over `FACTORS` (1, 2, 4), `decolorize` (n)."""
        return {
            "mask": self.mask_logits.sigmoid(),
            "downsample": self.downsample_logits.softmax(dim=1),
            "decolorize": self.decolorize_logits.sigmoid(),
        }


def fixed_rates(
    n: int,
    grid: int,
    mask_ratio: float,
    decolorize: float,
    downsample: tuple[float, float],
    device: torch.device,
) -> CorruptionDistribution:
    """Give n images the same rates; 0 and 1 mean never and always, exactly.

    Args:
        n: Images.
        grid: Cells a side.
        mask_ratio: Probability that a cell is hidden, in [0, 1].
        decolorize: Probability of deleting color, in [0, 1].
        downsample: Probabilities of downsampling by 2 and by 4; together at most 1.
        device: Where the distribution lives.
    """
    # Filled on the device: a tensor made from a Python list would be copied to it, and waited for.
    factors = (1 - sum(downsample), *downsample)
    columns = [torch.full((n,), log(p), device=device) for p in factors]
    return CorruptionDistribution(
        mask_logits=torch.full((n, grid, grid), logit(mask_ratio), device=device),
        downsample_logits=torch.stack(columns, dim=1),
        decolorize_logits=torch.full((n,), logit(decolorize), device=device),
    )


def log(p: float) -> float:
    """Natural logarithm of a probability; -inf at 0, and below it where 1 - p2 - p4 was rounded."""
    return math.log(p) if p > 0 else -math.inf


def logit(p: float) -> float:
    """Log-odds of a probability in [0, 1]; ±inf at the ends."""
    return log(p) - log(1 - p)


def _draw_bits(logits: Float[Tensor, "..."], generator: torch.Generator) -> Bool[Tensor, "..."]:
    """True with probability sigmoid(logits); the uniform draw lies in [0, 1), so 0 and 1 are exact."""
    return torch.rand(logits.shape, generator=generator, device=logits.device) < logits.sigmoid()


def _gumbel(like: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Standard Gumbel noise of the given shape, always finite."""
    uniform = torch.rand(like.shape, generator=generator, device=like.device)
    return -(-uniform.clamp(min=1e-30).log()).log()


def _bit_log_prob(logits: Float[Tensor, "*s"], bit: Bool[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Log-probability of each bit. Flips the sign, never multiplies by the bit: 0 times infinity is NaN."""
    return F.logsigmoid(torch.where(bit, logits, -logits))


def _bit_entropy(logits: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Entropy of each bit in nats; entr(p) = -p log p knows that it is 0 at p = 0."""
    return torch.special.entr(logits.sigmoid()) + torch.special.entr((-logits).sigmoid())
