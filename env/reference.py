"""The reference: a held-out loss that the policy cannot touch, whose slope is what it is paid for.

Reference pairs are decorrupted once, with fixed codes, and kept: the reward never runs the generator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.reward import ReferenceConfig
from env.corruption import Corrupted, corrupt
from env.distribution import fixed_rates
from env.images import ImageSet
from env.showing import Augment
from training.seeding import generator_at

HELD_OUT = 500
"""Most held-out images of a reference, evenly spread over the set: pairs are made before the first step."""
DRAWS = 8
"""Pairs kept for every held-out image, each with a corruption and codes of its own."""

TwoViews = Callable[[Corrupted, torch.Generator], tuple[Tensor, Tensor]]
"""The frozen generator's `two_views`."""


@dataclass(frozen=True)
class Reference:
    """Held-out examples, in as many parts as the loss takes.

    Attributes:
        first: First views, or labelled images.
        second: Second views, or labels.
        batch: Examples behind one gradient.
        seed: The run's; which examples belong to a step is a function of (seed, step).
    """

    first: Float[Tensor, "n 3 h w"]
    second: Float[Tensor, "n 3 h w"] | Int[Tensor, " n"]
    batch: int
    seed: int

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The step's examples: the whole set where it is no larger than a batch, a random draw of it otherwise."""
        n = len(self.first)
        if n <= self.batch:
            return self.first, self.second
        random = generator_at(self.seed, step, "reference", self.first.device)
        index = torch.randperm(n, generator=random, device=self.first.device)[: self.batch]
        return self.first[index], self.second[index]


def corrupted_pairs(config: ReferenceConfig, images: ImageSet, two_views: TwoViews, grid: int, seed: int) -> Reference:
    """Corrupt held-out images by the fixed, strong reference corruption and decorrupt each twice, once for all."""
    images = images.thinned(HELD_OUT)
    random = generator_at(seed, 0, "reference corruption", images.pixels.device)
    views = []
    for _ in range(DRAWS):
        rates = fixed_rates(
            len(images), grid, config.mask_ratio, config.decolorize, config.downsample, images.pixels.device
        )
        views.append(two_views(corrupt(images.images(), rates.sample(random)), random))
    first, second = (torch.cat(part) for part in zip(*views, strict=True))
    return Reference(first, second, config.batch, seed)


def expert_pairs(config: ReferenceConfig, images: ImageSet, augment: Augment, seed: int) -> Reference:
    """Augment held-out images twice, once for all: neither labels nor a generator take part."""
    images = images.thinned(HELD_OUT)
    random = generator_at(seed, 0, "reference augmentation", images.pixels.device)
    x = images.images().repeat(DRAWS, 1, 1, 1)
    first, second = augment(torch.cat([x, x]), random).chunk(2)
    return Reference(first, second, config.batch, seed)


def labelled_images(config: ReferenceConfig, images: ImageSet, seed: int) -> Reference:
    """Take the held-out images as they are, with their labels."""
    images = images.thinned(HELD_OUT)
    return Reference(images.images(), images.labels, config.batch, seed)
