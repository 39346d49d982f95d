"""The table of all settings of a configuration class: dotted names, aliases, and which values fit."""

import dataclasses
import difflib
import functools
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal


@dataclasses.dataclass(frozen=True)
class Setting:
    """One leaf of the configuration.

    Attributes:
        name: Dotted flag name without dashes: `policy.mask-ratio`.
        annotation: Its type, as written in the dataclass but without aliases.
        aliases: Other spellings of the flag, without dashes: `reward` for `reward.name`.
    """

    name: str
    annotation: Any
    aliases: tuple[str, ...]

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed texts where they are few; empty where they are not."""
        return _choices(self.annotation)

    @property
    def is_sequence(self) -> bool:
        """Whether the setting takes several values."""
        return typing.get_origin(self.annotation) is tuple

    @property
    def expectation(self) -> str:
        """What fits, in words that follow "must be"."""
        if not self.is_sequence:
            return _words(self.annotation)
        items = typing.get_args(self.annotation)
        count = "values" if Ellipsis in items else f"{len(items)} values"
        return f"a list of {count}, each {_words(items[0])}"

    def accepts(self, texts: Sequence[str]) -> bool:
        """Tell whether these texts can be read as the setting's type (bounds are the dataclass's affair)."""
        if not self.is_sequence:
            return len(texts) == 1 and _fits(self.annotation, texts[0])
        items = typing.get_args(self.annotation)
        if Ellipsis in items:
            items = (items[0],) * len(texts)
        return len(items) == len(texts) and all(map(_fits, items, texts))


@functools.cache
def table(kind: type) -> dict[str, Setting]:
    """Map every spelling (dotted name and aliases, without dashes) of every setting of a dataclass to it."""
    return {spelling: setting for setting in _leaves(kind, "") for spelling in (setting.name, *setting.aliases)}


def sections(kind: type) -> set[str]:
    """Return the dotted names that hold other settings: `policy`, `reward.reference`."""
    return {
        setting.name[:end]
        for setting in table(kind).values()
        for end, character in enumerate(setting.name)
        if character == "."
    }


def nearest(word: str, candidates: Iterable[str], cutoff: float = 0.0) -> str | None:
    """Return the candidate most like the word, or None where none is at least `cutoff` (0 to 1) alike."""
    return next(iter(difflib.get_close_matches(word, list(candidates), n=1, cutoff=cutoff)), None)


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """Return ` (did you mean X?)` where a candidate X is close to the word, otherwise nothing."""
    close = nearest(word, candidates, cutoff=0.6)
    return f" (did you mean {close}?)" if close else ""


def _leaves(kind: type, prefix: str) -> Iterator[Setting]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for entry in dataclasses.fields(kind):
        name, hint = prefix + entry.name.replace("_", "-"), hints[entry.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _leaves(hint, name + ".")
            continue
        aliases: tuple[str, ...] = ()
        if typing.get_origin(hint) is Annotated:
            hint, *notes = typing.get_args(hint)
            aliases = tuple(alias.lstrip("-") for note in notes for alias in getattr(note, "aliases", None) or ())
        yield Setting(name, hint, tuple(alias for alias in aliases if alias != name))


def _choices(annotation: Any) -> tuple[str, ...]:
    if annotation is bool:
        return ("True", "False")
    return tuple(map(str, typing.get_args(annotation))) if typing.get_origin(annotation) is Literal else ()


def _fits(annotation: Any, text: str) -> bool:
    if choices := _choices(annotation):
        return text in choices
    if annotation in (int, float):
        try:
            annotation(text)
        except ValueError:
            return False
    return True


def _words(annotation: Any) -> str:
    if choices := _choices(annotation):
        return "one of " + ", ".join(choices)
    return {int: "a whole number", float: "a number", str: "a text", Path: "a path"}.get(annotation, str(annotation))
