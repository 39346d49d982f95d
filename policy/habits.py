"""What a policy does to many images, in numbers."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from env.corruption import FACTORS
from env.distribution import Policy

BATCH = 250
"""Images that a policy is asked about at once; bounds the memory, never the result."""


@dataclass(frozen=True)
class Habits:
    """The probabilities that a policy gives each of n images.

    Attributes:
        mask: That a cell is hidden.
        downsample: Of each of the first three of `env.corruption.FACTORS`.
        decolorize: That color is deleted.
    """

    mask: Float[Tensor, "n s s"]
    downsample: Float[Tensor, "n k"]
    decolorize: Float[Tensor, " n"]

    def rates(self) -> dict[str, Float[Tensor, " n"]]:
        """The expected corruption of each image, by the words of the table and the picture."""
        return {
            "deleted": self.deleted(),
            "mask": self.mask.mean(dim=(1, 2)),
            "gray": self.decolorize,
            "1/2": self.downsample[:, 1],
            "1/4": self.downsample[:, 2],
        }

    def deleted(self) -> Float[Tensor, " n"]:
        """Expected share of an image's numbers that are deleted: how boldly it is corrupted, in one number.

        A mask of ratio m keeps 1 - m of them, decolorization 1/3, downsampling by s 1/s². The three are drawn
        independently, so what is kept is the product of the expectations.
        """
        masked = 1 - self.mask.mean(dim=(1, 2))
        colored = 1 - 2 / 3 * self.decolorize
        factors = self.downsample.new_tensor(FACTORS[: self.downsample.shape[1]])
        return 1 - masked * colored * (self.downsample / factors.square()).sum(dim=1)

    def mean_mask(self) -> Float[Tensor, "s s"]:
        """The mean over all images."""
        return self.mask.mean(dim=0)

    def class_masks(self, labels: Int[Tensor, " n"], count: int) -> Float[Tensor, "count s s"]:
        """The mean over the images of each class; NaN for a class without images."""
        return torch.stack([self.mask[labels == label].mean(dim=0) for label in range(count)])

    def cell_entropy(self) -> Float[Tensor, "s s"]:
        """How undecided the policy is about each cell: entropy of its bit given an image, mean over images, in bits."""
        p = self.mask
        return (torch.special.entr(p) + torch.special.entr(1 - p)).mean(dim=0) / math.log(2)

    def extremes(self, count: int) -> tuple[Int[Tensor, " c"], Int[Tensor, " c"]]:
        """Rows of the most and of the least corrupted images, most extreme first; at most half of all on each side."""
        order = self.deleted().argsort(descending=True)
        count = min(count, max(1, len(order) // 2))
        return order[:count], order.flip(0)[:count]


@torch.no_grad()
def observe(policy: Policy, x: Float[Tensor, "n 3 h w"]) -> Habits:
    """Ask a policy about images."""
    seen = [policy(some).probabilities() for some in x.split(BATCH)]
    mask, downsample, decolorize = (
        torch.cat([part[name] for part in seen]) for name in ("mask", "downsample", "decolorize")
    )
    return Habits(mask, downsample, decolorize)
