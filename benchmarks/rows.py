"""Rows of runs for the benchmarks: every row once a seed, several at a time; finished ones are kept."""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a job: two jobs on two cores beat one job on both
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

Results = dict[str, list[dict[str, Any]]]
"""Summaries by row, one for each seed."""


SETS = {
    "digits": [],
    # A larger step than the digits' default: the learner has ten times as many images to see in as many steps.
    "cifar10": ["--data", "cifar10", "--contrastive.learning-rate", "1e-3", "--schedule.evaluate-every", "200"],
}
"""Flags of run_rl.py by image set, for benchmarks that run on several."""


def options(description: str, seeds: int, sets: bool = False) -> argparse.Namespace:
    """Read the flags that all such benchmarks share; `sets`: whether --data chooses image sets."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds, help="seeds 0 to N - 1")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--rows", nargs="*", help="only rows whose name starts with one of these")
    if sets:
        parser.add_argument("--data", nargs="+", choices=SETS, default=["digits"], help="image sets")
    parser.add_argument("flags", nargs="*", help="after --: flags of run_rl.py for every run")
    return parser.parse_args()


def results(folder: Path, rows: Mapping[str, Sequence[str]], chosen: argparse.Namespace) -> Results:
    """Run what is missing and return all summaries.

    Args:
        folder: Where the run folders are kept, `<row>-seed<s>`.
        rows: Flags of run_rl.py by row.
        chosen: Seeds, jobs, rows and further flags (`options`).
    """
    wanted = {name: flags for name, flags in rows.items() if not chosen.rows or name.startswith(tuple(chosen.rows))}
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in wanted}
    with ProcessPoolExecutor(chosen.jobs) as pool:
        waiting = {
            pool.submit(_run, folder, row, [*flags, *chosen.flags], seed): (row, seed)
            for seed in range(chosen.seeds)
            for row, flags in wanted.items()
        }
        for done, future in enumerate(as_completed(waiting), start=1):
            row, seed = waiting[future]
            found[row][seed] = future.result()
            print(f"{done}/{len(waiting)} {row} seed {seed}: kNN {future.result()['knn_top1']:.3f}", file=sys.stderr)
    return {row: [summary for _, summary in sorted(by_seed.items())] for row, by_seed in found.items()}


def _run(folder: Path, row: str, flags: Sequence[str], seed: int) -> dict[str, Any]:
    """One run to its end, or its summary if it has ended before."""
    name = f"{row}-seed{seed}"
    summary = folder / name / "summary.json"
    if not summary.exists():
        import run_rl

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run_rl.main([*flags, "--name", name, "--seed", str(seed), "--runs", str(folder)])
    return json.loads(summary.read_text())


def curve(folder: Path, row: str, seed: int, tag: str) -> list[float]:
    """All points of one curve of one run."""
    from training.logbook import rows

    return [point[tag] for point in rows(folder / f"{row}-seed{seed}" / "metrics.jsonl") if tag in point]


def table(found: Results, title: str) -> str:
    """The rows, best kNN first."""
    lines = [
        f"| {title} | kNN (%) | linear (%) | mask | P(gray) | P(x2) | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, runs in sorted(found.items(), key=lambda item: -mean(item[1], "knn_top1")):
        x2 = statistics.mean(r["p_downsample"][0] for r in runs)
        lines.append(
            f"| {row} | {spread([r['knn_top1'] for r in runs])} | {spread([r['linear_top1'] for r in runs])} "
            f"| {mean(runs, 'mask_ratio'):.2f} | {mean(runs, 'p_decolorize'):.2f} "
            f"| {x2:.2f} | {len(runs)} |"
        )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation over the seeds, in percent; no deviation of a single one."""
    center = f"{100 * statistics.mean(values):.1f}"
    return f"{center} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else center


def mean(runs: list[dict[str, Any]], key: str) -> float:
    """Mean of one figure over the seeds."""
    return statistics.mean(r[key] for r in runs)
