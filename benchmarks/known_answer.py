"""Does the policy find the corruption that is known to be right? Digits, five seeds, equal learner steps.

Compares fixed corruptions on a grid (mask ratio x decolorize x downsampling) with learned ones: the default, the
literal reading, adversarial with the ratio guard, and the default with a labelled reference. Every run is one
`run_rl.py` run under runs/known-answer; finished ones are kept, so the same command goes on.

    python benchmarks/known_answer.py --jobs 2
"""

import itertools
import json
from pathlib import Path
from typing import Any

from rows import mean, options, results, table

LEARNED = {
    "learned": ["--reward", "loss-slope"],
    "learned-literal": ["--config", "configs/digits_literal.yaml"],
    "learned-adversarial": ["--config", "configs/digits_adversarial.yaml"],
    "learned-labels": ["--config", "configs/digits_labels.yaml"],
}
RARELY = ["--schedule.evaluate-every", "200"]


def fixed_rows() -> dict[str, list[str]]:
    """The grid of fixed corruptions; the first is no corruption at all."""
    rows = {}
    for downsample, decolorize, mask in itertools.product((0, 1), (0, 1), (0.0, 0.3, 0.6)):
        name = f"mask{round(100 * mask):02d}" + "-gray" * decolorize + "-x2" * downsample
        rows[name if name != "mask00" else "none"] = [
            *("--policy", "random", "--reward", "none", "--policy.mask-ratio", str(mask)),
            *("--policy.decolorize", str(decolorize), "--policy.downsample", str(downsample), "0"),
        ]
    return rows


def main() -> None:
    """Run what is missing, print the table and one JSON line."""
    rows = {name: [*flags, *RARELY] for name, flags in (LEARNED | fixed_rows()).items()}
    found = results(Path("runs/known-answer"), rows, options(str(__doc__), seeds=5))
    print(table(found, "corruption"))
    fixed = {row: mean(runs, "knn_top1") for row, runs in found.items() if not row.startswith("learned")}
    best = max(fixed, key=fixed.__getitem__, default=None)
    figures: dict[str, Any] = {f"{row}_knn": mean(runs, "knn_top1") for row, runs in found.items()}
    figures["best_fixed"] = best
    if best and "learned" in found:
        figures["learned_to_best_fixed_ratio"] = mean(found["learned"], "knn_top1") / fixed[best]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
