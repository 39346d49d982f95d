"""The learned prior: which of a few candidate codes would the search take? Asked without the truth.

Conditional IMLE trains the generator on codes that a search has found to be near the truth, then draws codes from a
standard normal. The two are not the same: a code that no search takes was never trained, and what it restores, a blue
dog, looks wrong. A small network learns to tell the codes that are taken from the others, by what the module makes of
them and of the condition; a code is then drawn by drawing several and choosing one of them in proportion.

Source: resampled priors (Bauer and Mnih, "Resampled Priors for Variational Autoencoders", arXiv 1810.11428), with
self-normalized resampling among m candidates in place of rejection, so that the cost is fixed. Departures: the prior is
conditional, and what it is fitted to are the codes of IMLE's search rather than those of an encoder.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from env.rows import Rows

WIDTH = 64


@dataclass(frozen=True)
class Lesson(Rows):
    """What the search found at one module, for n images with m candidates each.

    Attributes:
        features: What the module made of each candidate.
        choice: Which candidate is the nearest to the truth, in each of g x g regions.
    """

    features: Float[Tensor, "n m c r r"]
    choice: Int[Tensor, "n g g"]


class Prior(nn.Module):
    """The score of a candidate: log of how much more often than chance the search takes it, up to a constant."""

    def __init__(self, width: int, regions: int) -> None:
        """Begin with equal scores, which leave the standard normal as it is.

        Args:
            width: Channels of the module's features.
            regions: Regions a side, of which each has a score.
        """
        super().__init__()
        self.regions = regions
        self.look, self.mix, self.head = (
            nn.Conv2d(width, WIDTH, 3, padding=1),
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, 1),
        )
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Float[Tensor, "n c r r"]) -> Float[Tensor, "n g g"]:
        """Score what a module made of n candidates; in float32 whatever type they have, since it is little work."""
        h = F.silu(self.look(F.silu(features.float()))).movedim(1, -1)
        h = F.silu(self.mix(h)).movedim(-1, 1)
        return self.head(F.adaptive_avg_pool2d(h, self.regions).movedim(1, -1)).squeeze(-1)

    def loss(self, lesson: Lesson) -> Float[Tensor, " n"]:
        """Cross-entropy, in nats, of guessing the nearest of the m candidates; mean of the regions."""
        scores = self(lesson.features.flatten(0, 1)).unflatten(0, lesson.features.shape[:2])
        return F.cross_entropy(scores, lesson.choice, reduction="none").mean(dim=(1, 2))
