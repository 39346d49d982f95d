"""Whether a generator has seen images that a run holds out, by its card.

The card says on which split of which images the weights were trained; its entry `before`, the same of the weights that
this training began with, and so on. What a card does not say (those of old trainings) is not held against it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from configs.data import DataConfig
from configs.errors import UsageError


def history(card: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The card, then what it keeps of the cards before it, newest first."""
    link: Mapping[str, Any] | None = card
    while link:
        yield link
        link = link.get("before")


def same_images(card: Mapping[str, Any], data: DataConfig, classes: tuple[str, ...] = ()) -> bool:
    """Whether a card names the images of a run.

    All folders have one name, `imagefolder`. Two that share no class are two sets, where the classes are known.

    Args:
        card: Of a generator.
        data: The run's images.
        classes: Names of the run's classes (`Splits.classes`); empty: unknown.
    """
    if card.get("data", {}).get("name") != data.name:
        return False
    own, others = set(classes), set(card.get("class_names", ()))
    return data.name != "imagefolder" or not own or not others or not own.isdisjoint(others)


def require_unseen(card: Mapping[str, Any], flag: str, data: DataConfig, classes: tuple[str, ...] = ()) -> None:
    """Refuse weights that were trained, at whatever time, on another split of the run's images.

    Args:
        card: Of the weights.
        flag: What named them, with its value, for the message.
        data: The run's images.
        classes: Names of the run's classes; empty: unknown.

    Raises:
        UsageError: If they were: such weights have seen images that the run holds out.
    """
    for link in history(card):
        if same_images(link, data, classes) and link["data"].get("seed") != data.seed:
            raise UsageError(
                f"{flag} was trained on the split of --data.seed {link['data'].get('seed')} and has seen held-out "
                f"images of --data.seed {data.seed}: take weights of that split, which python -m camnet.train makes"
            )
