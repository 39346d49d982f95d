"""What a training of CAMNet minimizes, term by term, each with its curves; a term that is not asked for is 0.

Everything that a term draws is a function of (seed, step) and of the term.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camnet.adversary import Adversary
from camnet.code import Code
from camnet.coloring import coloring_loss
from camnet.degraded import Degraded
from camnet.distance import Distance
from camnet.generator import Generator
from camnet.imle import imle_loss
from camnet.painting import painting_loss
from camnet.prior import Lesson, Prior
from camnet.tasks import Tasks
from configs.camnet import CamnetConfig
from training.ranks import Ranks
from training.schedule import one_cycle
from training.seeding import generator_at

Curves = dict[str, Tensor | float]


@dataclass(frozen=True)
class Objective:
    """The terms, and what they are computed with."""

    config: CamnetConfig
    generator: Generator
    distance: Distance
    tasks: Tasks
    adversary: Adversary | None
    ranks: Ranks
    device: torch.device

    def losses(
        self, rows: Int[Tensor, " b"], degraded: Degraded, targets: list[Tensor], codes: list[Code]
    ) -> Float[Tensor, " b"]:
        """The losses of the images at the given rows, with their codes."""
        some = [t[rows] for t in targets]
        return imle_loss(self.generator, self.distance, degraded.select(rows), some, [c.select(rows) for c in codes])

    def surprise(self, rows: Int[Tensor, " b"], lessons: list[Lesson]) -> tuple[Tensor | float, Curves]:
        """Cross-entropy of the learned priors' guesses at what the search chose for the images at the given rows.

        Its gradient reaches the priors alone: the search keeps none. The curve says by how many nats they guess better
        than chance, summed over modules.
        """
        if not lessons:
            return 0.0, {}
        losses, chance = [], 0.0
        for prior, lesson in zip(self.generator.priors, lessons, strict=True):
            assert isinstance(prior, Prior)
            losses.append(prior.loss(lesson.select(rows)).mean())
            chance += math.log(lesson.styles.shape[1])
        surprise = torch.stack(losses).sum()
        return surprise, {"camnet/prior_gain": chance - surprise.detach()}

    def holes(self, x: Float[Tensor, "b 3 h w"], step: int) -> tuple[Tensor | float, Curves]:
        """The painter's loss on images with holes, and its curve; nothing where no painter is to learn."""
        painter = self.generator.painter
        if painter is None or self.config.only_first:
            return 0.0, {}
        random = self._random("painter", step)
        hidden = self.tasks.holes(x, random).hidden
        styles = self.generator.painter_styles(len(x) * self.config.paintings, random).unflatten(0, (len(x), -1))
        sketch = self.generator.sketch(x, hidden)
        loss = painting_loss(painter, self.distance, sketch, x, hidden, styles).mean()
        return loss, {"camnet/fill_loss": loss.detach()}

    def colors(self, x: Float[Tensor, "b 3 h w"], step: int) -> tuple[Tensor | float, Curves]:
        """The colorist's loss on images, with its taste's, and their curves; nothing where no colorist is to learn."""
        colorist = self.generator.colorist
        if colorist is None or self.config.only_first:
            return 0.0, {}
        config = self.config.generator
        random = self._random("colorist", step)
        styles = torch.randn(len(x), config.schemes, config.global_code, generator=random, device=self.device)
        seen = self.generator.seen(x.mean(dim=1, keepdim=True))
        losses, surprise = coloring_loss(colorist, self.distance, seen, x, styles)
        gained = math.log(config.schemes) - surprise.detach().mean()
        figures: Curves = {"camnet/color_loss": losses.detach().mean(), "camnet/taste_gain": gained}
        return losses.mean() + surprise.mean(), figures

    def judgment(
        self, rows: Int[Tensor, " b"], degraded: Degraded, x: Float[Tensor, "n 3 h w"], step: int, progress: float
    ) -> tuple[Tensor | float, Curves]:
        """The adversary's share of the loss, with its weight, and its curves; nothing without an adversary.

        It sees every second image of a batch: the discriminator and one more pass through the generator would else
        double the time of a step.
        """
        if not self.adversary:
            return 0.0, {}
        random = self._random("adversary", step)
        part = degraded.select(rows[::2])
        made = self.generator(part, self.generator.codes(len(part), random), exemplars=False)[-1]
        return self._contest(part, x[rows[::2]], made, random, progress)

    def judgment_of_holes(
        self, x: Float[Tensor, "n 3 h w"], step: int, progress: float
    ) -> tuple[Tensor | float, Curves]:
        """Likewise, of what the painter alone makes of images with holes."""
        if not self.adversary:
            return 0.0, {}
        random = self._random("adversary", step)
        degraded = self.tasks.holes(x, random)
        made = self.generator.painted(degraded, degraded.kept, self.generator.painter_codes(len(x), random))
        return self._contest(degraded, x, made, random, progress)

    def _contest(
        self, degraded: Degraded, x: Tensor, made: Tensor, random: torch.Generator, progress: float
    ) -> tuple[Tensor, Curves]:
        """The adversary's share of the loss, with its weight, and its curves."""
        assert self.adversary is not None
        condition = self.generator.told(degraded)
        loss, discriminator = self.adversary.contest(self.generator, condition, x, made, random, one_cycle(progress))
        curves: Curves = {"camnet/adversarial_loss": loss.detach()}
        return self.config.adversarial_weight * loss, curves | {"camnet/discriminator_loss": discriminator}

    def _random(self, name: str, step: int) -> torch.Generator:
        """What a term draws from at a step."""
        return generator_at(self.config.seed, step, self.ranks.stream(name), self.device)
