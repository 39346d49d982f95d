"""π(a | x): the distribution of corruptions that a policy gives for each image, and the one with fixed rates.

Independent parts: a law of masks (env/masks/), a category for the downsampling factor, a bit for decolorization, and,
where a policy proposes them, codes for the views. Written out, since torch.distributions validates arguments at every
call (slow, and it breaks export).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from env.codes import CodeLaw
from env.corruption import Action
from env.masks.cells import Cells, bit_entropy, bit_log_prob, draw_bits
from env.masks.gumbel import perturbed
from env.masks.law import LearnedMaskLaw, MaskDraw, MaskLaw


@dataclass(frozen=True)
class CorruptionDistribution:
    """Independent corruptions for n images.

    Certain outcomes (logits of ±inf) are allowed and exact: the other outcome is never drawn, has
    log-probability -inf, and adds no entropy. Gradients need finite logits.

    Attributes:
        mask: Law of the masks (1 = hidden). `mode`, `log_prob` and `entropy` need one that can be learned.
        downsample_logits: Unnormalized log-probabilities of the first three of `env.corruption.FACTORS`.
        decolorize_logits: Log-odds of deleting color.
        code: Law of proposed codes; None leaves them to the generator.
    """

    mask: MaskLaw
    downsample_logits: Float[Tensor, "n k"]
    decolorize_logits: Float[Tensor, " n"]
    code: CodeLaw | None = None

    @property
    def _mask(self) -> LearnedMaskLaw:
        return cast(LearnedMaskLaw, self.mask)

    def sample(self, generator: torch.Generator) -> Action:
        """Draw one action per image. The generator must live on the logits' device; no gradient."""
        with torch.no_grad():
            mask, drawn = self.mask.sample(generator)
            return Action(
                mask=mask,
                downsample=perturbed(self.downsample_logits, generator).argmax(dim=1),
                decolorize=draw_bits(self.decolorize_logits, generator),
                drawn=drawn,
                code=None if self.code is None else self.code.sample(generator),
            )

    def mode(self) -> Action:
        """The most probable action of each image; a bit of probability 1/2 deletes nothing."""
        mask, drawn = self._mask.mode()
        return Action(
            mask=mask,
            downsample=self.downsample_logits.argmax(dim=1),
            decolorize=self.decolorize_logits > 0,
            drawn=drawn,
            code=None if self.code is None else self.code.mode(),
        )

    def log_prob(self, action: Action) -> Float[Tensor, " n"]:
        """The joint log-probability of each image's whole action, in nats: log π(a | x).

        The sum over the mask, the downsampling factor, the decolorization and the codes; differentiable in the
        logits.
        """
        mask = self._mask.log_prob(MaskDraw(action.mask, action.drawn))
        factor = F.log_softmax(self.downsample_logits, dim=1).gather(1, action.downsample[:, None]).squeeze(1)
        total = mask + factor + bit_log_prob(self.decolorize_logits, action.decolorize)
        return total if self.code is None or action.code is None else total + self.code.log_prob(action.code)

    def entropy(self) -> Float[Tensor, " n"]:
        """Entropy of each image's action in nats, the sum over its independent parts; differentiable."""
        factor = torch.special.entr(self.downsample_logits.softmax(dim=1)).sum(dim=1)
        total = self._mask.entropy() + factor + bit_entropy(self.decolorize_logits)
        return total if self.code is None else total + self.code.entropy()

    def mask_ratio(self) -> Float[Tensor, " n"]:
        """Expected share of hidden cells of each image, in [0, 1]; differentiable."""
        return self.mask.ratio()

    def probabilities(self) -> dict[str, Tensor]:
        """All rates: `mask` (n, s, s), `downsample` (n, 3) by 1, 2 and 4, `decolorize` (n)."""
        return {
            "mask": self.mask.probabilities(),
            "downsample": self.downsample_logits.softmax(dim=1),
            "decolorize": self.decolorize_logits.sigmoid(),
        }


Policy = Callable[[Float[Tensor, "n 3 h w"]], CorruptionDistribution]
"""Images in [0, 1] to what may be done to each."""


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
    columns = [torch.full((n,), value, device=device) for value in log_rates(downsample)]
    return CorruptionDistribution(
        mask=Cells(torch.full((n, grid, grid), logit(mask_ratio), device=device)),
        downsample_logits=torch.stack(columns, dim=1),
        decolorize_logits=torch.full((n,), logit(decolorize), device=device),
    )


def log_rates(downsample: tuple[float, float]) -> list[float]:
    """Log-probabilities of downsampling by 1, 2 and 4, given those of 2 and 4."""
    return [log(p) for p in (1 - sum(downsample), *downsample)]


def log(p: float) -> float:
    """Natural logarithm of a probability; -inf at 0, and below it where 1 - p2 - p4 was rounded."""
    return math.log(p) if p > 0 else -math.inf


def logit(p: float) -> float:
    """Log-odds of a probability in [0, 1]; ±inf at the ends."""
    return log(p) - log(1 - p)
