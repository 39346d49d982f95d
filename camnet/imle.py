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
from camnet.distance import Distance, by_region, overall
from camnet.generator import Generator
from camnet.parts import in_parts
from camnet.prior import Lesson
from env.resize import pooled
from env.rows import Rows


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
            module = _Module(generator, distance, level, conditions[level], stage, degraded, targets[level])
            best, lesson = module.searched(codes, reject)
            codes, stage = best.codes, best.stage
            result.lessons.extend(lesson)
        elif max(candidates[level:]) > 1:  # finer modules go on from it
            stage = generator.step(level, conditions[level], codes, stage)
        result.codes.append(codes)
    return result


@dataclass(frozen=True)
class Tried(Rows):
    """Codes, what a module makes of them, and how far that is from the truth."""

    codes: Code
    stage: Stage
    distances: Float[Tensor, " n"]


@dataclass(frozen=True)
class _Module:
    """The search at one module: what enters it for n images, and the truth at its resolution."""

    generator: Generator
    distance: Distance
    level: int
    condition: Tensor
    before: Stage
    degraded: Degraded
    target: Float[Tensor, "n 3 _ _"]

    def searched(self, codes: Code, reject: float) -> tuple[Tried, list[Lesson]]:
        """The nearest of each image's candidates, and the lesson of that where the module has a prior."""
        m, has_prior = len(codes) // len(self.degraded), self.level < len(self.generator.priors)

        def nearest_of(rows: slice) -> tuple[Tried, list[Lesson]]:
            best, lesson = self._part(rows).nearest(codes.select(slice(m * rows.start, m * rows.stop)), reject)
            return best, [lesson] if has_prior else []  # what entered the others need not be kept

        config = self.generator.config
        side = config.resolutions[self.level] // config.patch
        row = config.widths[self.level] * side**2 * self.generator.precision.itemsize
        found = in_parts(nearest_of, len(self.degraded), m * row, self.target.device)
        lessons = [lesson for _, some in found for lesson in some]
        return Rows.joined([best for best, _ in found]), [Rows.joined(lessons)] if has_prior else []

    def _part(self, rows: slice) -> "_Search":
        """The search for some of the images."""
        entered = self.generator.enter(self.level, self.condition[rows], self.before.select(rows))
        known, truth = self.degraded.select(rows), self.distance.features(self.target[rows])
        return _Search(self.generator, self.distance, self.level, entered, known, truth)


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
        of_regions = by_region(terms, regions).unflatten(0, (images, -1))
        is_rejected = (of_image < bound[:, None])[:, :, None, None]
        choice = torch.where(is_rejected, torch.inf, of_regions).argmin(dim=1)
        patchwork, _ = self._try(codes.patchwork(choice))
        is_nearer = (patchwork.distances < best.distances) & (patchwork.distances >= bound)
        return Rows.where(is_nearer, patchwork, best), Lesson(self.entered.features, styles, choice)

    def _try(self, codes: Code) -> tuple[Tried, list[Tensor]]:
        """Run the module on m codes per image, image by image; the distances, and the terms that they sum."""
        stage = self.generator.refine(self.level, self.entered, codes)
        image = stage.image
        if self.level == len(self.generator.levels) - 1:
            image = self.generator.consistent(self.degraded, image)
        terms = self._compared(image)
        return Tried(codes, stage, overall(terms)), terms

    def _compared(self, images: Float[Tensor, "km 3 r r"]) -> list[Tensor]:
        """The terms of m images of each, of a few at a time: the distance's maps are larger than the module's."""
        m = len(images) // len(self.degraded)

        def terms(rows: slice) -> list[Tensor]:
            features = self.distance.features(images[m * rows.start : m * rows.stop])
            return self.distance.terms(features, [part[rows] for part in self.truth])

        row = m * self.distance.bytes_of(images.shape[-1])
        parts = in_parts(terms, len(self.degraded), row, images.device)
        return [torch.cat(same) for same in zip(*parts, strict=True)]


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

    def choose(rows: slice) -> Tensor:
        terms = distance.terms(distance.features(made(rows)), distance.features(truth[rows]))
        return by_region(terms, regions).unflatten(0, (-1, m)).argmin(dim=1)

    return torch.cat(in_parts(choose, len(truth), m * distance.bytes_of(truth.shape[-1]), truth.device))


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
