"""What a person looks at: truth, degraded image and restorations, one column per image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor
from torchvision.utils import make_grid

from camnet.degraded import Degraded
from camnet.layout import Layout, draw_layout
from env.pictures import hatching
from training.atomic import explained

COLUMNS = 8
"""Images in a sheet."""
SHOWN = 4
"""Restorations of each in the PNG, besides the best."""
DPI = 110
BLOCK_WIDTH = 4.2
"""Width of a block of the PNG in inches; more where its pixels need it."""
MARGIN = 0.9
"""Inches beside a block for the titles of its rows."""


@dataclass(frozen=True)
class Block:
    """One part of the PNG: a title over rows of images.

    Attributes:
        title: What stands above it.
        rows: Images by title, equally many in each row.
    """

    title: str
    rows: Mapping[str, Float[Tensor, "n 3 h w"]]


def sheet_grid(
    x: Float[Tensor, "n 3 h w"],
    degraded: Degraded,
    samples: Float[Tensor, "n k 3 h w"],
    distances: Float[Tensor, "n k"],
) -> Float[Tensor, "3 H W"]:
    """One small picture for TensorBoard: rows truth, degraded, each restoration, the best; at most 8 columns.

    Args:
        x: The truth.
        degraded: What was restored.
        samples: The restorations.
        distances: How far each is from the truth.

    Returns:
        The picture, in [0, 1].
    """
    return grid(rows_of(x, degraded, samples, distances))


def rows_of(
    x: Float[Tensor, "n 3 h w"],
    degraded: Degraded,
    samples: Float[Tensor, "n k 3 h w"],
    distances: Float[Tensor, "n k"],
    shown: int | None = None,
) -> dict[str, Float[Tensor, "c 3 h w"]]:
    """The rows of a sheet by title, for the first 8 images: truth, degraded, `shown` restorations (all), the best."""
    columns = torch.arange(min(len(x), COLUMNS), device=x.device)
    kept, k = samples[columns], samples.shape[1]
    return {
        "truth": x[columns],
        "degraded": drawn(degraded.select(columns)),
        **{f"sample {j + 1}": kept[:, j] for j in range(k if shown is None else min(shown, k))},
        f"best of {k}": kept[columns, distances[columns].argmin(dim=1)],
    }


def drawn(degraded: Degraded) -> Float[Tensor, "n 3 h w"]:
    """A degraded image to look at: hidden pixels striped, JPEG decoded, a layout in colors that mean nothing else."""
    if isinstance(degraded, Layout):
        return draw_layout(degraded.labels)
    return torch.where(degraded.hidden.bool(), hatching(degraded.kept), degraded.kept)


def grid(rows: Mapping[str, Float[Tensor, "n 3 h w"]]) -> Float[Tensor, "3 H W"]:
    """All rows as one picture."""
    images = list(rows.values())
    return make_grid(torch.cat(images), nrow=len(images[0]), padding=_padding(images[0]), pad_value=1.0)


@matplotlib.rc_context({"text.parse_math": False})  # names of weights may hold dollar signs
def draw(blocks: Sequence[Block], columns: int, path: Path) -> None:
    """Draw blocks, row by row, into a PNG.

    Args:
        blocks: Blocks of equally large images.
        columns: Blocks side by side, at most.
        path: Where the PNG goes.

    Raises:
        UsageError: If it cannot be written.
    """
    pictures = [grid(block.rows).cpu() for block in blocks]
    height, width = pictures[0].shape[1:]
    inches = max(BLOCK_WIDTH, width / DPI)
    columns = min(columns, len(blocks))
    lines = -(-len(blocks) // columns)
    size = (columns * (inches + MARGIN), lines * (inches * height / width + 0.4))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes[len(blocks) :]:
        axis.axis("off")
    for axis, block, picture in zip(axes, blocks, pictures, strict=False):
        _draw_block(axis, block, picture)
    with explained(path):
        figure.savefig(path, dpi=DPI)


def _draw_block(axis: Axes, block: Block, picture: Float[Tensor, "3 H W"]) -> None:
    first = next(iter(block.rows.values()))
    step, padding = first.shape[2] + _padding(first), _padding(first)
    axis.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
    axis.set_title(block.title, fontsize=12)
    axis.set_yticks([padding + step * (row + 0.5) - 0.5 * padding for row in range(len(block.rows))], list(block.rows))
    axis.tick_params(length=0, labelsize=10)
    axis.set_xticks([])
    axis.set_frame_on(False)


def _padding(images: Float[Tensor, "n 3 h w"]) -> int:
    """Pixels between images."""
    return max(1, images.shape[2] // 32)
