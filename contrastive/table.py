"""What each figure of contrastive.evaluate means, and the tables that show them."""

from collections.abc import Mapping, Sequence

from jaxtyping import Int
from torch import Tensor

from training.markdown import Column, aligned

FIGURES = {
    "knn_top1": Column("kNN ↑", ".1%", "share of images whose class wins the vote of the nearest training images"),
    "linear_top1": Column("linear ↑", ".1%", "the same for logistic regression on the frozen features"),
    "alignment_projections": Column("alignment, projections ↓", ".3f", "mean squared distance of two augmented views "
                                    "of one image, as unit vectors"),
    "alignment_features": Column("alignment, features ↓", ".3f", "the same for the features, normalized"),
    "distance_projections": Column("distance, projections", ".3f", "the same for views of different images: what "
                                   "alignment is to be compared with"),
    "distance_features": Column("distance, features", ".3f", "the same for the features, normalized"),
    "uniformity_projections": Column("uniformity, projections ↓", ".3f", "log of the mean of exp(-2 squared distance) "
                                     "over pairs of images; 0: collapse, about -4: even"),
    "uniformity_features": Column("uniformity, features ↓", ".3f", "the same for the features, normalized"),
    "rankme_projections": Column("RankMe, projections ↑", ".1f", "dimensions in use: exponential of the entropy of the "
                                 "normalized singular values"),
    "rankme_features": Column("RankMe, features ↑", ".1f", "the same for the features, as they are"),
}  # fmt: skip
"""The figures in the table's order."""


def table(figures: Mapping[str, float]) -> str:
    """The figures as Markdown, with what each means."""
    lines = [[c.title, format(figures[name], c.form), c.meaning] for name, c in FIGURES.items()]
    return aligned([["figure", "value", "meaning"], *lines])


def by_class(
    classes: Sequence[str], confusions: Mapping[str, Int[Tensor, "c c"]]
) -> dict[str, dict[str, float | int | None]]:
    """Images and accuracies of each class by name; None for the accuracy of a class without images.

    Args:
        classes: Their names.
        confusions: What images of each class (row) were taken for, by who did it: knn, linear.
    """
    shares = {who: (counts.diagonal() / counts.sum(dim=1)).tolist() for who, counts in confusions.items()}
    images = next(iter(confusions.values())).sum(dim=1).tolist()
    return {
        name: {"images": images[row], **{f"{who}_top1": s[row] if images[row] else None for who, s in shares.items()}}
        for row, name in enumerate(classes)
    }


def class_table(classes: Sequence[str], confusions: Mapping[str, Int[Tensor, "c c"]]) -> str:
    """Accuracies of each class as Markdown, with the class that kNN most often takes it for instead."""
    lines = [["class", "images", "kNN", "linear", "kNN takes it for"]]
    wrong = confusions["knn"] - confusions["knn"].diagonal().diag()
    most, other = wrong.max(dim=1)
    for (name, shown), count, position in zip(
        by_class(classes, confusions).items(), most.tolist(), other.tolist(), strict=True
    ):
        shares = ["–" if (share := shown[f"{who}_top1"]) is None else f"{share:.1%}" for who in ("knn", "linear")]
        lines.append([name, str(shown["images"]), *shares, f"{classes[position]} ({count})" if count else "–"])
    return aligned(lines)
