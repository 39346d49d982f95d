"""Does a corruption that changes little to the eye help classification less than one that changes much?

The original notes' question about downsampling. One run a kind of corruption, the policy fixed, everything else equal;
beside the accuracies: how alike the two views of an image are to the eye (structural similarity, 1 = equal), to the
learner before it has learned (first steps) and to the learner that was trained on them (last steps). Expert
augmentation is off, so that the views differ by corruption and codes alone.

    python benchmarks/downsampling.py --data digits cifar10 --jobs 2
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rows import SETS, Results, curve, mean, options, ratios, results, spread

FOLDER = Path("runs/downsampling")
EYE = 500
"""Validation images behind the similarity to the eye."""
KINDS = {
    "none": ("0", "0", ("0", "0")),
    "x2": ("0", "0", ("1", "0")),
    "x4": ("0", "0", ("0", "1")),
    "mask 30 %": ("0.3", "0", ("0", "0")),
    "mask 60 %": ("0.6", "0", ("0", "0")),
    "gray": ("0", "1", ("0", "0")),
    "gray x4": ("0", "1", ("0", "1")),
    "gray mask 60 %": ("0.6", "1", ("0", "0")),
}
"""Mask ratio, P(gray), P(x2) and P(x4) by kind of corruption."""
JUDGES = {"eye": "structural similarity", "start": "the untrained learner", "end": "the trained learner"}
"""Whom the two views of an image may look alike to."""


def flags(kind: str) -> list[str]:
    """Of run_rl.py, for a policy that always does this."""
    mask, gray, downsample = KINDS[kind]
    fixed = ["--policy", "random", "--reward", "none", "--policy.mask-ratio", mask, "--policy.decolorize", gray]
    return [*fixed, "--policy.downsample", *downsample, "--augment.strength", "0"]


def to_the_eye(kind: str, name: str, further: Sequence[str]) -> float:
    """Structural similarity of the two views of an image, mean over validation images."""
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    from configs.reading import read
    from configs.run import RunConfig
    from env.corruption import corrupt
    from system import System
    from training.seeding import generator_at

    cpu = torch.device("cpu")
    s = System(read(RunConfig, [*SETS[name], *flags(kind), *further], prog="downsampling", description=""), cpu)
    x, random = s.data.validation.spread(EYE), generator_at(0, 0, "eye", cpu)
    v1, v2 = s.generator.two_views(corrupt(x, s.policy(x).sample(random)), random)
    return torch.as_tensor(ssim(v1, v2, data_range=1.0)).item()


def draw(found: Results, alike: dict[str, dict[str, float]], name: str) -> None:
    """Accuracy over likeness: to the eye, to the untrained and to the trained learner."""
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    panels = figure.subplots(1, len(JUDGES), sharey=True)
    for axes, (judge, label) in zip(panels, JUDGES.items(), strict=True):
        for kind, runs in found.items():
            values = [100 * run["knn_top1"] for run in runs]
            bar = statistics.stdev(values) if len(values) > 1 else 0.0
            color, marker = f"C{list(KINDS).index(kind)}", "s" if "gray" in kind else "o"
            center = ([alike[kind][judge]], [statistics.mean(values)], [bar])
            axes.errorbar(*center, fmt=marker, capsize=3, color=color, label=kind)
        axes.set_xlabel(f"likeness of the two views: {label}")
    panels[0].set_ylabel(f"{name}: kNN (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9)
    figure.savefig(f"docs/downsampling_{name}.png", dpi=110)


def main() -> None:
    """Run what is missing, draw, print the tables and one JSON line."""
    chosen = options(str(__doc__), seeds=3, sets=True)
    figures: dict[str, float] = {}
    for name in chosen.data:
        rows = {kind: [*SETS[name], *flags(kind)] for kind in KINDS}
        found = results(FOLDER / name, rows, chosen)
        alike: dict[str, dict[str, float]] = {}
        print(f"\n| {name} | alike: eye | alike: untrained | alike: trained | kNN (%) | linear (%) | seeds |")
        print("|---|---|---|---|---|---|---|")
        for kind, runs in sorted(found.items(), key=lambda item: -mean(item[1], "knn_top1")):
            curves = [curve(FOLDER / name, kind, seed, "learner/positive_similarity") for seed in range(len(runs))]
            ends = {"start": statistics.mean(c[0] for c in curves), "end": statistics.mean(c[-1] for c in curves)}
            alike[kind] = seen = {"eye": to_the_eye(kind, name, chosen.flags), **ends}
            knn, linear = (spread([run[key] for run in runs]) for key in ("knn_top1", "linear_top1"))
            print(
                f"| {kind} | {seen['eye']:.2f} | {seen['start']:.2f} | {seen['end']:.2f} | {knn} | {linear} "
                f"| {len(runs)} |"
            )
            figures[f"{name}_{kind}_knn"] = mean(runs, "knn_top1")
        figures |= ratios(found, "none", f"{name}_")
        if not chosen.rows:
            draw(found, alike, name)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
