"""What each reward makes of the policy: digits, equal learner steps, one curve each in docs/rewards.png.

Every run is one `run_rl.py` run under runs/rewards; finished ones are kept, so the same command goes on. The picture
shows seed 0, the table all seeds.

    python benchmarks/rewards.py --jobs 2
"""

import json
from pathlib import Path

from matplotlib.figure import Figure
from rows import mean, options, ratios, results, table

FOLDER = Path("runs/rewards")
ROWS = {
    "loss-slope": [],
    "loss-slope-batch": ["--reward.credit", "batch"],
    "loss-slope-training": ["--reward.measured-on", "training"],
    "loss-slope-training-batch": ["--reward.measured-on", "training", "--reward.credit", "batch"],
    "val-loss": ["--reward", "val-loss"],
    "prediction-gain": ["--reward", "prediction-gain"],
    "adversarial": ["--reward", "adversarial"],
    "cooperative": ["--reward", "cooperative"],
    "knn": ["--reward", "knn"],
    "none": ["--reward", "none"],
}
SHOWN = {"policy/mask_ratio": "mask ratio", "policy/p_decolorize": "P(gray)", "evaluate/knn_top1": "kNN (validation)"}
"""Shares on the left axis, by tag."""


def curves(row: str) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values by tag of the row's first seed."""
    points: dict[str, tuple[list[int], list[float]]] = {}
    for line in (FOLDER / f"{row}-seed0" / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        for tag in (*SHOWN, "reward/average"):
            if tag in values:
                steps, seen = points.setdefault(tag, ([], []))
                steps.append(values["step"])
                seen.append(values[tag])
    return points


def draw(rows: list[str], path: Path) -> None:
    """One panel a reward: what the policy does and what comes of it (left axis), what it is paid (right axis)."""
    columns = 5
    figure = Figure(figsize=(3.3 * columns, 2.9 * -(-len(rows) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(rows) // columns), columns, squeeze=False).ravel()
    for panel, row in zip(panels, rows, strict=False):
        seen = curves(row)
        for tag, label in SHOWN.items():
            panel.plot(*seen[tag], label=label, linewidth=1.3)
        panel.set(title=row, ylim=(0, 1))
        panel.tick_params(labelsize=7)
        paid = panel.twinx()
        paid.tick_params(labelsize=7, colors="gray")
        if "reward/average" in seen:
            paid.plot(*seen["reward/average"], color="gray", linewidth=0.9, linestyle=":", label="reward (average)")
    handles = [*panels[0].lines, *figure.axes[len(panels)].lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    for panel in panels[len(rows) :]:
        panel.set_axis_off()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run what is missing, draw, print the table and one JSON line."""
    chosen = options(str(__doc__), seeds=3)
    found = results(FOLDER, ROWS, chosen)
    if not chosen.rows:
        draw(list(found), Path("docs/rewards.png"))
    print(table(found, "reward"))
    figures = {f"{row}_knn": mean(runs, "knn_top1") for row, runs in found.items()}
    figures |= {f"{row}_mask_share": mean(runs, "mask_ratio") for row, runs in found.items()}
    print(json.dumps(figures | ratios(found, "none")))


if __name__ == "__main__":
    main()
