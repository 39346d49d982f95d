"""Conditional IMLE: for every image find the code whose restoration is nearest to the truth, then regress to it.

Source: Li and Malik (arXiv 1811.12373), hierarchical search of Peng and Li (CAM-Net) with fewer candidates at finer
modules (CHIMLE, arXiv 2211.14286). Departures: the search is batched over images and candidates, exact under the
training distance itself, and each module runs once on features cached from the module before.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from camnet.distance import Distance
from camnet.generator import Code, Generator
from env.corruption import Action, Corrupted, make_consistent


def pyramid(x: Float[Tensor, "n 3 h w"], resolutions: tuple[int, ...]) -> list[Float[Tensor, "n 3 _ _"]]:
    """The truth at every module's resolution, by area averaging."""
    return [F.avg_pool2d(x, x.shape[-1] // r) for r in resolutions]


@torch.no_grad()
def search(
    generator: Generator,
    distance: Distance,
    corrupted: Corrupted,
    targets: list[Float[Tensor, "n 3 _ _"]],
    candidates: tuple[int, ...],
    random: torch.Generator,
) -> list[Code]:
    """Find for each image, module by module, the nearest of m random codes: z_k* = argmin_j d(G_k(x̃, z_<k*, z_j), x_k).

    Args:
        generator: The cascade; evaluated, not changed.
        distance: The training distance.
        corrupted: n corrupted images.
        targets: The truth at each module's resolution.
        candidates: Codes tried at each module.
        random: Draws the candidates.

    Returns:
        The winning code of every module, n each.
    """
    n, last = len(corrupted), len(candidates) - 1
    conditions = generator.conditions(corrupted)
    stage, winners = generator.start(conditions[0]), []
    for level, m in enumerate(candidates):
        codes = generator.draw(n * m, level, random)
        if m > 1:
            image_of = torch.arange(n, device=conditions[0].device).repeat_interleave(m)
            tried = generator.step(level, conditions[level][image_of], codes, stage.select(image_of))
            image = tried.image
            if level == last:
                image = make_consistent(image, corrupted.select(image_of))
            truth = [f[image_of] for f in distance.features(targets[level])]
            nearest = distance.between(distance.features(image), truth).view(n, m).argmin(dim=1)
            winner = torch.arange(n, device=nearest.device) * m + nearest
            codes, stage = codes.select(winner), tried.select(winner)
        elif level < last:
            stage = generator.step(level, conditions[level], codes, stage)
        winners.append(codes)
    return winners


def imle_loss(
    generator: Generator,
    distance: Distance,
    corrupted: Corrupted,
    targets: list[Float[Tensor, "n 3 _ _"]],
    codes: list[Code],
) -> Float[Tensor, " n"]:
    """Distance of every module's image to the truth at its resolution, summed over modules: sum_k d(G_k(x̃, z), x_k)."""
    images = generator(corrupted, codes)
    return torch.stack([distance(a, b) for a, b in zip(images, targets, strict=True)]).sum(dim=0)


def training_actions(n: int, grid: int, random: torch.Generator) -> Action:
    """Draw the corruptions that CAMNet learns to restore: every mix that a policy may ask for.

    The mask ratio is uniform in [0, 1] for three images of four and zero for the rest; half of the images lose their
    color; 20 % each are downsampled by 2 and by 4.
    """
    device = random.device
    ratio = torch.rand(n, 1, 1, generator=random, device=device)
    masked = torch.rand(n, 1, 1, generator=random, device=device) < 0.75
    mask = (torch.rand(n, grid, grid, generator=random, device=device) < ratio) & masked
    decolorize = torch.rand(n, generator=random, device=device) < 0.5
    draw = torch.rand(n, generator=random, device=device)
    return Action(mask, (draw > 0.6).long() + (draw > 0.8).long(), decolorize)
