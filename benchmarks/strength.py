"""How strong should expert augmentation be, with and without generated views? AdaInf's question, on CIFAR-10.

One run a strength of the dial (--augment.strength) for each way to make views: plain (no corruption: they differ by
augmentation alone), decorrupted (30 % of the cells hidden, half of the images decolorized), x4 (always downsampled by
4), learned (the default policy, paid by the slope of the loss under full augmentation). All else is equal.

    python benchmarks/strength.py --jobs 2
"""

import json
import statistics
from pathlib import Path

from matplotlib.figure import Figure
from rows import SETS, Results, mean, options, ratios, results, spread

FOLDER = Path("runs/strength")
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
NEVER = ["--policy", "random", "--reward", "none", "--policy.downsample", "0"]
VIEWS = {
    "plain": ["--policy", "none", "--reward", "none"],
    "decorrupted": [*NEVER, "0", "--policy.mask-ratio", "0.3", "--policy.decolorize", "0.5"],
    "x4": [*NEVER, "1", "--policy.mask-ratio", "0", "--policy.decolorize", "0"],
    "learned": ["--reward.reference.kind", "expert"],
}
"""Flags by what the views are made of."""


def draw(found: Results, path: Path) -> None:
    """Accuracy over strength, a line for each kind of views."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    for views in VIEWS:
        here = [s for s in STRENGTHS if f"{views}-{s:g}" in found]
        if not here:
            continue
        values = [[100 * run["knn_top1"] for run in found[f"{views}-{s:g}"]] for s in here]
        bars = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
        axes.errorbar(here, [statistics.mean(v) for v in values], bars, label=views, marker="o", capsize=3)
    axes.set(xlabel="strength of the augmentation", ylabel="kNN (%)", title="CIFAR-10")
    axes.legend(title="views", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing, draw, print the table and one JSON line."""
    rows = {
        f"{views}-{s:g}": [*SETS["cifar10"], *flags, "--augment.strength", f"{s:g}"]
        for s in STRENGTHS
        for views, flags in VIEWS.items()
    }
    chosen = options(str(__doc__), seeds=2)
    found = results(FOLDER, rows, chosen)
    if not chosen.rows:
        draw(found, Path("docs/strength.png"))
    print("| views-strength | kNN (%) | linear (%) | seeds |\n|---|---|---|---|")
    for row, runs in found.items():
        knn, linear = (spread([run[key] for run in runs]) for key in ("knn_top1", "linear_top1"))
        print(f"| {row} | {knn} | {linear} | {len(runs)} |")
    figures = {f"{row}_knn": mean(runs, "knn_top1") for row, runs in found.items()}
    print(json.dumps(figures | ratios(found, "plain-0.5")))


if __name__ == "__main__":
    main()
