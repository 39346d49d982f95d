"""Settings stored as JSON, rebuilt with type checks, which dataclasses lack."""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def typed(kind: type[T], entries: Any) -> T:
    """Make a configuration of entries as JSON has them: with lists where settings have tuples.

    Args:
        kind: A configuration dataclass of bools, ints, texts, paths, choices and tuples of such, any number long.
        entries: Settings by name; what is left out has its default.

    Raises:
        TypeError: If there are no entries by name, there is no such setting, or a value is of another type.
        ValueError: If a value is out of bounds.
    """
    if not isinstance(entries, Mapping):
        raise TypeError(f"settings by name are expected, not {entries!r}")
    hints = get_type_hints(kind)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()}
    for name, value in given.items():
        if name not in hints:
            raise TypeError(f"there is no setting {name}")
        if not _is(value, hints[name]):
            raise TypeError(f"{name} cannot be {value!r}")
    return kind(**given)


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is(part, get_args(kind)[0]) for part in value)
    if get_origin(kind) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(kind))
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))  # to Python True is an int
