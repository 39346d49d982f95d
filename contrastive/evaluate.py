"""Measure what a run's learner has learned: `python -m contrastive.evaluate runs/NAME`. Figures, table and map.

Accuracies are those of frozen features: the learner is never trained here, and it is compared bit for bit with what it
was before. docs/evaluation.md says how to read each figure.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from configs.augment import AugmentConfig
from configs.data import DataConfig
from configs.errors import UsageError, as_program
from configs.probe import ProbeConfig
from configs.reading import read
from contrastive import map as features_map
from contrastive.alignment import alignment, distance, uniformity
from contrastive.encoder import Learner
from contrastive.features import digest, encoded, features, projections, unchanged
from contrastive.knn import knn_classes
from contrastive.linear_probe import linear_classes
from contrastive.rank import rankme
from contrastive.table import FIGURES, by_class, class_table, table
from contrastive.trained import Trained
from contrastive.trained import load as load_trained
from env.augment.expert import Expert
from env.images import ImageSet, load
from training import device
from training.atomic import explained, write_atomically, write_json
from training.provenance import command_of, provenance
from training.seeding import generator_at

PROGRAM = "contrastive.evaluate"
PAIRS = 2000
"""Most images behind alignment, evenly spread."""
FEWEST = 10
"""Images below which nothing is measured."""
SPACES: dict[str, Callable[[Learner, Tensor], Tensor]] = {"projections": projections, "features": features}
"""Where alignment, uniformity and RankMe are measured: what the loss compares, and what a task downstream uses."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and on what.

    Attributes:
        config: The settings.
        trained: The learner, and the run it comes from.
        data: Which images.
        classes: Their names.
        bank: Training images with their classes.
        asked: What is asked about.
        digest: Of the images as they were read.
    """

    config: ProbeConfig
    trained: Trained
    data: DataConfig
    classes: tuple[str, ...]
    bank: ImageSet
    asked: ImageSet
    digest: str


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes:
        figures: By the names of `FIGURES`.
        confusions: Images of each class (row) by what the vote and the probe took them for, by `knn` and `linear`.
        lengths: How many numbers a vector has in each of `SPACES`.
        drawing: The map.
    """

    figures: dict[str, float]
    confusions: dict[str, Int[Tensor, "c c"]]
    lengths: dict[str, int]
    drawing: features_map.Map


def prepare(config: ProbeConfig, where: torch.device) -> Evaluation:
    """Load the learner and the images.

    Raises:
        UsageError: If there is no such run, its images are not there, or they are too few to measure anything.
    """
    trained = load_trained(config.run, where)
    data = trained.config.data.in_folder(config.data_root)
    splits = load(data, where)
    if trained.images not in ("", splits.digest):
        print(
            f"{config.run} learned from other images than lie in {data.root} now, perhaps from some that are asked "
            "about; --data.root names the folder of its own",
            file=sys.stderr,
        )
    asked: ImageSet = getattr(splits, config.split)
    bank, asked = splits.train.thinned(config.train_images), asked.thinned(config.test_images)
    for flag, images in (("train", bank), ("test", asked)):
        if len(images) < FEWEST:
            raise UsageError(f"--{flag}-images: {len(images)} images measure nothing; take at least {FEWEST}")
    if len(bank.labels.unique()) < 2:
        raise UsageError(
            f"{config.run}: its {len(bank)} training images are all of one class, so that there is nothing to tell "
            "apart. Evaluate on images of several classes, or raise --train-images"
        )
    return Evaluation(config, trained, data, splits.classes, bank, asked, splits.digest)


@torch.no_grad()
def measure(e: Evaluation) -> Measured:
    """Measure all of it, long parts with a line on stderr.

    Raises:
        UsageError: If the learner gives features that are not finite.
    """
    config, learner, labels = e.config, e.trained.learner, e.asked.labels
    bank = encoded(features, learner, e.bank, "training images")
    asked = {name: encoded(space, learner, e.asked, name) for name, space in SPACES.items()}
    if not all(z.isfinite().all() for z in (bank, *asked.values())):
        raise UsageError(f"{config.run}: its learner gives features that are not finite: the run has diverged")
    say(f"a linear probe on {len(bank)} images and {bank.shape[1]} features")
    predicted = {
        "knn": knn_classes(bank, e.bank.labels, asked["features"], config.k, config.temperature),
        "linear": linear_classes(bank, e.bank.labels, asked["features"]),
    }
    figures = {f"{name}_top1": (guess == labels).double().mean().item() for name, guess in predicted.items()}
    say("alignment, uniformity, RankMe")
    figures |= alignments(e)
    figures |= {f"uniformity_{name}": uniformity(F.normalize(z, dim=1)).item() for name, z in asked.items()}
    figures |= {f"rankme_{name}": rankme(z).item() for name, z in asked.items()}
    confusions = {name: multiclass_confusion_matrix(guess, labels, len(e.classes)) for name, guess in predicted.items()}
    say("the map")
    return Measured(
        {name: figures[name] for name in FIGURES},
        confusions,
        {name: z.shape[1] for name, z in asked.items()},
        drawing(e, figures, asked["features"], predicted["knn"], confusions["knn"]),
    )


def alignments(e: Evaluation) -> dict[str, float]:
    """Alignment of two augmented views of each image, and distance of views of different images, in each space."""
    learner, x = e.trained.learner, e.asked.thinned(PAIRS).images()
    expert = Expert(pair_law(e.data), e.config.augment_strength, e.data.size)
    random = generator_at(e.config.seed, 0, "alignment", x.device)
    v1, v2 = expert(x, random), expert(x, random)
    figures = {}
    for name, space in SPACES.items():
        u1, u2 = (F.normalize(space(learner, v), dim=1) for v in (v1, v2))
        figures[f"alignment_{name}"] = alignment(u1, u2).item()
        figures[f"distance_{name}"] = distance(u1).item()
    return figures


def pair_law(data: DataConfig) -> AugmentConfig:
    """How the two views of alignment's pairs are augmented: alike for all runs on a set, whatever these trained with.

    SimCLR's crop, flip, color jitter and grayscale; on digits only color, since a digit that is cut or flipped may be
    another one.
    """
    return AugmentConfig(crop="none", flip=0.0) if data.name == "digits" else AugmentConfig()


def pairs_named(e: Evaluation) -> str:
    """What stands beside alignment."""
    law = pair_law(e.data)
    geometry = "no crop, no flip" if law.crop == "none" else f"{law.crop} crop, flip {law.flip:g}"
    return f"color jitter, grayscale {law.gray:g}, {geometry}; strength {e.config.augment_strength:g}"


def drawing(
    e: Evaluation,
    figures: Mapping[str, float],
    z: Float[Tensor, "n f"],
    guess: Int[Tensor, " n"],
    counts: Int[Tensor, "c c"],
) -> features_map.Map:
    """Lay the features of some images out on a plane, evenly spread over those asked about."""
    labels = e.asked.labels
    wanted = min(len(labels), features_map.IMAGES)
    rows = torch.linspace(0, len(labels) - 1, wanted, dtype=torch.float64, device=labels.device).round().long()
    return features_map.Map(
        title=f"{e.config.run.resolve().name}, step {e.trained.step}: {len(labels)} {e.config.split} images of "
        f"{e.data.name}",
        subtitle=f"kNN {figures['knn_top1']:.1%}   ·   linear {figures['linear_top1']:.1%}   ·   "
        f"RankMe {figures['rankme_features']:.0f} of {min(z.shape)}",
        how=e.config.map,
        positions=features_map.flatten(z[rows], e.config.map, e.config.seed),
        labels=labels[rows].cpu(),
        right=(guess == labels)[rows].cpu(),
        classes=e.classes,
        confusion=counts.cpu(),
    )


def report(e: Evaluation, measured: Measured, argv: list[str]) -> dict[str, Any]:
    """What is written as figures.json."""
    config = e.config
    return {
        "command": command_of(PROGRAM, argv),
        "run": config.run.resolve().name,
        "step": e.trained.step,
        "checkpoint": str(e.trained.path),
        "learner_sha256": digest(e.trained.learner),
        "data": e.data.as_json(),
        "data_digest": e.digest,
        "split": config.split,
        "images": {"train": len(e.bank), config.split: len(e.asked), "pairs": min(len(e.asked), PAIRS)},
        "k": config.k,
        "temperature": config.temperature,
        "pairs": pairs_named(e),
        "seed": config.seed,
        "lengths": measured.lengths,
        "definitions": {name: column.meaning for name, column in FIGURES.items()},
        "figures": measured.figures,
        "classes": by_class(e.classes, measured.confusions),
        "confusion": {name: counts.tolist() for name, counts in measured.confusions.items()},
        "provenance": provenance(config.device),
    }


def measured_on(e: Evaluation, measured: Measured) -> str:
    """One paragraph: which learner, on which images, how."""
    config, lengths = e.config, measured.lengths
    return (
        f"Learner of {config.run.resolve().name} at step {e.trained.step} ({e.trained.path.name}): "
        f"{lengths['features']} features, {lengths['projections']} projections. {len(e.asked)} {config.split} images "
        f"of {e.data.name}, {e.data.size} × {e.data.size}; {len(e.bank)} training images behind kNN (k = {config.k}, "
        f"T = {config.temperature:g}) and linear probe. Pairs of alignment: {min(len(e.asked), PAIRS)} images, "
        f"{pairs_named(e)}. RankMe can be {min(lengths['projections'], len(e.asked))} and "
        f"{min(lengths['features'], len(e.asked))} at most."
    )


def page(e: Evaluation, measured: Measured, argv: list[str]) -> str:
    """What is written as table.md."""
    title = e.config.run.resolve().name
    return f"# {title}\n\n{measured_on(e, measured)}\n\n    {command_of(PROGRAM, argv)}\n\n{tables(e, measured)}"


def tables(e: Evaluation, measured: Measured) -> str:
    """Both tables."""
    return f"{table(measured.figures)}\n{class_table(e.classes, measured.confusions)}"


def say(text: str) -> None:
    """Tell a waiting person what is going on."""
    print(text, file=sys.stderr)


def main(argv: list[str]) -> None:
    """Measure, make sure that the learner is what it was, write figures, table and map, print the tables."""
    config = read(ProbeConfig, argv, prog=f"python -m {PROGRAM}", description=str(ProbeConfig.__doc__))
    e = prepare(config, device.resolve(config.device))
    with explained(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    with unchanged(e.trained.learner):
        measured = measure(e)
    write_json(config.out / "figures.json", report(e, measured, argv))
    write_atomically(config.out / "table.md", page(e, measured, argv).encode())
    features_map.draw(measured.drawing, config.out / "map.png")
    print(f"{measured_on(e, measured)}\n\n{tables(e, measured)}")
    print(f"{config.out}: figures.json, table.md, map.png")


if __name__ == "__main__":
    as_program(PROGRAM, main, "nothing was written")
