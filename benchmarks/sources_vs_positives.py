"""How many source images, how many positives of each? The trade for equal memory, and for equal time.

Equal memory: source images x views = 256 rows in the encoder and the loss, 400 steps; every run also computes as much.
Equal time: always 128 source images, and the fewer steps the more views (equal rows encoded in all). The corruption is
fixed (30 % of the cells hidden, decolorized with probability 0.7), so that nothing but the trade differs. Two losses:
NT-Xent in its form for many positives (L_out), and the original note's.

    python benchmarks/sources_vs_positives.py --data digits cifar10 --jobs 2
"""

import json
import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rows import SETS, Results, mean, options, ratios, results, spread

STEPS, ROWS = 400, 256
POSITIVES = (2, 4, 8, 16)
LOSSES = ("ntxent", "paper")
FIXED = [
    *("--policy", "random", "--reward", "none", "--policy.mask-ratio", "0.3", "--policy.decolorize", "0.7"),
    *("--policy.downsample", "0", "0"),
]


def rows() -> dict[str, list[str]]:
    """Flags of run_rl.py by row: loss, what is equal, views an image."""
    named = {}
    for loss in LOSSES:
        for k in POSITIVES:
            named[f"{loss}-memory-{k}"] = _flags(loss, sources=ROWS // k, views=k, steps=STEPS)
            if k > POSITIVES[0]:  # with two views both are the same run
                named[f"{loss}-time-{k}"] = _flags(loss, sources=ROWS // 2, views=k, steps=2 * STEPS // k)
    return named


def _flags(loss: str, sources: int, views: int, steps: int) -> list[str]:
    """One point of the trade."""
    shown = ["--views", "all", "--views.count", str(views), "--contrastive.loss", loss]
    return [*FIXED, *shown, "--schedule.batch", str(sources), "--steps", str(steps)]


def panel(axes: Axes, found: Results, what: str) -> None:
    """Accuracy along one trade: a line a loss, one bar the standard deviation over seeds."""
    for loss in LOSSES:
        here = [k for k in POSITIVES if _row(loss, what, k) in found]
        if not here:
            continue
        for figure, style in (("knn_top1", "-"), ("linear_top1", ":")):
            values = [[100 * run[figure] for run in found[_row(loss, what, k)]] for k in here]
            centers = [statistics.mean(v) for v in values]
            bars = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
            label = f"{loss}, {figure.removesuffix('_top1')}"
            color = f"C{LOSSES.index(loss)}"
            axes.errorbar(here, centers, bars, label=label, linestyle=style, color=color, marker="o", capsize=3)
    axes.set_xscale("log", base=2)
    sources = [ROWS // k if what == "memory" else ROWS // 2 for k in POSITIVES]
    axes.set_xticks(POSITIVES, [f"{n} x {k}" for n, k in zip(sources, POSITIVES, strict=True)])
    axes.minorticks_off()


def _row(loss: str, what: str, k: int) -> str:
    return f"{loss}-{what if k > POSITIVES[0] else 'memory'}-{k}"


def draw(found: Results, name: str) -> None:
    """Two panels of one image set: equal memory, equal time."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, what in zip(panels, ("memory", "time"), strict=True):
        panel(axes, found, what)
        axes.set_title(f"{name}: equal {what}", fontsize=10)
        axes.set_xlabel("source images x views of each")
    panels[0].set_ylabel("accuracy (%)")
    panels[0].legend(fontsize=8)
    figure.savefig(f"docs/sources_vs_positives_{name}.png", dpi=110)


def main() -> None:
    """Run what is missing, draw, print the tables and one JSON line."""
    chosen = options(str(__doc__), seeds=3, sets=True)
    figures: dict[str, float] = {}
    for name in chosen.data:
        named = {row: [*SETS[name], *flags] for row, flags in rows().items()}
        found = results(Path("runs/sources-vs-positives") / name, named, chosen)
        if not chosen.rows:
            draw(found, name)
        print(f"\n| {name} | kNN (%) | linear (%) | seconds | seeds |\n|---|---|---|---|---|")
        for row, runs in found.items():
            knn, linear = (spread([run[key] for run in runs]) for key in ("knn_top1", "linear_top1"))
            print(f"| {row} | {knn} | {linear} | {mean(runs, 'seconds'):.0f} | {len(runs)} |")
            figures[f"{name}_{row}_knn"] = mean(runs, "knn_top1")
        figures |= ratios(found, _row(LOSSES[0], "memory", POSITIVES[0]), f"{name}_")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
