"""What do two views of an image cost a frozen CAMNet, and how much of it is painter and colorist?

Timed in turns, for images that lost cells (30 % of an 8 x 8 grid), color, or both: all of the generator; its cascade
alone, whose fills and colors the two replace; and all of it for one view after the other, where nothing can be shared
by the views of an image. On a CPU by processor time, which what else runs on the machine disturbs less than a clock.
Images are noise: no time depends on what they show.

    python benchmarks/restoring.py
    python benchmarks/restoring.py --generator imagefolder --images 256 --device cuda

The last line is one JSON object, `GENERATOR_LOST_to_cascade_ratio` and `..._to_one_by_one_ratio` among it.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from camnet import frozen
from env.corruption import corrupt
from env.distribution import fixed_rates
from training import device
from training.seeding import generator_at

LOST = {"nothing": (0.0, 0.0), "cells": (0.3, 0.0), "color": (0.0, 1.0), "both": (0.3, 1.0)}
"""Probabilities that a cell is hidden, and that color is deleted, by what is lost."""
VIEWS = 2


def main() -> None:
    """Time, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", nargs="+", default=["cifar10", "imagefolder", "imagefolder96"])
    parser.add_argument("--images", type=int, default=64, help="images at a time, two views of each")
    parser.add_argument("--repeats", type=int, default=5, help="turns, after one that warms up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    where, figures = device.resolve(options.device), {}
    print("| generator | lost | s | cascade alone | ratio | one view after the other | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in options.generator:
        for lost, rates in LOST.items():
            whole, cascade, singly = seconds(ways(name, rates, options.images, where), options.repeats, where)
            key = f"{Path(name).stem}_{lost}"
            figures[f"{key}_seconds"] = whole
            figures[f"{key}_to_cascade_ratio"], figures[f"{key}_to_one_by_one_ratio"] = whole / cascade, whole / singly
            print(
                f"| {name} | {lost} | {whole:.3f} | {cascade:.3f} | {whole / cascade:.2f} | {singly:.3f} "
                f"| {whole / singly:.2f} |",
                flush=True,
            )
    print(json.dumps(figures))


def ways(name: str, rates: tuple[float, float], n: int, where: torch.device) -> list[Callable[[], object]]:
    """What is timed: two views by all of the generator, by its cascade, and by all of it view by view."""
    generator = frozen.load(name, where)
    assert isinstance(generator, frozen.FrozenGenerator)
    assert generator.size
    random = generator_at(0, 0, "restoring", where)
    x = torch.rand(n, 3, generator.size, generator.size, generator=random, device=where)
    given = corrupt(x, fixed_rates(n, 8, *rates, (0.0, 0.0), where).sample(random))
    codes, modules = generator.codes(VIEWS * n, random), len(generator.card["generator"]["resolutions"])

    def view_by_view() -> list[Tensor]:
        return [generator.restore(given, [code.select(slice(k, None, VIEWS)) for code in codes]) for k in range(VIEWS)]

    whole, cascade = lambda: generator.restore(given, codes), lambda: generator.restore(given, codes[:modules])
    return [whole, cascade, view_by_view]


def seconds(ways: list[Callable[[], object]], repeats: int, where: torch.device) -> list[float]:
    """Median seconds of each way, in turns."""
    wait = torch.cuda.synchronize if where.type == "cuda" else lambda: None
    clock = time.perf_counter if where.type == "cuda" else time.process_time
    taken: list[list[float]] = []
    for _ in range(1 + repeats):
        row = []
        for way in ways:
            wait()
            start = clock()
            way()
            wait()
            row.append(clock() - start)
        taken.append(row)
    return [statistics.median(times) for times in zip(*taken[1:], strict=True)]


if __name__ == "__main__":
    main()
