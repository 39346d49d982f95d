"""What a person looks at: image, mask, corrupted, its decorruptions, and what the learner is shown, row by row."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from env.corruption import FACTORS, Action, Corrupted
from training.atomic import explained

MOST_VIEWS = 4
"""Views of an image that a sheet shows."""


@dataclass(frozen=True)
class Sheet:
    """A few images on their way through corruption and decorruption.

    Attributes:
        image: As they were.
        corrupted: What is left of them.
        views: k decorruptions of each.
        shown: What the learner sees of those, where that is something else: chosen, augmented.
    """

    image: Float[Tensor, "n 3 h w"]
    corrupted: Corrupted
    views: Float[Tensor, "k n 3 h w"]
    shown: Float[Tensor, "j n 3 h w"] | None = None

    def rows(self) -> dict[str, Float[Tensor, "n 3 h w"]]:
        """The rows by title."""
        hidden = self.corrupted.hidden
        return {
            "image": self.image,
            "mask": hidden.expand_as(self.image),
            "corrupted": torch.where(hidden.bool(), hatching(self.image), self.corrupted.kept),
            **_numbered("view", self.views),
            **(_numbered("shown", self.shown) if self.shown is not None else {}),
        }

    def grid(self) -> Float[Tensor, "3 H W"]:
        """All rows as one small picture, for TensorBoard."""
        rows = list(self.rows().values())
        return make_grid(torch.cat(rows), nrow=len(self.image), padding=1, pad_value=1.0)


def _numbered(name: str, views: Float[Tensor, "k n 3 h w"]) -> dict[str, Float[Tensor, "n 3 h w"]]:
    """The first few of them by title."""
    return {f"{name} {number}": view for number, view in enumerate(views[:MOST_VIEWS], start=1)}


def hatching(like: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Diagonal stripes for hidden pixels: any plain color could be the image's own."""
    rows, columns = (torch.arange(size, device=like.device) for size in like.shape[-2:])
    stripes = (rows[:, None] + columns[None, :]) % 4 < 2
    return torch.where(stripes, 0.75, 0.25).expand_as(like)


def describe(action: Action) -> list[str]:
    """In a few words what each action deletes besides cells."""
    words = []
    for factor, gray in zip(action.downsample.tolist(), action.decolorize.tolist(), strict=True):
        parts = [f"1/{FACTORS[factor]}"] * (factor > 0) + ["gray"] * gray
        words.append(" ".join(parts) or "–")
    return words


def draw(sheets: Mapping[str, Sheet], path: Path) -> None:
    """Draw sheets side by side into a PNG.

    Args:
        sheets: Sheets of equally many images, by title ("before training").
        path: Where the PNG goes.
    """
    n = len(next(iter(sheets.values())).image)
    rows = max(len(sheet.rows()) for sheet in sheets.values())
    figure = Figure(figsize=(1.05 * n * len(sheets) + 1, 1.1 * rows + 0.5), layout="constrained")
    parts = figure.subfigures(1, len(sheets), squeeze=False)[0]
    for part, (title, sheet) in zip(parts, sheets.items(), strict=True):
        part.suptitle(title, fontsize=12)
        axes = part.subplots(rows, n, squeeze=False)
        words = describe(sheet.corrupted.action)
        for row, (name, images) in zip(axes, sheet.rows().items(), strict=True):
            for axis, image in zip(row, images.cpu(), strict=True):
                axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
            row[0].set_ylabel(name, fontsize=10)
            if name == "corrupted":
                for axis, word in zip(row, words, strict=True):
                    axis.set_xlabel(word, fontsize=8)
    with explained(path):
        figure.savefig(path, dpi=110)
