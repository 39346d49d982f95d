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
"""Most held-out images of a reference, evenly spread over the set."""
DRAWS = 8
"""Most pairs kept of a held-out image, each with a corruption and codes of its own."""
PAIRS = 2400
"""Most pairs kept in all: eight of each of the 300 validation digits. They are made before the first step, and a
generator for large images takes its time."""
CHUNK = 128
"""Pairs made at once: no more memory than a step of the default batch takes."""

Pair = tuple[Tensor, Tensor]
"""First and second views, row by row of the same images."""
TwoViews = Callable[[Corrupted, torch.Generator], Pair]
"""The frozen generator's `two_views`."""


@dataclass(frozen=True)
class Reference:
    """Held-out examples of n images, d draws of each, in as many parts as the loss takes.

    Attributes:
        first: First views, or labeled images.
        second: Second views, or labels.
        batch: Examples behind one gradient, all of different images; as many as there are images, if these are fewer.
        seed: The run's; which examples belong to a step is a function of (seed, step).
    """

    first: Float[Tensor, "d n 3 h w"]
    second: Float[Tensor, "d n 3 h w"] | Int[Tensor, "d n"]
    batch: int
    seed: int

    def at(self, step: int) -> Pair:
        """The step's examples: different images, or one would be its own negative, and one of the draws of each."""
        device, (draws, n) = self.first.device, self.first.shape[:2]
        random = generator_at(self.seed, step, "reference", device)
        image = torch.randperm(n, generator=random, device=device)[: self.batch]
        draw = torch.randint(draws, image.shape, generator=random, device=device)
        return self.first[draw, image], self.second[draw, image]


def corrupted_pairs(config: ReferenceConfig, images: ImageSet, two_views: TwoViews, grid: int, seed: int) -> Reference:
    """Corrupt held-out images by the fixed, strong reference corruption and decorrupt each twice, once for all."""
    random = generator_at(seed, 0, "reference corruption", images.pixels.device)

    def pairs(x: Float[Tensor, "m 3 h w"]) -> Pair:
        rates = fixed_rates(len(x), grid, config.mask_ratio, config.decolorize, config.downsample, x.device)
        return two_views(corrupt(x, rates.sample(random)), random)

    return Reference(*_kept(pairs, images), config.batch, seed)


def expert_pairs(config: ReferenceConfig, images: ImageSet, augment: Augment, seed: int) -> Reference:
    """Augment held-out images twice, once for all: neither labels nor a generator take part."""
    random = generator_at(seed, 0, "reference augmentation", images.pixels.device)

    def pairs(x: Float[Tensor, "m 3 h w"]) -> Pair:
        first, second = augment(torch.cat([x, x]), random).chunk(2)
        return first, second

    return Reference(*_kept(pairs, images), config.batch, seed)


def labelled_images(config: ReferenceConfig, images: ImageSet, seed: int) -> Reference:
    """Take the held-out images as they are, with their labels."""
    images = images.thinned(HELD_OUT)
    return Reference(images.images()[None], images.labels[None], config.batch, seed)


def _kept(pairs: Callable[[Tensor], Pair], images: ImageSet) -> tuple[Tensor, Tensor]:
    """Make pairs of held-out images, a chunk at a time: all images, then all again; (d, n, 3, h, w) each."""
    images = images.thinned(HELD_OUT)
    draws = min(DRAWS, PAIRS // len(images))
    rows = torch.arange(len(images), device=images.pixels.device).repeat(draws)
    chunks = [pairs(images.images(some)) for some in rows.split(CHUNK)]
    first, second = (torch.cat(views).unflatten(0, (draws, -1)) for views in zip(*chunks, strict=True))
    return first, second
