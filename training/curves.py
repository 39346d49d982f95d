"""curves.png: the run's curves on one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from training.atomic import explained
from training.logbook import History


def draw(
    history: History,
    panels: Mapping[str, Sequence[str]],
    path: Path,
) -> None:
    """Draw curves into a PNG.

    Args:
        history: Steps and values by tag.
        panels: Tags by panel title, in reading order; tags without a curve are left out.
        path: Where the PNG goes.
    """
    columns = 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, tags) in zip(axes, panels.items(), strict=False):
        for tag in tags:
            if tag in history:
                axis.plot(*history[tag], label=tag, linewidth=1.2)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("learner step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        if axis.lines:
            axis.legend(fontsize=7)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    with explained(path):
        figure.savefig(path, dpi=110)
