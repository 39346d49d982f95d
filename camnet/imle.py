"""Conditional IMLE: for every image find the code whose restoration is nearest to the truth, then regress to it.

Source: Li and Malik (arXiv 1811.12373), hierarchical search of Peng and Li (CAM-Net) with fewer candidates at finer
modules (CHIMLE, arXiv 2211.14286). Departures: the search is batched over images and candidates, exact under the
training distance itself; each module runs once, on features kept from the module before; what no code enters is
computed once per image. Where a module's style differs by region, so does the choice: the patchwork of what was
nearest in each region is tried, too, and taken where it is nearer than the nearest whole candidate. With R regions it
stands for m^R candidates at the price of m + 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camnet.code import Code, Stage
from camnet.degraded import Degraded
from camnet.distance import WIDTH, Distance, by_region, overall
from camnet.generator import Generator
from camnet.prior import Lesson
from env.resize import pooled
from env.rows import Rows

BYTES_AT_ONCE = {"cpu": 2**22, "cuda": 2**28}
"""Size of the generator's largest feature map in the search, by kind of device. On a CPU it should stay in the cache:
4 MiB is half as fast again as what fills the memory."""


def pyramid(x: Float[Tensor, "n 3 h w"], resolutions: tuple[int, ...]) -> list[Float[Tensor, "n 3 _ _"]]:
    """The truth at every module's resolution, by area averaging."""
    return [pooled(x, r) for r in resolutions]


@dataclass(frozen=True)
class Found:
    """The winning code of every module, and what those modules that have a learned prior can learn from the search."""

    codes: list[Code]
    lessons: list[Lesson]


@torch.no_grad()
def search(
    generator: Generator,
    distance: Distance,
    degraded: Degraded,
    targets: list[Float[Tensor, "n 3 _ _"]],
    candidates: tuple[int, ...],
    random: torch.Generator,
    reject: float = 0.0,
) -> Found:
    """Find for each image, module by module, the nearest of m random codes: z_k* = argmin_j d(G_k(x̃, z_<k*, z_j), x_k).

    Args:
        generator: The cascade; evaluated, not changed.
        distance: The training distance.
        degraded: n degraded images.
        targets: The truth at each module's resolution.
        candidates: Codes tried at each module; the first modules alone are searched where there are fewer.
        random: Draws the candidates.
        reject: Candidates nearer than this share of the median distance of the image's candidates are left out; in
            [0, 1], 0: none (RS-IMLE, Vashist et al. 2024, which rejects codes that the model has already learned.
            Departures: its bound is one number, which would mean something else at every module and under every
            distance; and the pool is not refilled).

    Returns:
        The winning code of every module searched, n each; lessons of the modules with a prior, where m is more than 1.
    """
    conditions, stage, result = generator.conditions(degraded), generator.start(degraded), Found([], [])
    for level, m in enumerate(candidates):
        codes = generator.draw(len(degraded) * m, level, random)
        if m > 1:
            truth, at_once = distance.features(targets[level]), images_at_once(generator, level, m)
            found: list[Tried] = []
            lessons: list[Lesson] = []
            for first in range(0, len(degraded), at_once):
                rows = slice(first, first + at_once)
                entered = generator.enter(level, conditions[level][rows], stage.select(rows))
                known, near = degraded.select(rows), [f[rows] for f in truth]
                part = _Search(generator, distance, level, entered, known, near)
                winner, lesson = part.nearest(codes.select(slice(m * rows.start, m * rows.stop)), reject)
                found.append(winner)
                if level < len(generator.priors):  # what entered the others need not be kept
                    lessons.append(lesson)
            best = Rows.joined(found)
            codes, stage = best.codes, best.stage
            if lessons:
                result.lessons.append(Rows.joined(lessons))
        elif max(candidates[level:]) > 1:  # finer modules go on from it
            stage = generator.step(level, conditions[level], codes, stage)
        result.codes.append(codes)
    return result


def images_at_once(generator: Generator, level: int, m: int) -> int:
    """How many images go through a module together, m candidates each."""
    config, weight = generator.config, next(generator.parameters())
    side = config.resolutions[level] // config.patch
    row = config.widths[level] * side**2 * generator.precision.itemsize
    return max(1, BYTES_AT_ONCE.get(weight.device.type, 2**28) // (row * m))


@dataclass(frozen=True)
class Tried(Rows):
    """Codes, what a module makes of them, and how far that is from the truth."""

    codes: Code
    stage: Stage
    distances: Float[Tensor, " n"]


@dataclass(frozen=True)
class _Search:
    """The search for k images at one module: what no code enters, and the features that it should come near."""

    generator: Generator
    distance: Distance
    level: int
    entered: Stage
    degraded: Degraded
    truth: list[Tensor]

    def nearest(self, codes: Code, reject: float) -> tuple[Tried, Lesson]:
        """The nearest of each image's candidates, or their patchwork where that is nearer still."""
        images, regions = len(self.degraded), codes.style.shape[-1]
        tried, terms = self._try(codes)
        of_image = tried.distances.unflatten(0, (images, -1))
        m = of_image.shape[1]
        bound = reject * of_image.median(dim=1).values  # of two the smaller, so that none of two is left out
        winner, styles = nearest(of_image, bound), codes.style.unflatten(0, (images, m))
        best = tried.select(winner + m * torch.arange(images, device=of_image.device))
        if regions == 1:
            return best, Lesson(self.entered.features, styles, winner[:, None, None])
        choice = by_region(terms, regions).unflatten(0, (images, -1)).argmin(dim=1)
        patchwork, _ = self._try(codes.patchwork(choice))
        is_nearer = (patchwork.distances < best.distances) & (patchwork.distances >= bound)
        return Rows.where(is_nearer, patchwork, best), Lesson(self.entered.features, styles, choice)

    def _try(self, codes: Code) -> tuple[Tried, list[Tensor]]:
        """Run the module on m codes per image, image by image; the distances, and the terms that they sum."""
        stage = self.generator.refine(self.level, self.entered, codes)
        image = stage.image
        if self.level == len(self.generator.levels) - 1:
            image = self.generator.consistent(self.degraded, image)
        terms = self.distance.terms(self.distance.features(image), self.truth)
        return Tried(codes, stage, overall(terms)), terms


def nearest(distances: Float[Tensor, "n m"], bound: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The nearest candidate of each image among those no nearer than its bound."""
    return torch.where(distances < bound[:, None], torch.inf, distances).argmin(dim=1)


@torch.no_grad()
def nearest_of(
    distance: Distance,
    truth: Float[Tensor, "n 3 q q"],
    m: int,
    made: Callable[[slice], Float[Tensor, "km 3 q q"]],
    regions: int = 1,
) -> Int[Tensor, "n g g"]:
    """Which of m candidates is nearest to each image in each region; candidates are made for some images at a time.

    Args:
        distance: The training distance.
        truth: The images.
        m: Candidates of each.
        made: The candidates of the images at the given rows, image by image.
        regions: A side; 1: the whole image.
    """
    near = distance.features(truth)
    at_once = max(1, BYTES_AT_ONCE.get(truth.device.type, 2**28) // (4 * WIDTH * m * truth.shape[-1] ** 2))
    choice = []
    for first in range(0, len(truth), at_once):
        rows = slice(first, first + at_once)
        terms = distance.terms(distance.features(made(rows)), [f[rows] for f in near])
        choice.append(by_region(terms, regions).unflatten(0, (-1, m)).argmin(dim=1))
    return torch.cat(choice)


def imle_loss(
    generator: Generator,
    distance: Distance,
    degraded: Degraded,
    targets: list[Float[Tensor, "n 3 _ _"]],
    codes: list[Code],
) -> Float[Tensor, " n"]:
    """Distance of every module's image to the truth at its resolution, summed over modules: sum_k d(G_k(x̃, z), x_k).

    With targets and codes of the first modules alone, the sum over these.
    """
    images = generator(degraded, codes)
    return torch.stack([distance(a, b) for a, b in zip(images, targets, strict=True)]).sum(dim=0)
