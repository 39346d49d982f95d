"""What the card of a generator says of its training: on which images, and for which cases."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from camnet.decorruptor import Decorruptor
from camnet.layout import Palette
from camnet.tasks import Case, Tasks
from configs.camnet import GeneratorConfig
from configs.data import DataConfig
from configs.errors import UsageError
from configs.evaluation import EvaluationConfig
from configs.typed import typed


def data_of(card: Mapping[str, Any], config: EvaluationConfig) -> DataConfig:
    """The images that a generator was trained for, in the folder that is given.

    Raises:
        UsageError: If the card does not say, or names a set that there is none of.
    """
    try:
        trained = typed(DataConfig, card["data"] | {"root": config.data_root})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"--generator {config.generator}: its card does not say which images it is for ({error})"
        ) from error
    try:
        return replace(trained, download=config.download)
    except ValueError as error:
        raise UsageError(str(error)) from error


def cases_of(given: str, operator: Decorruptor, where: torch.device) -> dict[str, Case]:
    """The cases that a generator is trained for, by its card; `given` is what named it, for the message.

    Raises:
        UsageError: If the card is damaged.
    """
    card = operator.card
    try:
        settings = typed(GeneratorConfig, card["generator"])
        colors = card.get("palette")
        palette = Palette(torch.tensor(colors, device=where)) if colors else None
        return Tasks(settings, tuple(card.get("grids", (4,))), 0.0, palette).cases()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{given}: its card is damaged ({error})") from error


def map_classes_of(card: Mapping[str, Any]) -> int:
    """How many classes the maps beside a generator's images may have; 0: it was trained without maps."""
    return card["generator"]["layout_classes"] if card.get("layouts") == "maps" else 0


def same_layouts(card: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether layouts mean the same to two generators that were trained for them."""
    return card.get("palette") == other.get("palette") and map_classes_of(card) == map_classes_of(other)


def are_other_images(card: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two generators were trained on images that differ in set, split or classes, as far as both cards say."""
    ours, theirs = card.get("data"), other.get("data")
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return False
    if any(ours[key] != theirs[key] for key in ("name", "seed") if key in ours and key in theirs):
        return True
    if "class_names" in card and "class_names" in other:
        return set(card["class_names"]) != set(other["class_names"])
    return set(ours.get("classes", ())) != set(theirs.get("classes", ()))
