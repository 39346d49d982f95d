"""Rows of runs for the benchmarks: every row once a seed, several at a time.

Finished runs are kept and serve again where their settings and their generator are those asked for.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
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

ELSEWHERE = {"runs", "device", "data.root", "data.download"}
"""Settings in which a finished run may differ from the one asked for: where it was made, not what."""


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

    Raises:
        SystemExit: If a run is refused, or one lies there that had other settings or another generator.
    """
    from configs.errors import UsageError

    wanted = {name: flags for name, flags in rows.items() if not chosen.rows or name.startswith(tuple(chosen.rows))}
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in wanted}
    fresh = get_context("spawn")  # a fork could not use a GPU that its parent has used
    with ProcessPoolExecutor(chosen.jobs, mp_context=fresh) as pool:
        waiting = {
            pool.submit(_run, folder, row, [*flags, *chosen.flags], seed): (row, seed)
            for seed in range(chosen.seeds)
            for row, flags in wanted.items()
        }
        for done, future in enumerate(as_completed(waiting), start=1):
            row, seed = waiting[future]
            try:
                found[row][seed] = future.result()
            except UsageError as error:
                pool.shutdown(cancel_futures=True)
                raise SystemExit(f"{row}, seed {seed}: {error}") from error
            print(f"{done}/{len(waiting)} {row} seed {seed}: kNN {future.result()['knn_top1']:.3f}", file=sys.stderr)
    return {row: [summary for _, summary in sorted(by_seed.items())] for row, by_seed in found.items()}


def _run(folder: Path, row: str, flags: Sequence[str], seed: int) -> dict[str, Any]:
    """One run to its end, or its summary if it has ended before."""
    import run_rl

    name = f"{row}-seed{seed}"
    own, summary = [*flags, "--name", name, "--seed", str(seed), "--runs", str(folder)], folder / name / "summary.json"
    if not summary.exists():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run_rl.main(own)
    found = json.loads(summary.read_text())
    _require_same(folder / name, own, found)
    return found


def _require_same(run: Path, flags: Sequence[str], summary: Mapping[str, Any]) -> None:
    """Refuse figures of another run than the one that is asked for."""
    import torch

    from camnet import frozen
    from configs.errors import UsageError
    from configs.reading import differences, read
    from configs.run import RunConfig
    from training.settings import run_settings

    config = read(RunConfig, list(flags), prog="benchmark", description="")
    changed = sorted(differences(run_settings(run), config).keys() - ELSEWHERE)
    generator = frozen.find(config.generator, config.data, torch.device("cpu"))
    if generator.card.get("file_sha256") != summary["generator_file_sha256"]:
        changed.append("generator (its weights)")
    if changed:
        raise UsageError(f"{run} ended with other settings than are asked for now ({', '.join(changed)}): remove it")


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


def ratios(found: Results, to: str, prefix: str = "") -> dict[str, float]:
    """Each row's mean kNN accuracy over that of the row `to`; empty where that was not run."""
    if to not in found:
        return {}
    base = mean(found[to], "knn_top1")
    return {
        f"{prefix}{row}_to_{to}_knn_ratio": mean(runs, "knn_top1") / base for row, runs in found.items() if row != to
    }


def mean(runs: list[dict[str, Any]], key: str) -> float:
    """Mean of one figure over the seeds."""
    return statistics.mean(r[key] for r in runs)
