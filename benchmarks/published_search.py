"""The published procedure, written from its description: the code search that camnet.imle.search is measured against.

Source: Peng and Li, "CAM-Net" (arXiv 2106.09015), and the description of its released sampler: images one at a time;
modules one after another; for module k the candidates go through all modules 1 to k, the earlier ones under the codes
that won there, in minibatches of 20; nothing is kept from one minibatch to the next, the features of the truth neither;
network in evaluation mode, without gradient.

Three departures, none of which holds it back: nearest exactly and under our training distance (published: LPIPS-VGG,
randomly projected, nearest by DCI); what the network is told of an image is computed once an image (the published
loader delivers it); the last module's images are made consistent with what was kept, as ours are, so that both look for
the same minimum.
"""

import torch
from torch import Tensor

from camnet.code import Code
from camnet.degraded import Degraded, each
from camnet.distance import Distance
from camnet.generator import Generator

MINIBATCH = 20
"""Candidates that go through the network at once."""


@torch.no_grad()
def search(
    generator: Generator,
    distance: Distance,
    degraded: Degraded,
    targets: list[Tensor],
    candidates: list[Code],
) -> list[Code]:
    """Find for each image, module by module, the nearest of its candidates.

    Args:
        generator: The cascade.
        distance: Says what is near, at each module's resolution.
        degraded: n degraded images.
        targets: The truth (n, 3, r, r) at each module's resolution.
        candidates: m_k codes for each image and module k, image by image: n * m_k in all. The number of candidates is
            read from them; m_k may differ between modules.

    Returns:
        The winning code of every module, n each.
    """
    generator.eval()
    found = []
    for image in range(len(degraded)):
        row = torch.tensor([image], device=targets[0].device)
        own = [codes.select(_slice(row, len(codes) // len(degraded))) for codes in candidates]
        found.append(search_one(generator, distance, degraded.select(row), [t[row] for t in targets], own))
    return [
        Code(torch.cat([code.style for code in level]), torch.cat([code.noise for code in level]))
        for level in zip(*found, strict=True)
    ]


def search_one(
    generator: Generator, distance: Distance, degraded: Degraded, targets: list[Tensor], candidates: list[Code]
) -> list[Code]:
    """The winning code of every module for one image, from m_k candidates each."""
    conditions = generator.conditions(degraded)
    winners: list[Code] = []
    for level, codes in enumerate(candidates):
        distances = []
        for some in torch.arange(len(codes), device=codes.style.device).split(MINIBATCH):
            images = up_to(generator, conditions, degraded, [*winners, codes.select(some)])
            distances.append(distance.between(distance.features(images), distance.features(targets[level])))
        winners.append(codes.select(torch.cat(distances).argmin(dim=0, keepdim=True)))
    return winners


def up_to(generator: Generator, conditions: list[Tensor], degraded: Degraded, codes: list[Code]) -> Tensor:
    """Run modules 1 to k on one image with b codes for module k, all from the start.

    Args:
        generator: The cascade.
        conditions: Of the image, one a module.
        degraded: The image.
        codes: One for each module before k, then b for module k.

    Returns:
        Images (b, 3, r, r) of module k, at its resolution.
    """
    many, last = len(codes[-1]), len(codes) - 1
    repeated = each(degraded, many)
    stage = generator.start(repeated)
    for level, code in enumerate(codes):
        own = code if level == last else code.select(torch.zeros(many, dtype=torch.long, device=stage.image.device))
        stage = generator.step(level, conditions[level].repeat_interleave(many, dim=0), own, stage)
    return repeated.make_consistent(stage.image) if last == len(generator.levels) - 1 else stage.image


def _slice(row: Tensor, m: int) -> Tensor:
    """The rows of one image's m codes."""
    return row * m + torch.arange(m, device=row.device)
