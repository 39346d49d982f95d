"""Conditional IMLE: for every image find the code whose restoration is nearest to the truth, then regress to it.

Source: Li and Malik (arXiv 1811.12373), hierarchical search of Peng and Li (CAM-Net) with fewer candidates at finer
modules (CHIMLE, arXiv 2211.14286). Departures: the search is batched over images and candidates, exact under the
training distance itself; each module runs once, on features kept from the module before; what no code enters is
computed once an image.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from camnet.degraded import Degraded
from camnet.distance import Distance
from camnet.generator import Code, Generator, Stage, each

BYTES_AT_ONCE = {"cpu": 2**22, "cuda": 2**28}
"""Size of the largest feature map in the search, by kind of device. On a CPU it should stay in the cache: 4 MiB is half
as fast again as what fills the memory."""


def pyramid(x: Float[Tensor, "n 3 h w"], resolutions: tuple[int, ...]) -> list[Float[Tensor, "n 3 _ _"]]:
    """The truth at every module's resolution, by area averaging."""
    return [F.avg_pool2d(x, x.shape[-1] // r) for r in resolutions]


@torch.no_grad()
def search(
    generator: Generator,
    distance: Distance,
    degraded: Degraded,
    targets: list[Float[Tensor, "n 3 _ _"]],
    candidates: tuple[int, ...],
    random: torch.Generator,
    reject: float = 0.0,
) -> list[Code]:
    """Find for each image, module by module, the nearest of m random codes: z_k* = argmin_j d(G_k(x̃, z_<k*, z_j), x_k).

    Args:
        generator: The cascade; evaluated, not changed.
        distance: The training distance.
        degraded: n degraded images.
        targets: The truth at each module's resolution.
        candidates: Codes tried at each module.
        random: Draws the candidates.
        reject: Candidates nearer than this are left out, unless all are (RS-IMLE, Vashist et al. 2024, which rejects
            codes that the model has already learned; a departure: the pool is not refilled).

    Returns:
        The winning code of every module, n each.
    """
    conditions, stage, winners = generator.conditions(degraded), generator.start(degraded), []
    for level, m in enumerate(candidates):
        codes = generator.draw(len(degraded) * m, level, random)
        if m > 1:
            truth = distance.features(targets[level])
            pieces = []
            for rows in torch.arange(len(degraded), device=truth[0].device).split(images_at_once(generator, level, m)):
                tried = generator.candidates(
                    level, conditions[level][rows], codes.select(_each(rows, m)), stage.select(rows)
                )
                image = tried.image
                if level == len(candidates) - 1:
                    image = each(degraded.select(rows), m).make_consistent(image)
                d = distance.between(distance.features(image), [f[_image_of(rows, m)] for f in truth])
                best = nearest(d.view(-1, m), reject) + m * torch.arange(len(rows), device=d.device)
                pieces.append((m * rows[0] + best, tried.select(best)))
            codes = codes.select(torch.cat([winner for winner, _ in pieces]))
            stage = Stage.joined([kept for _, kept in pieces])
        elif max(candidates[level:]) > 1:  # finer modules go on from it
            stage = generator.step(level, conditions[level], codes, stage)
        winners.append(codes)
    return winners


def images_at_once(generator: Generator, level: int, m: int) -> int:
    """How many images go through a module together, m candidates each."""
    config, weight = generator.config, next(generator.parameters())
    side = config.resolutions[level] // config.patch
    row = config.widths[level] * side**2 * generator.precision.itemsize
    return max(1, BYTES_AT_ONCE.get(weight.device.type, 2**28) // (row * m))


def nearest(distances: Float[Tensor, "n m"], reject: float) -> Int[Tensor, " n"]:
    """The nearest candidate of each image among those no nearer than `reject`; of all where there is none such."""
    near = distances < reject
    return torch.where(near & ~near.all(dim=1, keepdim=True), torch.inf, distances).argmin(dim=1)


def imle_loss(
    generator: Generator,
    distance: Distance,
    degraded: Degraded,
    targets: list[Float[Tensor, "n 3 _ _"]],
    codes: list[Code],
) -> Float[Tensor, " n"]:
    """Distance of every module's image to the truth at its resolution, summed over modules: sum_k d(G_k(x̃, z), x_k)."""
    images = generator(degraded, codes)
    return torch.stack([distance(a, b) for a, b in zip(images, targets, strict=True)]).sum(dim=0)


def _each(images: Int[Tensor, " n"], m: int) -> Int[Tensor, " nm"]:
    """The rows of the images' codes, m each."""
    return (images[:, None] * m + torch.arange(m, device=images.device)).flatten()


def _image_of(images: Int[Tensor, " n"], m: int) -> Int[Tensor, " nm"]:
    """The image that each of these codes belongs to."""
    return images.repeat_interleave(m)
