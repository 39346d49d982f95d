"""What an evaluation measures: which generators, on which images, in which cases.

Every image of a case is degraded once, equally for all generators, and restored K times by each that is trained for it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from camnet import frozen, metrics, sheet
from camnet.cards import are_other_images, cases_of, data_of, map_classes_of, same_layouts
from camnet.decorruptor import Decorruptor
from camnet.degraded import Degraded
from camnet.distance import CALIBRATION_IMAGES, Distance, Features
from camnet.features import added, lpips_source
from camnet.figures import figures
from camnet.fills import KINDS
from camnet.fit import caution
from camnet.table import Figures
from camnet.tasks import Case
from configs.data import DataConfig
from configs.errors import UsageError
from configs.evaluation import EvaluationConfig, stem
from configs.settings import suggestion
from env.images import ImageSet, load
from training.seeding import generator_at


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and on what.

    Attributes:
        config: The settings.
        operators: Generators by the name in the table; the first says which cases there are.
        cases: Cases to measure, and the names of the generators that are trained for them.
        data: Which images.
        x: The images, in [0, 1].
        maps: Their maps of classes, where the first generator was trained on such.
        distance: Compares images.
        digests: Of what was read: the images, and weights of LPIPS where these are among the features.
    """

    config: EvaluationConfig
    operators: dict[str, Decorruptor]
    cases: dict[str, tuple[Case, list[str]]]
    data: DataConfig
    x: Float[Tensor, "n 3 h w"]
    maps: UInt8[Tensor, "n h w"] | None
    distance: Distance
    digests: dict[str, str]

    @property
    def frechet(self) -> Features:
        """What Fréchet distances are taken on: the first of the added features; without any, the random ones."""
        return [*self.distance.extra, self.distance.random][0]

    def degraded(self, name: str) -> Degraded:
        """The images of a case: the same for every generator and any --batch."""
        case, _ = self.cases[name]
        return case(self.x, generator_at(self.config.seed, 0, f"degrade {name}", self.x.device), self.maps)

    def codes(self, name: str) -> torch.Generator:
        """What draws a case's codes: equally seeded for every generator."""
        return generator_at(self.config.seed, 0, f"codes {name}", self.x.device)

    def measure(
        self, before: Mapping[str, Mapping[str, Figures]], tell: Callable[[int], object] = lambda images: None
    ) -> Iterator[tuple[str, str, Figures, sheet.Block]]:
        """Case, generator, figures and a block of the sheet, one generator of one case after another.

        Args:
            before: Figures that are there already, by case and generator; they are not measured again.
            tell: Hears how many images are done, as they are.
        """
        config = self.config
        for name, (_, able) in self.cases.items():
            degraded = self.degraded(name)
            for who in able:
                operator, codes = self.operators[who], self.codes(name)
                measured = before.get(name, {}).get(who)
                if measured:
                    tell(len(self.x))
                else:
                    measured = figures(
                        operator, self.distance, self.x, degraded, config.k, codes, config.batch, self.frechet, tell
                    )
                title = f"{name} · {who}" if len(self.operators) > 1 else name
                yield name, who, measured, self.block(title, operator, degraded, self.codes(name))

    @torch.no_grad()
    def block(self, title: str, operator: Decorruptor, degraded: Degraded, random: torch.Generator) -> sheet.Block:
        """A few images of a case, evenly spread, for the sheet."""
        columns = min(sheet.COLUMNS, len(self.x))
        rows = torch.arange(columns, device=self.x.device) * len(self.x) // columns
        x, some = self.x[rows], degraded.select(rows)
        samples = operator.views(some, self.config.k, random)
        seen, truth = self.distance.features(samples.flatten(0, 1)), self.distance.features(x)
        distances = metrics.distances(self.distance.terms(seen, truth), columns)
        return sheet.Block(title, sheet.rows_of(x, some, samples, distances, sheet.SHOWN))


def prepare(config: EvaluationConfig, where: torch.device) -> Evaluation:
    """Load generators and images, and find the cases.

    Raises:
        UsageError: If weights, their cards, images or cases are not there, or do not fit one another.
    """
    operators, data = load_operators(config, where)
    who, first = next(iter(operators.items()))
    cases = chosen(cases_of(f"--generator {who}", first, where), config.cases)
    splits = load(data, where, map_classes_of(first.card))
    split: ImageSet = getattr(splits, config.split)
    images = split.thinned(config.images)
    for who, operator in operators.items():
        if said := caution(operator.card, who, data, splits.classes):
            print(said, file=sys.stderr)
    able: dict[str, tuple[Case, list[str]]] = {name: (case, []) for name, case in cases.items()}
    for who, operator in operators.items():
        for name in restorable(who, operator, first, cases, images.thinned(1)):
            able[name][1].append(who)
    extra = added(config.features, splits.train, config.seed, config.lpips)
    distance = Distance(splits.train.spread(CALIBRATION_IMAGES), 1.0, extra)
    digests = {"images": splits.digest}
    if "lpips" in config.features:
        digests["lpips"] = lpips_source(config.lpips).digest
    return Evaluation(config, operators, able, data, images.images(), images.layouts, distance, digests)


def load_operators(config: EvaluationConfig, where: torch.device) -> tuple[dict[str, Decorruptor], DataConfig]:
    """The generators by their short names (by what was given where two of these are equal), and the first's images.

    Raises:
        UsageError: If one is not there or given twice, or they restore images of different sizes.
    """
    given = (config.generator, *config.against)
    if len(set(given)) < len(given):
        twice = next(name for name in given if given.count(name) > 1)
        raise UsageError(f"--against {twice}: given twice; keep one of them")
    short = {name: stem(name) for name in given}
    names = short if len(set(short.values())) == len(given) else {name: name for name in given}
    precision = torch.bfloat16 if config.amp else torch.float32
    if config.generator in KINDS:
        raise UsageError(
            f"--generator {config.generator}: what is measured first says in which cases and on which images, and a "
            f"fill knows none; give weights of CAMNet, and --against {config.generator} beside them"
        )
    first = frozen.load(config.generator, where, precision)
    data = data_of(first.card, config)
    operators: dict[str, Decorruptor] = {names[config.generator]: first}
    for name in config.against:
        operator = operators[names[name]] = frozen.find(name, data, where, precision, flag="--against")
        if operator.size not in (first.size, None):
            raise UsageError(
                f"--against {name}: it restores images of {operator.size} pixels, {names[config.generator]} those of "
                f"{first.size}; measure them one by one"
            )
        if are_other_images(operator.card, first.card):
            print(
                f"--against {name}: trained on other images than {names[config.generator]}, perhaps on these",
                file=sys.stderr,
            )
    return operators, data


def restorable(
    name: str, operator: Decorruptor, first: Decorruptor, cases: Mapping[str, Case], image: ImageSet
) -> list[str]:
    """The cases that an operator can be measured on beside the first; an image to try them on is given.

    What has a card of CAMNet must be trained for the very case (factors, classes of layouts); anything else, for its
    task.
    """
    if "generator" in operator.card:
        own = cases_of(f"--against {name}", operator, image.pixels.device)
        same = same_layouts(operator.card, first.card)
        return [case for case in cases if case in own and (same or case != "layout")]
    x, maps, random = image.images(), image.layouts, torch.Generator(image.pixels.device)
    tasks = operator.tasks
    return [name for name, case in cases.items() if tasks is None or case(x, random, maps).task in tasks]


def chosen(cases: Mapping[str, Case], names: tuple[str, ...]) -> dict[str, Case]:
    """The named cases, in the order given; all of them where none is.

    Raises:
        UsageError: If a name is not among them.
    """
    for name in names:
        if name not in cases:
            raise UsageError(
                f"--cases {name!r}: not a case of this generator{suggestion(name, cases)}. Valid are "
                + ", ".join(map(repr, cases))
            )
    return {name: cases[name] for name in names or cases}
