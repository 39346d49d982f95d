"""policy.png: where a policy hides, what it does to single images, and how it came there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from training.atomic import explained
from training.logbook import History

WIDTH = 15.0
"""Inches."""
DPI = 110
ANNOTATED = 8
"""Largest grid whose cells carry their numbers."""
CLASSES = 20
"""Classes that are shown at most; ten stand in a row."""
CLASSES_A_ROW = 10
NARROWEST = 0.05
"""Smallest difference of probabilities from one end of a color scale to the other: noise must not look like a rule."""
RATES = {
    "policy/mask_ratio": "mask ratio",
    "policy/p_decolorize": "P(gray)",
    "policy/p_downsample_2": "P(1/2)",
    "policy/p_downsample_4": "P(1/4)",
}
"""Curves of the upper panel, by tag."""
ENTROPY = "policy/entropy"
HIDDEN, UNDECIDED = "magma", "cividis"
"""Color maps: of probabilities that a cell is hidden, and of entropies."""


@dataclass(frozen=True)
class Examples:
    """A few images, and one corruption of each.

    Attributes:
        title: What they have in common.
        image: As they are.
        drawn: As one draw of the policy leaves them.
        above: What stands above each image.
        below: What stands below each.
    """

    title: str
    image: Float[Tensor, "n 3 h w"]
    drawn: Float[Tensor, "n 3 h w"]
    above: Sequence[str]
    below: Sequence[str]


@dataclass(frozen=True)
class Portrait:
    """All that is drawn.

    Attributes:
        title: Which policy, and on which images.
        masks: Mean masks by title, on one color scale.
        entropy: Of each cell, in bits.
        classes: Mean mask of each class by name.
        examples: Groups of images, side by side.
        history: The run's curves.
    """

    title: str
    masks: Mapping[str, Float[Tensor, "s s"]]
    entropy: Float[Tensor, "s s"]
    classes: Mapping[str, Float[Tensor, "s s"]]
    examples: Sequence[Examples]
    history: History

    def scale(self) -> Normalize:
        """The color scale of the mean masks, from 0."""
        return Normalize(0, max(0.1, max(mask.amax().item() for mask in self.masks.values())))

    def class_scale(self) -> Normalize:
        """The color scale of the classes: only as wide as they need, or small differences would not be seen."""
        shown = torch.stack(list(self.classes.values()))
        low, high = shown[~shown.isnan()].aminmax()
        margin = max(0.0, NARROWEST - (high - low).item()) / 2
        return Normalize(low.item() - margin, high.item() + margin)


@matplotlib.rc_context({"text.parse_math": False})  # names of classes may hold dollar signs
def draw(portrait: Portrait, path: Path) -> None:
    """Draw a portrait into a PNG.

    Args:
        portrait: What to draw.
        path: Where the PNG goes.

    Raises:
        UsageError: If it cannot be written.
    """
    lines = -(-min(len(portrait.classes), CLASSES) // CLASSES_A_ROW)
    heights = [3.7, 1.75 * lines + 0.35, 3.75]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.5), layout=ConstrainedLayoutEngine(h_pad=0.06))
    figure.suptitle(portrait.title, fontsize=15)
    top, middle, bottom = figure.subfigures(3, 1, squeeze=False, height_ratios=heights, hspace=0.04)[:, 0]
    maps, curves = top.subfigures(1, 2, squeeze=False, width_ratios=[len(portrait.masks) + 1, 1.7])[0]
    _draw_maps(maps, portrait)
    _draw_curves(curves, portrait.history)
    _draw_classes(middle, portrait, lines)
    groups = bottom.subfigures(1, len(portrait.examples), squeeze=False)[0]
    for part, examples in zip(groups, portrait.examples, strict=True):
        _draw_examples(part, examples)
    with explained(path):
        figure.savefig(path, dpi=DPI)


def _draw_maps(part: SubFigure, portrait: Portrait) -> None:
    """Mean masks, and the entropy beside them."""
    axes = part.subplots(1, len(portrait.masks) + 1, squeeze=False)[0]
    for axis, (title, mask) in zip(axes, portrait.masks.items(), strict=False):
        _heat(axis, mask, portrait.scale(), HIDDEN, numbers=True)
        axis.set_title(title, fontsize=12)
    _colorbar(part, list(axes[:-1]), portrait.scale(), HIDDEN, "P(cell is hidden)")
    _heat(axes[-1], portrait.entropy, Normalize(0, 1), UNDECIDED, numbers=True)
    axes[-1].set_title("how undecided", fontsize=12)
    _colorbar(part, [axes[-1]], Normalize(0, 1), UNDECIDED, "entropy of the cell (bits)")


def _draw_curves(part: SubFigure, history: History) -> None:
    """How the policy moved: its rates, and its entropy below."""
    upper, lower = part.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    for tag, label in RATES.items():
        _curve(upper, history, tag, label)
    _curve(lower, history, ENTROPY, "entropy", color="black")
    upper.set_title("through training", fontsize=12)
    upper.set_ylim(-0.03, 1.03)
    upper.set_ylabel("rate", fontsize=10)
    lower.set_ylabel("entropy\n(nats per image)", fontsize=10)
    lower.set_xlabel("learner step", fontsize=10)
    if upper.lines:
        upper.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for axis in (upper, lower):
        axis.grid(alpha=0.25)
        axis.tick_params(labelsize=9)


def _draw_classes(part: SubFigure, portrait: Portrait, lines: int) -> None:
    """One small mean mask per class."""
    shown = list(portrait.classes.items())[:CLASSES]
    more = f" (the first {CLASSES} of {len(portrait.classes)})" if len(portrait.classes) > CLASSES else ""
    part.suptitle(f"mean mask of each class{more}, and its mask ratio", fontsize=12)
    axes = part.subplots(lines, CLASSES_A_ROW, squeeze=False).ravel()
    for axis, (name, mask) in zip(axes, shown, strict=False):
        _heat(axis, mask, portrait.class_scale(), HIDDEN, numbers=False)
        axis.set_title(_shortened(name), fontsize=10)
        axis.set_xlabel("no images" if mask.isnan().any() else f"{mask.mean().item():.2f}", fontsize=9)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    _colorbar(
        part, list(axes[: len(shown)]), portrait.class_scale(), HIDDEN, "P(cell is hidden)", location="right", aspect=12
    )


def _draw_examples(part: SubFigure, examples: Examples) -> None:
    """Images above, one draw of each below."""
    part.suptitle(examples.title, fontsize=12)
    axes = part.subplots(2, len(examples.image), squeeze=False)
    for row, images in zip(axes, (examples.image, examples.drawn), strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            _bare(axis)
    for upper, lower, above, below in zip(*axes, examples.above, examples.below, strict=True):
        upper.set_title(above, fontsize=9)
        lower.set_xlabel(below, fontsize=9)
    for axis, name in zip(axes[:, 0], ("image", "one draw"), strict=True):
        axis.set_ylabel(name, fontsize=10)


def _heat(axis: Axes, values: Float[Tensor, "s s"], scale: Normalize, colors: str, numbers: bool) -> None:
    """A map of cells, with their numbers where there is room."""
    axis.imshow(values.numpy(), norm=scale, cmap=colors, interpolation="nearest")
    _bare(axis)
    side = len(values)
    if not numbers or side > ANNOTATED:
        return
    for row in range(side):
        for column in range(side):
            value = values[row, column].item()
            color = "black" if scale(value) > 0.6 else "white"
            text = f"{value:.2f}".removeprefix("0")
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=11 if side <= 4 else 7)


def _colorbar(
    part: SubFigure,
    axes: Sequence[Axes],
    scale: Normalize,
    colors: str,
    label: str,
    location: str = "bottom",
    aspect: int = 30,
) -> None:
    """What the colors of some maps mean."""
    bar = part.colorbar(ScalarMappable(scale, colors), ax=axes, location=location, shrink=0.7, aspect=aspect, pad=0.02)
    bar.set_label(label, fontsize=10)
    bar.ax.tick_params(labelsize=9)


def _curve(axis: Axes, history: History, tag: str, label: str, color: str | None = None) -> None:
    if tag in history:
        alone = len(history[tag][0]) == 1  # a line through one point is none
        axis.plot(*history[tag], label=label, color=color, linewidth=1.5, marker="o" if alone else None)


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])


def _shortened(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
