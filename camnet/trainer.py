"""One round of training CAMNet by conditional IMLE: draw images, degrade them, search codes, learn from them.

The search runs without gradient; the codes that it finds serve one gradient step or several. Everything that a round
draws is a function of (seed, step), and everything that it changes lies in `Trainer.parts`.
"""

import sys
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from camnet import frozen
from camnet.adversary import Adversary
from camnet.code import Code
from camnet.degraded import Degraded
from camnet.distance import CALIBRATION_IMAGES, Distance
from camnet.features import added
from camnet.fit import caution, require_unseen
from camnet.generator import Generator
from camnet.imle import Found, pyramid, search
from camnet.layout import SAMPLE, Palette
from camnet.objective import Curves, Objective
from camnet.prior import Lesson
from camnet.start import Start, require_heard_alike, take_over
from camnet.tasks import Tasks
from configs.camnet import CamnetConfig
from configs.errors import UsageError
from env.images import ImageSet
from training.checkpoint import Stateful
from training.descent import Descent
from training.ranks import Ranks
from training.schedule import one_cycle
from training.seeding import generator_at, seeded

KEPT = (
    "command",
    "settings",
    "steps",
    "seconds",
    "distance",
    "file_sha256",
    "data",
    "class_names",
    "splits",
    "palette",
    "before",
)
"""What a card keeps of the card of the weights that the training began with."""


class Trainer:
    """Everything that a CAMNet training changes, and its one round."""

    def __init__(
        self,
        config: CamnetConfig,
        images: ImageSet,
        where: torch.device,
        ranks: Ranks | None = None,
        classes: tuple[str, ...] = (),
        origin: Start | None = None,
    ) -> None:
        """Make all that a training needs; it begins with `begin`.

        Args:
            config: The settings.
            images: The training images; they lie on the device.
            where: The device.
            ranks: The processes that train together.
            classes: Names of the images' classes; empty: unknown.
            origin: What checkpoints keep of the images; nothing by default.
        """
        self.config, self.images, self.device, self.classes = config, images, where, classes
        self.ranks, self.origin = ranks or Ranks.single(), origin or Start({})
        with seeded(config.seed, "generator"):
            self.generator = Generator(config.generator).to(where)
        if config.only_first:
            self.generator.requires_grad_(False)
            for part in (*self.generator.levels[: config.only_first], *self.generator.priors):
                part.requires_grad_(True)
        self.averaged = Generator(config.generator).to(where)
        self.averaged.load_state_dict(self.generator.state_dict())
        self.distance = Distance(
            images.spread(CALIBRATION_IMAGES),
            config.pixel_weight,
            added(config.features, images, config.seed, config.lpips),
            config.grid_weight,
            config.texture_weight,
        )
        fits = "layout" in config.generator.tasks and images.layouts is None
        self.tasks = Tasks(config.generator, config.grids, config.pure, self._palette() if fits else None)
        self.descent = Descent(self.generator, config.learning_rate, weight_decay=1e-4, clip=1.0, ranks=self.ranks)
        self.adversary = Adversary(config, where, self.ranks) if config.adversarial_weight > 0 else None
        self.objective = Objective(config, self.generator, self.distance, self.tasks, self.adversary, self.ranks, where)
        precision = torch.bfloat16 if config.amp else torch.float32
        self.generator.prepare(precision, config.compile)
        self.averaged.prepare(precision)
        if config.compile:
            self.distance.compile_parts()

    def _palette(self) -> Palette:
        """Of the training images."""
        classes = self.config.generator.layout_classes
        try:
            return Palette.fit(self.images.spread(SAMPLE), classes, self.config.seed)
        except ValueError as error:
            raise UsageError(f"--generator.layout-classes {classes}: {error}") from error

    def begin(self, resumed: bool = False) -> None:
        """Begin with the weights of --start, where they are given; to be called once, before the first round.

        A resumed training has its weights from a checkpoint, and mostly the card of those before them as well: --start
        is not opened then.

        Args:
            resumed: Whether a checkpoint was loaded.

        Raises:
            UsageError: If the weights cannot be used, or have seen what the split of these images holds out.
        """
        if self.config.start and not self.origin.before:
            self._take_up(resumed)
        colors = self.origin.before.get("palette") or []
        if self.tasks.palette is not None and len(colors) == len(self.tasks.palette):
            self.tasks.palette = Palette(torch.tensor(colors, device=self.device))  # the classes that the weights know

    def _take_up(self, resumed: bool) -> None:
        """Read the weights of --start and their card; a resumed training needs only the card."""
        config = self.config
        first = frozen.load(config.start, self.device, flag="--start")
        require_unseen(first.card, f"--start {config.start}", config.data, self.classes)
        said = caution(first.card, f"--start {config.start}", config.data, self.classes)
        if said and self.ranks.first:
            print(said, file=sys.stderr)
        if not resumed:
            weights = first.state_dict()
            drawn = ("priors.", *(f"{new}." for new in ("painter", "colorist") if config.only == f"--only-{new}"))
            own = {name: value for name, value in self.generator.state_dict().items() if not name.startswith(drawn)}
            only = config.only
            if only and any(name not in weights or weights[name].shape != own[name].shape for name in own):
                raise UsageError(
                    f"{only}: --start {config.start} is another network, so parts of this one would stay untrained; "
                    f"train it first, without {only}"
                )
            if only:
                require_heard_alike(first.settings, config)
            taken = take_over(weights, self.generator, config.start)
            self.averaged.load_state_dict(self.generator.state_dict())
            if self.ranks.first:
                print(f"--start {config.start}: {taken}")
        self.origin.before = {name: first.card[name] for name in KEPT if name in first.card}

    def parts(self) -> dict[str, Stateful]:
        """Everything that a round changes, and what the training was made of."""
        changing: dict[str, Stateful] = {"generator": self.generator, "averaged": self.averaged}
        if self.adversary:
            changing["adversary"] = self.adversary
        return {"origin": self.origin, **changing, "descent": self.descent}

    def round(self, step: int, progress: float) -> Iterator[Curves]:
        """Search once, then take one gradient step after another on the codes found; yields each step's figures."""
        config, objective = self.config, self.objective
        random = generator_at(config.seed, step, self.ranks.stream("camnet"), self.device)
        x, maps = self.batch(random)
        if config.only_painter or config.only_colorist:
            yield from self.study_finisher(x, step, progress)
            return
        tasks = config.generator.tasks
        degraded = self.tasks.draw(tasks[step // config.stride % len(tasks)], x, random, maps)
        targets = pyramid(x, config.generator.resolutions[: config.searched])
        found = self.search(degraded, targets, random)
        if config.only_prior:
            yield from self.study(found.lessons, step, progress)
            return
        codes = found.codes
        order = torch.arange(len(x), device=self.device)
        fresh = torch.ones(len(x), dtype=torch.bool, device=self.device)
        first = torch.zeros(len(x), device=self.device)
        taken = 0
        for turn in range(config.reuse):
            if turn:
                order = torch.randperm(len(x), generator=random, device=self.device)
                codes, fresh = self.search_again(codes, first, degraded, targets, random)
            seen = torch.empty_like(first)
            for rows in order.split(config.batch):
                losses = objective.losses(rows, degraded, targets, codes)
                surprise, gained = objective.surprise(rows, found.lessons)
                judgment, contest = objective.judgment(rows, degraded, x, step + taken, progress)
                holes, of_holes = objective.holes(x[rows], step + taken)
                colors, of_colors = objective.colors(x[rows], step + taken)
                norm = self.descent.step(losses.mean() + surprise + judgment + holes + colors, one_cycle(progress))
                self.average(step + taken)
                taken += 1
                seen[rows] = losses.detach()
                figures = {"camnet/loss": losses.detach().mean(), "camnet/grad_norm": norm}
                yield figures | gained | contest | of_holes | of_colors
            first = torch.where(fresh, seen, first)

    def study(self, lessons: list[Lesson], step: int, progress: float) -> Iterator[Curves]:
        """Learn the priors alone, from all images of a round as many times as their codes would have been used.

        The rest of the network has no gradient, and what has none is not stepped (nor does its weight decay).
        """
        config = self.config
        parts = torch.arange(config.batch * config.group, device=self.device).split(config.batch)
        for taken, rows in enumerate(parts * config.reuse):
            surprise, gained = self.objective.surprise(rows, lessons)
            assert isinstance(surprise, Tensor)
            norm = self.descent.step(surprise, one_cycle(progress))
            self.average(step + taken)
            yield {"camnet/grad_norm": norm, **gained}

    def study_finisher(self, x: Float[Tensor, "n 3 h w"], step: int, progress: float) -> Iterator[Curves]:
        """Train the colorist alone, or the painter, with its adversary where there is one; as `study` trains priors."""
        config = self.config
        for taken, some in enumerate(x.split(config.batch) * config.reuse):
            if config.only_painter:
                loss, figures = self.objective.holes(some, step + taken)
                judgment, contest = self.objective.judgment_of_holes(some[::2], step + taken, progress)
            else:
                loss, figures = self.objective.colors(some, step + taken)
                judgment, contest = 0.0, {}
            assert isinstance(loss, Tensor)
            norm = self.descent.step(loss + judgment, one_cycle(progress))
            self.average(step + taken)
            yield {"camnet/grad_norm": norm, **figures, **contest}

    def batch(self, random: torch.Generator) -> tuple[Float[Tensor, "n 3 h w"], UInt8[Tensor, "n h w"] | None]:
        """Draw the images of a round, with their maps of classes where there are any."""
        config = self.config
        index = torch.randint(len(self.images), (config.batch * config.group,), generator=random, device=self.device)
        x, maps = self.images.images(index), self.images.maps(index)
        if config.recolor:
            x = recolor(x, random)
        if config.flip:
            mirrored = torch.rand(len(x), 1, 1, 1, generator=random, device=self.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
            maps = None if maps is None else torch.where(mirrored[:, 0], maps.flip(-1), maps)
        return x, maps

    def search(self, degraded: Degraded, targets: list[Tensor], random: torch.Generator) -> Found:
        """The best code of every module for each image."""
        config = self.config
        candidates = config.candidates[: config.searched]
        return search(self.generator, self.distance, degraded, targets, candidates, random, config.reject)

    def search_again(
        self,
        codes: list[Code],
        found: Float[Tensor, " n"],
        degraded: Degraded,
        targets: list[Tensor],
        random: torch.Generator,
    ) -> tuple[list[Code], Bool[Tensor, " n"]]:
        """Adaptive IMLE (Aghabozorgi et al. 2023): new codes where the loss has fallen most, the old ones elsewhere.

        A departure: a fixed share of the images stands in for a threshold, so that shapes are fixed and the host need
        not wait.

        Args:
            codes: The codes in use.
            found: Each image's loss when its code was new.
            degraded: The images.
            targets: The truth.
            random: Draws the candidates.

        Returns:
            The codes to go on with, and which of them are new.
        """
        is_new = torch.zeros_like(found, dtype=torch.bool)
        count = round(self.config.adaptive * len(found))
        if not count:
            return codes, is_new
        every = torch.arange(len(found), device=self.device)
        with torch.no_grad():
            now = torch.cat(
                [self.objective.losses(rows, degraded, targets, codes) for rows in every.split(self.config.batch)]
            )
        rows = (now / found).topk(count, largest=False).indices
        better = self.search(degraded.select(rows), [t[rows] for t in targets], random).codes
        mixed = [
            Code(old.style.index_copy(0, rows, new.style), old.noise.index_copy(0, rows, new.noise))
            for old, new in zip(codes, better, strict=True)
        ]
        return mixed, is_new.index_fill(0, rows, True)

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Let the averaged weights, which are what is exported, follow the trained ones.

        At first they follow faster: a third of what a training of a thousand steps exports would else be the weights
        that it began with.
        """
        decay = min(self.config.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.generator.parameters()), 1 - decay)


def recolor(x: Float[Tensor, "n 3 h w"], random: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Permute the color channels of each image and invert half of the images.

    Keeps the distribution of digits in colors that were drawn uniformly; photographs have no such symmetry.
    """
    n, device = len(x), x.device
    order = torch.rand(n, 3, generator=random, device=device).argsort(dim=1)
    x = x.gather(1, order[:, :, None, None].expand_as(x))
    invert = torch.rand(n, 1, 1, 1, generator=random, device=device) < 0.5
    return torch.where(invert, 1 - x, x)
