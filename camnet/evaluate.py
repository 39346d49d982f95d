"""Measure a frozen generator: `python -m camnet.evaluate --generator digits`. Writes figures, a table and a sheet.

Every image of a case is degraded once and restored K times. What is noted of each image stays on the device, in
float64; figures are made of all images together, at the end.
"""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from camnet import frozen, metrics, sheet
from camnet.decorruptor import Decorruptor
from camnet.degraded import Degraded
from camnet.distance import CALIBRATION_IMAGES, Distance
from camnet.layout import Palette
from camnet.table import COLUMNS, FRECHET_IMAGES, Figures, table
from camnet.tasks import Case, Tasks
from configs.camnet import GeneratorConfig
from configs.data import DataConfig
from configs.errors import UsageError, as_program
from configs.evaluation import EvaluationConfig, stem
from configs.reading import read
from configs.settings import suggestion
from env.images import ImageSet, load
from training import device
from training.atomic import explained, write_atomically
from training.provenance import provenance
from training.seeding import generator_at


@torch.no_grad()
def figures(
    operator: Decorruptor,
    distance: Distance,
    x: Float[Tensor, "n 3 h w"],
    degraded: Degraded,
    k: int,
    random: torch.Generator,
    batch: int = 100,
) -> Figures:
    """Measure K restorations of each image; `COLUMNS` says what the figures mean.

    Args:
        operator: Restores.
        distance: Compares images.
        x: The truth, in [0, 1].
        degraded: What is restored.
        k: Restorations of each image, at least 2.
        random: Draws the codes.
        batch: Images restored at once, k times each.

    Returns:
        The figures by name; no `frechet_distance` below `FRECHET_IMAGES` images.
    """
    parts = []
    for rows in torch.arange(len(x), device=x.device).split(batch):
        some = degraded.select(rows)
        parts.append(observe(distance, x[rows], some, operator.views(some, k, random)))
    result = summarize({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    return dict(zip(result, torch.stack(list(result.values())).tolist(), strict=True))


def observe(
    distance: Distance, x: Float[Tensor, "n 3 h w"], degraded: Degraded, samples: Float[Tensor, "n k 3 h w"]
) -> dict[str, Tensor]:
    """Note of each image what figures are made of: n rows each, in float64."""
    seen, truth = distance.features(samples.flatten(0, 1)), distance.features(x)
    variance, pixels = metrics.spread(samples, degraded.touched())
    hue, change = metrics.hue_parts(samples[:, 0], samples[:, 1])
    noted = {
        "distance": metrics.distances(distance, seen, truth),
        "from_mean": metrics.distances(distance, seen, distance.features(samples.mean(dim=1))),
        "plain": distance.between(distance.features(metrics.plain_fill(degraded)), truth),
        "apart": distance.among(seen, samples.shape[1]),
        "psnr": metrics.psnr(samples, x),
        "ssim": metrics.ssim(samples, x),
        "variance": variance,
        "pixels": pixels,
        "hue": hue,
        "change": change,
        "residual": metrics.residual(degraded, samples),
        "real": metrics.pooled(distance.random, x),
        "made": metrics.pooled(distance.random, samples[:, 0]),
    }
    return {name: value.double() for name, value in noted.items()}


def summarize(seen: Mapping[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
    """The figures from what was noted of all images, in the order of `COLUMNS`."""
    best, plain = seen["distance"].amin(dim=1), seen["plain"]
    sigma = metrics.BANDWIDTH * plain.mean()
    result = {
        "best_distance": best.mean(),
        "mean_distance": seen["distance"].mean(),
        "plain_distance": plain.mean(),
        "best_psnr": seen["psnr"].amax(dim=1).mean(),
        "mean_psnr": seen["psnr"].mean(),
        "best_ssim": seen["ssim"].amax(dim=1).mean(),
        "mean_ssim": seen["ssim"].mean(),
        "coverage": metrics.coverage(best, plain),
        "diversity": seen["variance"].sum().div(seen["pixels"].sum().clamp(min=1)).sqrt(),
        "feature_diversity": seen["apart"].mean(),
        "weighted_variance": metrics.weighted_variance(seen["distance"], seen["from_mean"], sigma),
        "hue_share": seen["hue"].sum() / seen["change"].sum().clamp(min=1e-12),
        "residual": seen["residual"].amax(),
    }
    if len(best) >= FRECHET_IMAGES:
        result["frechet_distance"] = metrics.frechet_distance(seen["real"], seen["made"])
    return result


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and on what.

    Attributes:
        config: The settings.
        operators: Generators by the name in the table; the first says which cases there are.
        cases: Cases to measure, and the names of the generators that are trained for them.
        data: Which images.
        x: The images, in [0, 1].
        distance: Compares them.
    """

    config: EvaluationConfig
    operators: dict[str, Decorruptor]
    cases: dict[str, tuple[Case, list[str]]]
    data: DataConfig
    x: Float[Tensor, "n 3 h w"]
    distance: Distance

    def degraded(self, name: str) -> Degraded:
        """The images of a case: the same for every generator and any --batch."""
        case, _ = self.cases[name]
        return case(self.x, generator_at(self.config.seed, 0, f"degrade {name}", self.x.device))

    def codes(self, name: str) -> torch.Generator:
        """What draws a case's codes: equally seeded for every generator."""
        return generator_at(self.config.seed, 0, f"codes {name}", self.x.device)

    def measure(self) -> Iterator[tuple[str, str, Figures, sheet.Block]]:
        """Case, generator, figures and a block of the sheet, one generator of one case after another."""
        config = self.config
        for name, (_, able) in self.cases.items():
            degraded = self.degraded(name)
            for who in able:
                operator = self.operators[who]
                measured = figures(
                    operator, self.distance, self.x, degraded, config.k, self.codes(name), batch=config.batch
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
        distances = metrics.distances(
            self.distance, self.distance.features(samples.flatten(0, 1)), self.distance.features(x)
        )
        return sheet.Block(title, sheet.rows_of(x, some, samples, distances, sheet.SHOWN))


def prepare(config: EvaluationConfig, where: torch.device) -> Evaluation:
    """Load generators and images, and find the cases.

    Raises:
        UsageError: If weights, their cards, images or cases are not there, or do not fit one another.
    """
    operators, data = load_operators(config, where)
    who, first = next(iter(operators.items()))
    cases = chosen(cases_of(who, first, where), config.cases)
    splits = load(data, where)
    images: ImageSet = getattr(splits, config.split)
    x = images.spread(config.images)
    able: dict[str, tuple[Case, list[str]]] = {name: (case, []) for name, case in cases.items()}
    for who, operator in operators.items():
        for name in restorable(who, operator, first, cases, x[:1]):
            able[name][1].append(who)
    distance = Distance(splits.train.spread(CALIBRATION_IMAGES), pixel_weight=1.0)
    return Evaluation(config, operators, able, data, x, distance)


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
    first = frozen.load(config.generator, where, precision)
    data = data_of(first.card, config)
    operators: dict[str, Decorruptor] = {names[config.generator]: first}
    for name in config.against:
        operator = operators[names[name]] = frozen.find(name, data, where, precision)
        if operator.size not in (first.size, None):
            raise UsageError(
                f"--against {name}: it restores images of {operator.size} pixels, {names[config.generator]} those of "
                f"{first.size}; measure them one by one"
            )
        if _trained_on(operator.card) not in (_trained_on(first.card), {}):
            print(
                f"--against {name}: trained on other images than {names[config.generator]}, perhaps on these",
                file=sys.stderr,
            )
    return operators, data


def data_of(card: Mapping[str, Any], config: EvaluationConfig) -> DataConfig:
    """The images that a generator was trained for, in the folder that is given.

    Raises:
        UsageError: If the card does not say, or names a set that there is none of.
    """
    own = {"root": config.data_root, "download": config.download}
    try:
        return DataConfig(**{name: _tupled(value) for name, value in card["data"].items()} | own)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"--generator {config.generator}: its card does not say which images it is for ({error})"
        ) from error


def cases_of(name: str, operator: Decorruptor, where: torch.device) -> dict[str, Case]:
    """The cases that a generator is trained for, by its card.

    Raises:
        UsageError: If the card is damaged.
    """
    card = operator.card
    try:
        settings = GeneratorConfig(**{key: _tupled(value) for key, value in card["generator"].items()})
        colors = card.get("palette")
        palette = Palette(torch.tensor(colors, device=where)) if colors else None
        return Tasks(settings, tuple(card.get("grids", (4,))), 0.0, palette).cases()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"--generator {name}: its card is damaged ({error})") from error


def restorable(
    name: str, operator: Decorruptor, first: Decorruptor, cases: Mapping[str, Case], x: Float[Tensor, "1 3 h w"]
) -> list[str]:
    """The cases that an operator can be measured on beside the first.

    What has a card of CAMNet must be trained for the very case (factors, classes of layouts); anything else, for its
    task.
    """
    if "generator" in operator.card:
        own = cases_of(name, operator, x.device)
        same = operator.card.get("palette") == first.card.get("palette")
        return [case for case in cases if case in own and (same or case != "layout")]
    random = torch.Generator(x.device)
    tasks = operator.tasks
    return [name for name, case in cases.items() if tasks is None or case(x, random).task in tasks]


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


def report(evaluation: Evaluation, measured: Mapping[str, Mapping[str, Figures]], argv: list[str]) -> dict[str, Any]:
    """What is written as figures.json."""
    config = evaluation.config
    return {
        "command": command_of(argv),
        "split": config.split,
        "images": len(evaluation.x),
        "k": config.k,
        "batch": config.batch,
        "seed": config.seed,
        "amp": config.amp,
        "data": {name: str(v) if isinstance(v, Path) else v for name, v in asdict(evaluation.data).items()},
        "distance": evaluation.distance.name,
        "frechet_features": features_name(evaluation),
        "definitions": {name: column.meaning for name, column in COLUMNS.items()},
        "generators": {
            name: {"weights_sha256": operator.sha256(), "trained_by": operator.card.get("command")}
            for name, operator in evaluation.operators.items()
        },
        "cases": measured,
        "provenance": provenance(),
    }


def page(evaluation: Evaluation, rows: str, argv: list[str]) -> str:
    """What is written as table.md: the table, how it was made, and what its columns mean."""
    data, config = evaluation.data, evaluation.config
    meanings = "".join(f"- **{column.title}**: {column.meaning}.\n" for column in COLUMNS.values())
    return (
        f"# {', '.join(evaluation.operators)}\n\n{len(evaluation.x)} {config.split} images of {data.name}, "
        f"{data.size} × {data.size}; K = {config.k} restorations of each; seed {config.seed}. "
        f"d: `{evaluation.distance.name}`. Fréchet features: {features_name(evaluation)}.\n\n"
        f"    {command_of(argv)}\n\n{rows}\n"
        f"Means over images unless said otherwise.\n\n{meanings}"
    )


def command_of(argv: list[str]) -> str:
    """The command as it may be given to a shell again."""
    return f"python -m camnet.evaluate {shlex.join(argv)}".rstrip()


def features_name(evaluation: Evaluation) -> str:
    """What stands beside Fréchet distances."""
    return f"{evaluation.distance.random.name} pooled"


def main(argv: list[str]) -> None:
    """Measure, write figures, table and sheet, print the table."""
    config = read(EvaluationConfig, argv, prog="python -m camnet.evaluate", description=str(EvaluationConfig.__doc__))
    evaluation = prepare(config, device.resolve(config.device))
    with explained(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, dict[str, Figures]] = {}
    blocks = []
    with tqdm(total=sum(len(able) for _, able in evaluation.cases.values()), desc="measuring", leave=False) as bar:
        for case, who, values, block in evaluation.measure():
            measured.setdefault(case, {})[who] = values
            blocks.append(block)
            bar.update()
    rows = table(measured)
    write_atomically(
        config.out / "figures.json", (json.dumps(report(evaluation, measured, argv), indent=2) + "\n").encode()
    )
    write_atomically(config.out / "table.md", page(evaluation, rows, argv).encode())
    sheet.draw(blocks, max(2, len(evaluation.operators)), config.out / "sheet.png")
    print(f"{len(evaluation.x)} {config.split} images, K = {config.k}, d: {evaluation.distance.name}\n\n{rows}")
    print(f"{config.out}: figures.json, table.md (with what the columns mean), sheet.png")


def _trained_on(card: Mapping[str, Any]) -> dict[str, Any]:
    """Which images a card names, wherever they lay."""
    data = card.get("data")
    return {k: v for k, v in data.items() if k not in ("root", "download")} if isinstance(data, Mapping) else {}


def _tupled(value: Any) -> Any:
    """JSON has lists where the settings have tuples."""
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    as_program("camnet.evaluate", main, "nothing was written")
