"""What do two views of an image cost a frozen CAMNet, and how much of it is painter and colorist?

Timed in turns, for images that lost cells (30 % of an 8 x 8 grid), color, or both: all of the generator; its cascade
alone, whose fills and colors the two replace; and all of it on every image twice, with one code each, where the views
of an image share nothing. On a CPU by processor time, which what else runs on the machine disturbs less than a clock.
Medians of seconds, and of the ratios of each turn. Images are noise: no time depends on what they show.

    python benchmarks/restoring.py
    python benchmarks/restoring.py --generator imagefolder --images 256 --device cuda

The last line is one JSON object, `GENERATOR_LOST_to_cascade_ratio` and `..._to_unshared_ratio` among it.
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
from camnet.degraded import each
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
    where = device.resolve(options.device)
    figures: dict[str, float] = {}
    print("| generator | lost | s | to cascade alone | to nothing shared |")
    print("|---|---|---|---|---|")
    for name in options.generator:
        for lost, rates in LOST.items():
            turns = seconds(ways(name, rates, options.images, where), options.repeats, where)
            whole = statistics.median(turn[0] for turn in turns)
            cascade, unshared = (statistics.median(turn[0] / turn[other] for turn in turns) for other in (1, 2))
            key = f"{Path(name).stem}_{lost}"
            figures |= {f"{key}_seconds": whole, f"{key}_to_cascade_ratio": cascade}
            figures[f"{key}_to_unshared_ratio"] = unshared
            print(f"| {name} | {lost} | {whole:.2f} | {cascade:.2f} | {unshared:.2f} |", flush=True)
    print(json.dumps(figures))


def ways(name: str, rates: tuple[float, float], n: int, where: torch.device) -> list[Callable[[], Tensor]]:
    """What is timed: two views by all of the generator, by its cascade, and with nothing shared by them."""
    generator = frozen.load(name, where)
    assert isinstance(generator, frozen.FrozenGenerator)
    assert generator.size
    random = generator_at(0, 0, "restoring", where)
    x = torch.rand(n, 3, generator.size, generator.size, generator=random, device=where)
    given = corrupt(x, fixed_rates(n, 8, *rates, (0.0, 0.0), where).sample(random))
    codes, twice = generator.codes(VIEWS * n, random), each(given, VIEWS)
    modules = codes[: len(generator.card["generator"]["resolutions"])]
    return [
        lambda: generator.restore(given, codes),
        lambda: generator.restore(given, modules),
        lambda: generator.restore(twice, codes),
    ]


def seconds(ways: list[Callable[[], Tensor]], repeats: int, where: torch.device) -> list[list[float]]:
    """Seconds of each way, turn by turn; the first turn, which warms up, is left out."""
    wait = torch.cuda.synchronize if where.type == "cuda" else lambda: None
    clock = time.perf_counter if where.type == "cuda" else time.process_time
    turns: list[list[float]] = []
    for _ in range(1 + repeats):
        turn = []
        for way in ways:
            wait()
            start = clock()
            way()
            wait()
            turn.append(clock() - start)
        turns.append(turn)
    return turns[1:]


if __name__ == "__main__":
    main()
