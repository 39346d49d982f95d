"""What the learner is shown: decorruptions of each image, chosen among candidates, each augmented by itself."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from env.corruption import Corrupted

ViewsOf = Callable[[Corrupted, int, torch.Generator, Tensor | None], Tensor]
"""The frozen generator's `views`: degraded images, how many restorations of each, randomness, proposed codes or None;
images (n, k, 3, h, w) out."""
Choose = Callable[[Tensor, Tensor], Tensor]
"""Leaves two of the candidate views (k, n, 3, h, w) of the training images with the given rows (n)."""
Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Augments each of m images (m, 3, h, w) by itself."""


@dataclass(frozen=True)
class Showing:
    """From degraded images to the views that the learner sees.

    Attributes:
        restore: The frozen generator's, or `untouched` where nothing is ever deleted.
        count: Decorruptions of each image.
        choose: Which two of them the learner sees; None: all.
        augment: Expert augmentation; None: the views as they are.
    """

    restore: ViewsOf
    count: int = 2
    choose: Choose | None = None
    augment: Augment | None = None

    def decorrupt(
        self, corrupted: Corrupted, random: torch.Generator, proposed: Float[Tensor, "n k c"] | None = None
    ) -> Float[Tensor, "k n 3 h w"]:
        """Decorrupt each image `count` times with independent codes, in one forward pass of the generator."""
        return self.restore(corrupted, self.count, random, proposed).transpose(0, 1)

    def show(
        self, candidates: Float[Tensor, "k n 3 h w"], rows: Int[Tensor, " n"], random: torch.Generator
    ) -> Float[Tensor, "j n 3 h w"]:
        """Leave what the learner is to see, augmented.

        Chosen before they are augmented: the question is which decorruptions make good pairs, and an augmentation
        would answer it by its own strength.

        Args:
            candidates: k decorruptions of each image.
            rows: Which training images they are.
            random: Draws the augmentations.
        """
        views = self.choose(candidates, rows) if self.choose else candidates
        return self.augment(views.flatten(0, 1), random).unflatten(0, views.shape[:2]) if self.augment else views


def untouched(
    corrupted: Corrupted, count: int, random: torch.Generator, proposed: Tensor | None = None
) -> Float[Tensor, "n k 3 h w"]:
    """Stand in for a generator's `views` where nothing was deleted: every view is the image.

    A generator would give the same, bit for bit, since what was kept is put back; it would only take its time, and draw
    codes that decide nothing.
    """
    return corrupted.kept.unsqueeze(1).expand(-1, count, -1, -1, -1)
