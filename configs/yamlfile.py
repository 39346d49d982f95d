"""YAML files as stored flags: parsed to texts with their line numbers, never to Python objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from configs.errors import UsageError
from configs.settings import Setting, nearest, sections, suggestion, table


def stored_settings(path: Path, kind: type) -> list[tuple[Setting, list[str]]]:
    """Read the settings that a YAML file states.

    Values stay texts, because PyYAML would read `3e-4` as text but `on` as a boolean; the parser of the flags
    knows each setting's type. Keys may use `-` or `_`, and aliases hold: `reward: none` is
    `reward.name: none`.

    Args:
        path: The file.
        kind: The configuration dataclass that it belongs to.

    Returns:
        Each setting with its value's texts (one, or several for a list), in the file's order.

    Raises:
        UsageError: If the file cannot be read, is not a mapping, or holds an unknown key, a repeated key or a
            value of the wrong type. Names the file, the line, the key, the value and what would fit.
    """
    found: dict[str, tuple[Setting, list[str]]] = {}
    for setting, node in _entries(_root(path), path, kind, ""):
        if setting.name in found:
            raise UsageError(f"{_place(path, node)}: {setting.name} is given twice; keep one of them")
        found[setting.name] = setting, _texts(setting, node, path)
    return list(found.values())


def _root(path: Path) -> yaml.MappingNode:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read ({error.strerror}); check the path") from error
    except (UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"--config {path}: must hold `key: value` lines, for example `seed: 1`")
    return root


def _entries(mapping: yaml.MappingNode, path: Path, kind: type, prefix: str) -> Iterator[tuple[Setting, yaml.Node]]:
    known, groups = table(kind), sections(kind)
    for key, value in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{_place(path, key)}: a key must be a plain word")
        name = prefix + key.value.replace("_", "-")
        # Sections are checked before descending, which also ends a file whose anchors refer to themselves.
        if isinstance(value, yaml.MappingNode) and name in groups:
            yield from _entries(value, path, kind, name + ".")
        elif name not in known:
            reason = "is a section: put its keys below it" if name in groups else "is not a setting"
            close = nearest(name, known)
            raise UsageError(f"{_place(path, key)}: {prefix}{key.value} {reason}; the nearest valid key is {close}")
        else:
            yield known[name], value


def _texts(setting: Setting, node: yaml.Node, path: Path) -> list[str]:
    items: list[Any] = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not all(isinstance(item, yaml.ScalarNode) for item in items):
        raise UsageError(f"{_place(path, node)}: {setting.name} must be {setting.expectation}, got a nested value")
    for item in items:
        if item.style is None and item.value.lower() in ("", "null", "~"):
            raise UsageError(
                f"{_place(path, node)}: {setting.name} has no value: it must be {setting.expectation}. "
                "Give one, or remove the line to keep the default"
            )
    texts = [item.value for item in items]
    if setting.annotation is bool:
        texts = [text.capitalize() if text.lower() in ("true", "false") else text for text in texts]
    if (isinstance(node, yaml.SequenceNode) and not setting.is_sequence) or not setting.accepts(texts):
        given = texts[0] if isinstance(node, yaml.ScalarNode) else f"[{', '.join(texts)}]"
        raise UsageError(
            f"{_place(path, node)}: {setting.name} must be {setting.expectation}, got {given!r}"
            + suggestion(given, setting.choices)
        )
    return texts


def _place(path: Path, node: yaml.Node) -> str:
    return f"--config {path}, line {node.start_mark.line + 1}"
