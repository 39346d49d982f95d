"""Does the policy find the corruption that is known to be right? Digits, five seeds, equal learner steps.

Compares fixed corruptions on a grid (mask ratio x decolorize x downsampling) with learned ones: the default, the
literal reading, adversarial with the ratio guard, and the default with a labelled reference. Every run is one
`run_rl.py` run under runs/known-answer; finished ones are kept, so the same command goes on.

    python benchmarks/known_answer.py --jobs 2
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a job: two jobs on two cores beat one job on both

FOLDER = Path("runs/known-answer")
LEARNED = {
    "learned": ["--reward", "loss-slope"],
    "learned-literal": ["--config", "configs/digits_literal.yaml"],
    "learned-adversarial": ["--config", "configs/digits_adversarial.yaml"],
    "learned-labels": ["--config", "configs/digits_labels.yaml"],
}


def fixed_rows() -> dict[str, list[str]]:
    """The grid of fixed corruptions; the first is no corruption at all."""
    rows = {}
    for downsample, decolorize, mask in itertools.product((0, 1), (0, 1), (0.0, 0.3, 0.6)):
        name = f"mask{round(100 * mask):02d}" + "-gray" * decolorize + "-x2" * downsample
        rows[name if name != "mask00" else "none"] = [
            *("--policy", "fixed", "--reward", "none", "--policy.mask-ratio", str(mask)),
            *("--policy.decolorize", str(decolorize), "--policy.downsample", str(downsample), "0"),
        ]
    return rows


def run(row: str, flags: list[str], seed: int, extra: list[str]) -> dict[str, Any]:
    """One run to its end, or its summary if it has ended before."""
    name = f"{row}-seed{seed}"
    summary = FOLDER / name / "summary.json"
    if not summary.exists():
        import run_rl

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            own = [
                "--name",
                name,
                "--seed",
                str(seed),
                "--runs",
                str(FOLDER),
                "--schedule.evaluate-every",
                "200",
            ]
            run_rl.main([*flags, *own, *extra])
    return json.loads(summary.read_text())


def spread(values: list[float]) -> str:
    """Mean ± standard deviation over the seeds, in percent."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The rows, best kNN first."""
    lines = [
        "| corruption | kNN (%) | linear (%) | mask | P(gray) | P(x2) | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, runs in sorted(results.items(), key=lambda item: -mean(item[1], "knn_top1")):
        lines.append(
            f"| {row} | {spread([r['knn_top1'] for r in runs])} | {spread([r['linear_top1'] for r in runs])} "
            f"| {mean(runs, 'mask_ratio'):.2f} | {mean(runs, 'p_decolorize'):.2f} "
            f"| {statistics.mean(r['p_downsample'][0] for r in runs):.2f} | {len(runs)} |"
        )
    return "\n".join(lines)


def mean(runs: list[dict[str, Any]], key: str) -> float:
    """Mean of one figure over the seeds."""
    return statistics.mean(r[key] for r in runs)


def main() -> None:
    """Run what is missing, print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N - 1")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--rows", nargs="*", help="only rows whose name starts with one of these")
    parser.add_argument("flags", nargs="*", help="after --: flags of run_rl.py for every run")
    options = parser.parse_args()
    rows = {
        name: flags
        for name, flags in (LEARNED | fixed_rows()).items()
        if not options.rows or name.startswith(tuple(options.rows))
    }
    results: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = {
            pool.submit(run, row, flags, seed, options.flags): (row, seed)
            for seed in range(options.seeds)
            for row, flags in rows.items()
        }
        for done, future in enumerate(as_completed(waiting), start=1):
            row, seed = waiting[future]
            results.setdefault(row, []).append(future.result())
            print(
                f"{done}/{len(waiting)} {row} seed {seed}: kNN {future.result()['knn_top1']:.3f}",
                file=sys.stderr,
            )
    print(table(results))
    fixed = {row: mean(runs, "knn_top1") for row, runs in results.items() if not row.startswith("learned")}
    best = max(fixed, key=fixed.__getitem__, default=None)
    figures: dict[str, Any] = {f"{row}_knn": mean(runs, "knn_top1") for row, runs in results.items()}
    figures["best_fixed"] = best
    if best and "learned" in results:
        figures["learned_to_best_fixed_ratio"] = mean(results["learned"], "knn_top1") / fixed[best]
    print(json.dumps(figures))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
