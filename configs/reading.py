"""From flags and YAML files to one validated configuration, and back to YAML.

A YAML file is nothing but stored flags: `--config FILE` is replaced by the flags that the file states, and
one typed parser reads everything. Hence one grammar, and what comes later wins.
"""

import contextlib
import dataclasses
import io
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from configs.errors import UsageError
from configs.places import at_home
from configs.settings import suggestion, table
from configs.yamlfile import stored_settings

T = TypeVar("T")

EPILOGUE = """\
--config FILE reads settings from a YAML file, as if its lines stood there as flags. It may be given several \
times; what comes later wins, so flags after it override the file."""
RESUMES = "\n\nThe same command resumes an interrupted run."


def read(kind: type[T], argv: Sequence[str], *, prog: str, description: str, resumes: bool = False) -> T:
    """Read a configuration from flags and the YAML files among them.

    Args:
        kind: A frozen dataclass such as `RunConfig`; its docstrings are the help.
        argv: The flags, without the program's name.
        prog: The program's name as the help shows it.
        description: What the program does, for the help.
        resumes: Whether the same command goes on where the program was stopped, for the help.

    Returns:
        The validated configuration.

    Raises:
        UsageError: If a file is not usable, or a value is not among the choices or out of bounds. Names the
            flag (or the file and key), what was given and what is allowed.
        SystemExit: With status 0 after `--help`; with status 2 after flags that do not parse, explained on
            stderr.
    """
    flags, sources = _spliced(kind, argv)
    _check_choices(kind, flags)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            found = tyro.cli(
                kind,
                args=flags,
                prog=prog,
                description=f"{description}\n\n{EPILOGUE}{RESUMES * resumes}",
                config=(tyro.conf.FlagConversionOff,),
            )
        return _at_home(found)
    except SystemExit as stop:
        violation = _violated_bound(stop)
        if violation is None:
            sys.stderr.write(complaint.getvalue())
            raise
        raise UsageError(violation + _blame(kind, violation, sources)) from None


def write(config: Any) -> str:
    """Return the configuration as YAML text that `read` turns into an equal configuration.

    Args:
        config: A configuration dataclass.

    Returns:
        One line a setting, keys spelled as flags.
    """
    return yaml.dump(_tree(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000)


def differences(old: T, new: T) -> dict[str, tuple[Any, Any]]:
    """Compare two configurations of one kind.

    Args:
        old: A configuration dataclass.
        new: Another of the same class.

    Returns:
        Dotted flag name (with hyphens, without dashes) -> (old value, new value), only for unequal settings.
    """
    before, after = dict(_values(_tree(old))), dict(_values(_tree(new)))
    return {name: (value, after[name]) for name, value in before.items() if value != after[name]}


def _at_home(config: T) -> T:
    """The configuration with `~` in its paths expanded, as a shell does only at the beginning of a word."""
    for entry in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, entry.name)
        if isinstance(value, Path):
            object.__setattr__(config, entry.name, at_home(value))
        elif dataclasses.is_dataclass(value):
            _at_home(value)
    return config


def _spliced(kind: type, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Replace each --config by the file's flags; also tell which file each setting's last value came from."""
    flags: list[str] = []
    sources: dict[str, str] = {}
    waiting = iter(argv)
    for token in waiting:
        if token == "--config" or token.startswith("--config="):
            name = token.partition("=")[2] or next(waiting, "")
            if not name or name.startswith("--"):
                raise UsageError("--config needs the path of a YAML file: --config FILE")
            for setting, texts in stored_settings(at_home(Path(name)), kind):
                # With `=` even an empty text, or one that starts with a dash, is a value.
                flags += [f"--{setting.name}", *texts] if setting.is_sequence else [f"--{setting.name}={texts[0]}"]
                sources[setting.name] = name
        else:
            flags.append(token)
            if setting_here := table(kind).get(_spelling(token)):
                sources.pop(setting_here.name, None)
    return flags, sources


def _spelling(token: str) -> str:
    return token[2:].partition("=")[0].replace("_", "-") if token.startswith("--") else ""


def _check_choices(kind: type, flags: Sequence[str]) -> None:
    """Refuse a value that is not among the choices; the parser would, too, but without naming the nearest."""
    for token, following in zip(flags, [*flags, "--"][1:], strict=True):
        setting = table(kind).get(_spelling(token))
        value = token.partition("=")[2] if "=" in token else following
        if setting is None or not setting.choices or value.startswith("--") or value in setting.choices:
            continue
        raise UsageError(
            f"{token.partition('=')[0]} must be {setting.expectation}, got {value!r}"
            + suggestion(value, setting.choices)
        )


def _violated_bound(stop: SystemExit) -> str | None:
    """Return the message of the ValueError that a `__post_init__` raised, if that ended the parser."""
    cause: BaseException | None = stop
    while cause is not None:
        frames = traceback.walk_tb(cause.__traceback__)
        if isinstance(cause, ValueError) and any(f.f_code.co_name == "__post_init__" for f, _ in frames):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _blame(kind: type, message: str, sources: dict[str, str]) -> str:
    """Name the files that the settings in a message were read from."""
    named = {table(kind)[flag].name for flag in re.findall(r"--([a-z.-]*[a-z])", message) if flag in table(kind)}
    origins = [f"{name} comes from {sources[name]}" for name in sorted(named) if name in sources]
    return f" ({'; '.join(origins)})" if origins else ""


class _Dumper(yaml.SafeDumper):
    """Writes tuples as lists on one line and paths as texts."""


_Dumper.add_representer(tuple, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, True))
_Dumper.add_multi_representer(Path, lambda dumper, data: dumper.represent_str(str(data)))


def _tree(config: Any) -> dict[str, Any]:
    return {
        entry.name.replace("_", "-"): _tree(value) if dataclasses.is_dataclass(value) else value
        for entry in dataclasses.fields(config)
        for value in (getattr(config, entry.name),)
    }


def _values(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _values(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
