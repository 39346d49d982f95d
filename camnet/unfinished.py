"""Rows of an evaluation that was interrupted, so that the same command goes on where it stopped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camnet.table import Figures
from training.atomic import write_json

Measured = dict[str, dict[str, Figures]]
"""Figures by case and generator."""


def file_in(folder: Path) -> Path:
    """Where the rows of an evaluation wait while it is going on."""
    return folder / "unfinished.json"


def keep(folder: Path, made_by: Mapping[str, Any], rows: Measured) -> None:
    """Keep the rows measured so far, with what they were made by."""
    write_json(file_in(folder), {"made_by": made_by, "rows": rows})


def kept(folder: Path, made_by: Mapping[str, Any]) -> Measured:
    """The rows that were measured before; none where something else made them, or the file is damaged.

    Args:
        folder: Of the evaluation.
        made_by: All that the figures depend on, as JSON knows it.
    """
    try:
        found = json.loads(file_in(folder).read_text())
    except (OSError, ValueError):
        return {}
    same = isinstance(found, dict) and found.get("made_by") == json.loads(json.dumps(made_by))
    rows = found.get("rows") if same else None
    return rows if isinstance(rows, dict) else {}


def clear(folder: Path) -> None:
    """Delete the kept rows: the evaluation is done."""
    file_in(folder).unlink(missing_ok=True)
