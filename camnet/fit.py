"""Whether a generator can serve a run, and has not seen what the run holds out: that its card tells.

The card says on which split of which images the weights were trained; its entry `before`, the same of the weights that
this training began with, and so on. What a card does not say (those of old trainings) is not held against it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from camnet.decorruptor import Decorruptor
from configs.data import DataConfig
from configs.errors import UsageError
from env.actions import CHOICES
from env.corruption import FACTORS
from env.folders import splits_at


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
        UsageError: If they were, or a card does not say on which: such weights have seen images that the run holds out.
    """
    for link in history(card):
        if not same_images(link, data, classes):
            continue
        if "seed" not in link["data"]:
            raise UsageError(
                f"{flag}: its card says that it was trained on {data.name}, and not on which split, so it may have "
                "seen what this run holds out; put the seed of its split beside the name"
            )
        if link["data"]["seed"] != data.seed:
            raise UsageError(
                f"{flag} was trained on the split of --data.seed {link['data']['seed']} and has seen held-out "
                f"images of --data.seed {data.seed}: take weights of that split, which python -m camnet.train makes"
            )


def caution(card: Mapping[str, Any], flag: str, data: DataConfig, classes: tuple[str, ...] = ()) -> str:
    """What to say of weights that were trained on images of the same classes from a folder with other splits.

    They may have seen images that the run holds out; or the images may be others, which nothing here can tell.

    Args:
        card: Of the weights.
        flag: What named them, with its value.
        data: The run's images.
        classes: Names of the run's classes; empty: unknown.

    Returns:
        Nothing where there is nothing to say.
    """
    if data.name != "imagefolder":
        return ""
    here = splits_at(data.root)
    for link in history(card):
        if same_images(link, data, classes) and link.get("splits") not in (None, list(here)):
            there = " and ".join(f"{name}/" for name in link["splits"]) or "no splits in it"
            return (
                f"{flag} was trained on a folder with {there}, --data.root {data.root} is split otherwise. If the "
                "images are the same, it has seen some that are held out here"
            )
    return ""


def require_fit(
    operator: Decorruptor, name: str, data: DataConfig, classes: tuple[str, ...] = (), factors: int = CHOICES
) -> None:
    """Refuse a decorruptor that cannot serve a run, or that has seen its held-out images.

    Args:
        operator: The decorruptor.
        name: What --generator came to, for the message.
        data: The run's images.
        classes: Names of the run's classes (`Splits.classes`), which tell one folder from another; empty: unknown.
        factors: The run asks for no downsampling but by the first so many of `FACTORS`; 1: for none.

    Raises:
        UsageError: If sizes differ, it does not restore what a policy deletes, or its card names other splits, or a
            part, of the same images.
    """
    flag = f"--generator {name}"
    if operator.size not in (None, data.size):
        raise UsageError(
            f"{flag} restores images of {operator.size} pixels, --data.size is {data.size}: train one with python -m "
            "camnet.train, or change --data.size"
        )
    if operator.tasks is not None and "mix" not in operator.tasks:
        raise UsageError(f"{flag} does not restore what a policy deletes: train one for --generator.tasks mix")
    if operator.factors is not None and operator.factors < factors:
        used = ", ".join(map(str, FACTORS[:factors]))
        raise UsageError(
            f"{flag} can distinguish only the first {operator.factors} of the downsampling factors, this run uses "
            f"{used}: train one with --generator.factors {factors}"
        )
    require_unseen(operator.card, flag, data, classes)
    if not same_images(operator.card, data, classes):
        return
    trained = operator.card["data"]
    if trained.get("size", data.size) != data.size:
        raise UsageError(f"{flag} was trained on images of {trained['size']} pixels, --data.size is {data.size}")
    if trained.get("classes") and not covers(operator.card, data, classes):
        part = operator.card.get("class_names", trained["classes"])
        raise UsageError(
            f"{flag} was trained only on the classes {', '.join(part)}: choose among them by --data.classes, or "
            "train one for all with python -m camnet.train"
        )


def covers(card: Mapping[str, Any], data: DataConfig, classes: tuple[str, ...]) -> bool:
    """Whether a generator that was trained on a part of a set has seen all classes of a run on that set.

    They are compared by name. A class may have been given by its number, and a folder may hold no others than these, so
    what was typed decides only where names are missing.
    """
    if classes and "class_names" in card:
        return set(classes) <= set(card["class_names"])
    return bool(data.classes) and set(data.classes) <= set(card["data"]["classes"])
