"""What does NT-Xent cost? Ours against lightly's and pytorch-metric-learning's (PML's): time and peak memory by rows.

A step is the loss of two views' raw vectors (normalizing included, as the others do it themselves) and its gradient,
in float32. Time: all implementations in turns, so that what else runs on the machine disturbs all alike; medians and
quartiles of the turns. Who takes twenty times as long as we do gets three turns. Memory: the peak above what was
held before the step, each in a process of its own; on a CPU from /proc (Linux), on a GPU as torch counts it. PML's
NTXentLoss holds a matrix of positive pairs times negative pairs, cubic in the rows. What would need more than --memory,
judged by the size before, is skipped and named.

    python benchmarks/losses.py --threads 2
    python benchmarks/losses.py --device cuda --rows 1024 4096 16384 65536

The last line is one JSON object: `ours_to_fastest_N_ratio`, our time to that of the fastest other one at N rows, and
`ours_to_lightly_memory_N_ratio`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss  # type: ignore[import-untyped]
from pytorch_metric_learning import losses as pml  # type: ignore[import-untyped]
from torch import Tensor

from contrastive.losses import ntxent

TEMPERATURE, DIMENSION = 0.2, 128
MIB = 2**20
SLOW = 20
"""Who takes this many times as long as we do has shown it in three turns."""


def ours(z: Tensor) -> Tensor:
    """contrastive.losses.ntxent."""
    return ntxent(F.normalize(z, dim=1).view(2, -1, DIMENSION), TEMPERATURE).mean()


def lightly(z: Tensor) -> Tensor:
    """lightly.loss.NTXentLoss."""
    first, second = z.chunk(2)
    return NTXentLoss(temperature=TEMPERATURE)(first, second)


def pml_supcon(z: Tensor) -> Tensor:
    """SupConLoss, an image a class."""
    return pml.SupConLoss(temperature=TEMPERATURE)(z, images(z))


def pml_ntxent(z: Tensor) -> Tensor:
    """NTXentLoss, an image a class."""
    return pml.NTXentLoss(temperature=TEMPERATURE)(z, images(z))


def images(z: Tensor) -> Tensor:
    """Which image each row is of."""
    return torch.arange(len(z) // 2, device=z.device).repeat(2)


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "ours": ours,
    "lightly": lightly,
    "pml_supcon": pml_supcon,
    "pml_ntxent": pml_ntxent,
}
GROWTH = {"ours": 1, "lightly": 2, "pml_supcon": 2, "pml_ntxent": 3}
"""Power of the rows with which the memory grows."""


def vectors(rows: int, device: str) -> Tensor:
    """The projector's output for two views, with a pair of views near one another."""
    random = torch.Generator().manual_seed(0)
    image = torch.randn(rows // 2, DIMENSION, generator=random).repeat(2, 1)
    return (image + torch.randn(rows, DIMENSION, generator=random)).to(device).requires_grad_()


def step(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[float, float]:
    """Forward and backward pass: seconds, and the loss."""
    synchronize(z)
    begun = time.perf_counter()
    value = loss(z)
    torch.autograd.grad(value, z)
    synchronize(z)
    return time.perf_counter() - begun, value.item()


def synchronize(z: Tensor) -> None:
    """Wait for a GPU."""
    if z.is_cuda:
        torch.cuda.synchronize()


def timed(names: Sequence[str], rows: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of each turn; the first turn is not counted."""
    z = vectors(rows, options.device)
    values = [step(LOSSES[name], z)[1] for name in names]
    if max(values) - min(values) > 1e-4 * max(values):
        raise SystemExit(f"The losses differ: {dict(zip(names, values, strict=True))}")
    times: dict[str, list[float]] = {name: [] for name in names}
    begun = time.perf_counter()
    while len(times["ours"]) < 3 or (time.perf_counter() - begun < options.seconds and len(times["ours"]) < 200):
        for name in names:
            if len(times[name]) < 3 or times[name][0] < SLOW * times["ours"][0]:
                times[name].append(1000 * step(LOSSES[name], z)[0])
    return times


def measure_memory(name: str, rows: int, device: str) -> float:
    """Peak MiB of one step above what was held before it; to be called in a process of its own."""
    step(LOSSES[name], vectors(64, device))  # libraries come into memory
    z = vectors(rows, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(LOSSES[name], z)
        return (torch.cuda.max_memory_allocated() - before) / MIB
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    step(LOSSES[name], z)
    return (resident("VmHWM") - before) / MIB


def resident(which: str) -> int:
    """Bytes of this process in memory: now (VmRSS), or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))


def memory(name: str, rows: int, options: argparse.Namespace) -> float:
    """Peak MiB of one step, from a fresh process."""
    flags = ["--device", options.device, "--threads", str(options.threads), "--rows", str(rows), "--measure", name]
    done = subprocess.run([sys.executable, __file__, *flags], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} at {rows} rows failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def memories(options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Peak MiB by implementation and rows; sizes that would need too much are left out."""
    peaks: dict[str, dict[int, float]] = {name: {} for name in LOSSES}
    for name in LOSSES:
        last = 0
        for rows in options.rows:
            if last and peaks[name][last] * (rows / last) ** GROWTH[name] > 1024 * options.memory:
                break
            peaks[name][rows], last = memory(name, rows, options), rows
    return peaks


def row(rows: int, peaks: dict[str, dict[int, float]], options: argparse.Namespace) -> tuple[str, dict[str, float]]:
    """One size: a line of the table, and its figures by name."""
    names = [name for name in LOSSES if rows in peaks[name]]
    times = timed(names, rows, options)
    others = [name for name in names if name != "ours"]
    cells: list[str] = []
    figures: dict[str, float] = {}
    for name in LOSSES:
        if name not in names:
            cells.append(f"more than {options.memory:g} GiB")
            continue
        low, middle, high = statistics.quantiles(times[name], n=4)
        cells.append(f"{middle:.1f} ({low:.1f}–{high:.1f}), {peaks[name][rows]:,.0f} MiB")
        figures |= {f"{name}_{rows}_ms": middle, f"{name}_{rows}_mib": peaks[name][rows]}
    if others:
        fastest = min(others, key=lambda name: figures[f"{name}_{rows}_ms"])
        ratios = [own / other for own, other in zip(times["ours"], times[fastest], strict=False)]
        figures[f"ours_to_fastest_{rows}_ratio"] = statistics.median(ratios)
    if "lightly" in names:
        figures[f"ours_to_lightly_memory_{rows}_ratio"] = peaks["ours"][rows] / peaks["lightly"][rows]
    return f"| {rows:,} | " + " | ".join(cells) + " |", figures


def main() -> None:
    """Measure, print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 1024, 4096, 16384], help="twice the images")
    parser.add_argument("--memory", type=float, default=12, help="GiB that an implementation may need")
    parser.add_argument("--seconds", type=float, default=10, help="time for the turns of a size; at least three turns")
    parser.add_argument("--measure", choices=LOSSES, help="only print the peak MiB of this one")
    options = parser.parse_args()
    options.rows.sort()
    torch.set_num_threads(options.threads)
    if options.measure:
        print(measure_memory(options.measure, options.rows[0], options.device))
        return
    peaks = memories(options)
    figures: dict[str, Any] = {}
    print(f"Milliseconds of a step (quartiles), peak memory. d = {DIMENSION}, τ = {TEMPERATURE}, {options.device}.\n")
    print("| rows | " + " | ".join(LOSSES) + " |")
    print("|---" * (len(LOSSES) + 1) + "|")
    for rows in options.rows:
        line, found = row(rows, peaks, options)
        print(line, flush=True)
        figures |= found
    print(json.dumps({**figures, "device": options.device, "threads": options.threads}))


if __name__ == "__main__":
    main()
