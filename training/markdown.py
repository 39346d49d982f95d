"""Tables of figures as Markdown that can be read as text, too."""

from collections.abc import Sequence
from typing import NamedTuple


class Column(NamedTuple):
    """How a figure is shown.

    Attributes:
        title: What it is called.
        form: How it is written, as `format` takes it.
        meaning: What it says.
    """

    title: str
    form: str
    meaning: str


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lay cells out as a table; the first line is its head.

    Args:
        lines: The cells, equally many in each line.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in ruled]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)
