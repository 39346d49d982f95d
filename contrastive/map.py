"""map.png: the features of many images on a plane, and beside it which classes are taken for which."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from training.atomic import explained

IMAGES = 2000
"""Most images on a map: more would only hide one another, and t-SNE would take minutes."""
DIMENSIONS = 50
"""Principal components that t-SNE starts from (van der Maaten and Hinton 2008, section 4.2: 30)."""
PERPLEXITY = 30.0
"""Neighbors that t-SNE tries to keep near; fewer where there are few images."""
NAMED = 20
"""Most classes that have a legend, and names along the matrix."""
COUNTED = 10
"""Most classes whose shares stand in the cells of the matrix."""
SHORT = 3
"""Letters up to which ten names stand side by side."""
CROWD = 10
"""A class's name stands where so many of its images are nearest together."""
DPI = 130

How = Literal["tsne", "pca"]


@dataclass(frozen=True)
class Map:
    """All that is drawn.

    Attributes:
        title: Which learner, and on which images.
        subtitle: Its figures.
        how: How the features were flattened.
        positions: Of each image on the plane.
        labels: True class of each.
        right: Whether the vote of the nearest neighbors found it.
        classes: Names of the classes.
        confusion: Images of each class (row) by what they were taken for (column).
    """

    title: str
    subtitle: str
    how: How
    positions: Float[Tensor, "n 2"]
    labels: Int[Tensor, " n"]
    right: Bool[Tensor, " n"]
    classes: Sequence[str]
    confusion: Int[Tensor, "c c"]


def flatten(features: Float[Tensor, "n f"], how: How, seed: int) -> Float[Tensor, "n 2"]:
    """Lay features out on a plane.

    Both look at directions (features of length 1), as the vote of the nearest neighbors does.

    Args:
        features: At least 4 of them.
        how: t-SNE (van der Maaten and Hinton 2008), or the two strongest principal components.
        seed: Equal seeds give equal maps on one machine.

    Returns:
        Positions on the CPU, in units that mean nothing.
    """
    z = torch.nn.functional.normalize(features.detach().float(), dim=1).cpu().numpy()
    if how == "pca":
        return torch.from_numpy(PCA(2, random_state=seed).fit_transform(z))
    z = PCA(min(DIMENSIONS, *z.shape), random_state=seed).fit_transform(z)
    perplexity = min(PERPLEXITY, (len(z) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return torch.from_numpy(tsne.fit_transform(z))


def crowded(positions: Float[Tensor, "n 2"]) -> Float[Tensor, " 2"]:
    """The position that has its `CROWD` nearest others nearest by: a middle may lie where there are none."""
    to_crowd = torch.cdist(positions, positions).sort(dim=1).values[:, min(CROWD, len(positions) - 1)]
    return positions[to_crowd.argmin()]


@matplotlib.rc_context({"text.parse_math": False})  # names of classes may hold dollar signs
def draw(drawn: Map, path: Path) -> None:
    """Draw a map into a PNG.

    Args:
        drawn: What to draw.
        path: Where the PNG goes.

    Raises:
        UsageError: If it cannot be written.
    """
    figure = Figure(figsize=(15.0, 7.6), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    figure.suptitle(f"{drawn.title}\n{drawn.subtitle}", fontsize=13)
    left, right = figure.subplots(1, 2, width_ratios=[1.12, 1])
    colors = palette(len(drawn.classes))
    _draw_points(left, drawn, colors)
    _draw_confusion(right, drawn)
    with explained(path):
        figure.savefig(path, dpi=DPI)


def palette(classes: int) -> Float[np.ndarray, "c 4"]:
    """One color per class: distinct ones while there are enough, then around the wheel."""
    if classes <= NAMED:
        return matplotlib.colormaps["tab10" if classes <= 10 else "tab20"](np.arange(classes))
    return matplotlib.colormaps["hsv"](np.linspace(0, 1, classes, endpoint=False))


def _draw_points(axis: Axes, drawn: Map, colors: Float[np.ndarray, "c 4"]) -> None:
    """Every image a dot, those that the vote takes for another class a cross; a class's name in its thickest crowd."""
    named = len(drawn.classes) <= NAMED
    x, y = drawn.positions.numpy().T
    right = drawn.right.numpy()
    for position, name in enumerate(drawn.classes):
        own = drawn.labels.numpy() == position
        color = colors[position : position + 1]
        axis.scatter(x[own & right], y[own & right], s=16, c=color, alpha=0.8, linewidths=0, label=name)
        axis.scatter(x[own & ~right], y[own & ~right], s=26, c=color, marker="x", linewidths=1.3)
        if named and own.any():
            outline = [withStroke(linewidth=3.5, foreground="white")]
            across, up = crowded(drawn.positions[torch.from_numpy(own)]).tolist()
            axis.text(across, up, name, ha="center", va="center", fontsize=13, weight="bold", path_effects=outline)
    if named:
        columns = min(len(drawn.classes), 10 if max(map(len, drawn.classes)) <= SHORT else 5)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=columns, fontsize=10, frameon=False,
                    markerscale=1.8, handletextpad=0.1, columnspacing=1.2)  # fmt: skip
    method = {"tsne": "t-SNE", "pca": "first two principal components"}[drawn.how]
    axis.set_title(f"{len(x)} images: {method} of the features   (× : kNN takes it for another class)", fontsize=11)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.margins(0.03)


def _draw_confusion(axis: Axes, drawn: Map) -> None:
    """The share of each class's images that the vote takes for each class."""
    share = (drawn.confusion / drawn.confusion.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    side = len(drawn.classes)
    # By the root, so that rare confusions are seen beside the diagonal.
    axis.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if side <= COUNTED:
        for row, column in zip(*share.nonzero(), strict=True):
            value = share[row, column]
            color = "white" if value > 0.35 else "black"
            axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=color, fontsize=10)
    if side <= NAMED:
        short = max(map(len, drawn.classes)) <= SHORT
        axis.set_xticks(
            range(side), drawn.classes, fontsize=10, rotation=0 if short else 45, ha="center" if short else "right"
        )
        axis.set_yticks(range(side), drawn.classes, fontsize=10)
        axis.tick_params(length=0)
    else:
        axis.set_xticks([])
        axis.set_yticks([])
    axis.set_title("what kNN takes each class for (% of the class's images)", fontsize=11)
    axis.set_xlabel("taken for")
    axis.set_ylabel("class")
