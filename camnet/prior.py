"""The learned prior: which of many styles would the search take? Asked without the truth.

Conditional IMLE trains the generator with codes that a search has found to be near the truth, then draws codes from a
standard normal. The two are not the same: a style that no search takes was never trained, and what it restores, a blue
dog, looks wrong. So a small network learns to tell the styles that are taken from the others, given what the module
sees of the degraded image; a style is then drawn by drawing many and choosing one of them in proportion.

Source: resampled priors (Bauer and Mnih, "Resampled Priors for Variational Autoencoders", arXiv 1810.11428), with
self-normalized resampling among m candidates in place of rejection, so that the cost is fixed. Departures: the prior is
conditional, and what it is fitted to are the codes of IMLE's search rather than those of an encoder.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from env.rows import Rows

HIDDEN = 128


@dataclass(frozen=True)
class Lesson(Rows):
    """What the search chose at one module, for n images with m candidates each.

    Attributes:
        seen: The features that entered the module, before its own code.
        styles: The candidates.
        choice: Which of them is the nearest to the truth, in each of g x g regions.
    """

    seen: Float[Tensor, "n c r r"]
    styles: Float[Tensor, "n m zg g g"]
    choice: Int[Tensor, "n g g"]


class Prior(nn.Module):
    """Scores styles: log of how much more often than chance the search takes one, up to a constant of the image."""

    def __init__(self, width: int, code: int) -> None:
        """Begin with equal scores, which leave the standard normal as it is.

        Args:
            width: Channels of the module's features.
            code: Length of a style.
        """
        super().__init__()
        self.look = nn.Conv2d(width, HIDDEN, 3, padding=1)
        self.shift, self.scale = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.style = nn.Sequential(nn.Linear(code, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN))
        self.mix, self.head = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, seen: Float[Tensor, "n c r r"], styles: Float[Tensor, "nk m zg g g"]
    ) -> Float[Tensor, "nk m g g"]:
        """Score m styles for each of k restorations of n images, region by region.

        In float32 whatever type the features have, since it is little work.
        """
        regions, many = styles.shape[-1], len(styles) // len(seen)
        image = F.adaptive_avg_pool2d(F.silu(self.look(F.silu(seen.float()))), regions).movedim(1, -1)
        scale, shift = (part(image).repeat_interleave(many, dim=0).unsqueeze(1) for part in (self.scale, self.shift))
        h = self.style(styles.movedim(2, -1)) * (1 + scale) + shift
        return self.head(F.silu(self.mix(F.silu(h)))).squeeze(-1)

    def loss(self, lesson: Lesson) -> Float[Tensor, " n"]:
        """Cross-entropy, in nats, of guessing the nearest of the m candidates; mean of the regions."""
        scores = self(lesson.seen, lesson.styles)
        return F.cross_entropy(scores, lesson.choice, reduction="none").mean(dim=(1, 2))
