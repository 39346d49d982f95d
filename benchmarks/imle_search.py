"""How fast is the code search? camnet.imle.search against the published procedure, on one network and equal candidates.

"The published procedure, written from its description" (published_search.py) searches one image at a time, twenty
candidates at a time, and runs all modules up to the one in question anew for each. Both searches see the same candidates
and the same distance (ours; under the published one, LPIPS-VGG with DCI, the published procedure would be slower still),
so the codes that they find can be compared one by one. They are timed in turns, once with the published 120 candidates
at every module and once with those of a training.

    python benchmarks/imle_search.py
    python benchmarks/imle_search.py --device cuda --amp --images 256 --config FILE

The last line is one JSON object; speedup_m120_ratio and speedup_training_ratio are images per second, ours to published.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
if "--threads" not in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import published_search
import torch
from torch import Tensor

from camnet import frozen, imle
from camnet.distance import Distance
from camnet.generator import Code, Generator
from configs.camnet import CamnetConfig, GeneratorConfig
from configs.reading import read
from env.corruption import Corrupted, corrupt
from env.distribution import fixed_rates
from env.images import colored_digits
from training import device
from training.seeding import generator_at, seeded

NETWORK = GeneratorConfig(
    resolutions=(8, 16, 32), widths=(128, 96, 64), blocks=2, patch=2, norm=False, context=True, factors=5
)
"""What is searched where neither --config nor --generator says otherwise."""
PUBLISHED = 120
"""Candidates at every module in the published procedure."""
TIE = 1e-5
"""Largest relative difference between two distances that float32 rounding accounts for."""


@dataclass(frozen=True)
class Problem:
    """One network, some degraded images and the truth at each module's resolution."""

    generator: Generator
    distance: Distance
    degraded: Corrupted
    targets: list[Tensor]

    def random(self) -> torch.Generator:
        """The source of the candidates, always at its start."""
        return generator_at(0, 0, "candidates", self.targets[0].device)

    def candidates(self, counts: tuple[int, ...]) -> list[Code]:
        """The codes that `ours` tries, in the order in which it draws them."""
        random = self.random()
        return [self.generator.draw(len(self.degraded) * m, level, random) for level, m in enumerate(counts)]

    def ours(self, counts: tuple[int, ...]) -> list[Code]:
        """Search with camnet.imle."""
        return imle.search(self.generator, self.distance, self.degraded, self.targets, counts, self.random())

    def published(self, codes: list[Code]) -> list[Code]:
        """Search by the published procedure, written from its description."""
        return published_search.search(self.generator, self.distance, self.degraded, self.targets, codes)


def build(options: argparse.Namespace, where: torch.device) -> tuple[Problem, tuple[int, ...]]:
    """The problem, and the candidates of the training setting."""
    counts, config = (24, 12, 4), NETWORK
    if options.config:
        training = read(CamnetConfig, ["--config", str(options.config)], prog="imle_search.py", description="")
        counts, config = training.candidates, training.generator
    if options.generator:
        generator = frozen.load(str(options.generator), where)._generator
        config = generator.config
    else:
        with seeded(0, "generator"):
            generator = Generator(config).to(where)
    counts = tuple(options.candidates or counts)
    if len(counts) != len(config.resolutions):
        raise SystemExit(f"--candidates needs one count a module: {len(config.resolutions)}, got {len(counts)}")
    if where.type == "cuda":
        generator.to(memory_format=torch.channels_last)
    pixels, _ = colored_digits(config.resolutions[-1], seed=0)
    everything = pixels.to(where).float() / 255
    x = everything[: options.images]
    rates = fixed_rates(len(x), 4, 0.3, 0.5, (0.2, 0.2), where)
    degraded = corrupt(x, rates.sample(generator_at(0, 0, "corruption", where)))
    return Problem(generator, Distance(everything, 1.0), degraded, imle.pyramid(x, config.resolutions)), counts


@torch.no_grad()
def agreement(problem: Problem, counts: tuple[int, ...]) -> tuple[float, float]:
    """Compare the codes that both searches find, in float32.

    A search is greedy, so where two codes of an image differ at one module, its later ones are not comparable and are
    left out.

    Returns:
        Share of equal winners, and the largest relative difference between the distances of two unequal ones (0 where
        there are none).
    """
    generator, distance = problem.generator, problem.distance
    ours, published = problem.ours(counts), problem.published(problem.candidates(counts))
    conditions, stage = generator.conditions(problem.degraded), generator.start(problem.degraded)
    agree = torch.ones(len(problem.degraded), dtype=torch.bool, device=stage.image.device)
    compared, equal, gap = 0, 0, 0.0
    for level, (a, b) in enumerate(zip(ours, published, strict=True)):
        stages = [generator.step(level, conditions[level], code, stage) for code in (a, b)]
        images = [s.image for s in stages]
        if level == len(counts) - 1:
            images = [problem.degraded.make_consistent(image) for image in images]
        d, other = (distance(image, problem.targets[level]) for image in images)
        same = (a.everywhere == b.everywhere).all(dim=1) & (a.here == b.here).flatten(1).all(dim=1)
        apart = ((d - other).abs() / torch.minimum(d, other))[agree & ~same]
        gap = max(gap, *apart.tolist(), 0.0)
        compared, equal = compared + int(agree.sum()), equal + int((agree & same).sum())
        agree, stage = agree & same, stages[0]
    return equal / compared, gap


def seconds(run: Callable[[], object], where: torch.device) -> float:
    """Wall time of one call; waits for the device before and after."""
    wait = torch.cuda.synchronize if where.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def timed(problem: Problem, counts: tuple[int, ...], repeats: int, where: torch.device) -> dict[str, float]:
    """Images per second of both searches, timed in turns: medians, and the range of the turns' ratios."""
    codes = problem.candidates(counts)
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: problem.ours(counts),
        "published": lambda: problem.published(codes),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, float] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            if where.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            times[name].append(seconds(run, where))
            if where.type == "cuda":
                peaks[f"{name}_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    ratios = [slow / fast for fast, slow in zip(times["ours"], times["published"], strict=True)]
    rates = {f"{name}_images_per_s": len(problem.degraded) / statistics.median(t) for name, t in times.items()}
    speedup = rates["ours_images_per_s"] / rates["published_images_per_s"]
    return rates | peaks | {"speedup_ratio": speedup, "speedup_low": min(ratios), "speedup_high": max(ratios)}


def exact(where: torch.device) -> None:
    """Full float32 in convolutions, so that two orders of summation may be compared."""
    if where.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False


def measure(problem: Problem, settings: dict[str, tuple[int, ...]], options: argparse.Namespace) -> dict[str, Any]:
    """Compare the winners, then time both searches, for each setting; prints a table."""
    where = problem.targets[0].device
    tf32 = torch.backends.cudnn.allow_tf32
    result: dict[str, Any] = {}
    print("| candidates | ours (images/s) | published (images/s) | ratio | equal winners | largest gap of the rest |")
    print("|---|---|---|---|---|---|")
    for name, counts in settings.items():
        exact(where)
        problem.generator.precision = torch.float32
        share, gap = agreement(problem, counts)  # warms both up, too
        torch.backends.cudnn.allow_tf32 = tf32
        problem.generator.precision = torch.bfloat16 if options.amp else torch.float32
        figures = timed(problem, counts, options.repeats, where)
        print(
            f"| {counts} | {figures['ours_images_per_s']:.2f} | {figures['published_images_per_s']:.2f} "
            f"| {figures['speedup_ratio']:.2f} ({figures['speedup_low']:.2f} to {figures['speedup_high']:.2f}) "
            f"| {100 * share:.1f} % | {gap:.1e} |",
            flush=True,
        )
        figures |= {"equal_winners_share": share, "largest_tie_relative": gap}
        result |= {f"{key}_{name}" if "speedup" not in key else key.replace("speedup", f"speedup_{name}"): value
                   for key, value in figures.items()}
    return result


def parsed() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="images searched together (the published one: in turn)")
    parser.add_argument("--repeats", type=int, default=3, help="turns; medians are reported")
    parser.add_argument("--config", type=Path, help="settings of camnet.train to take network and candidates from")
    parser.add_argument("--generator", type=Path, help="trained weights (.safetensors); random ones without it")
    parser.add_argument("--candidates", type=int, nargs="+", help="the training setting; default: --config's, 24 12 4")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--amp", action="store_true", help="time with the generator in bfloat16 (winners: in float32)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table and one JSON line; fails where winners differ by more than a tie."""
    options = parsed()
    torch.set_num_threads(options.threads)
    where = device.resolve(options.device)
    problem, training = build(options, where)
    modules = len(training)
    result = measure(problem, {"m120": (PUBLISHED,) * modules, "training": training}, options)
    # Not at equal candidates: what the training searches with, against what the published one does.
    result["ours_training_to_published_m120_ratio"] = (
        result["ours_images_per_s_training"] / result["published_images_per_s_m120"]
    )
    machine = torch.cuda.get_device_name() if where.type == "cuda" else f"cpu, {options.threads} threads"
    print(json.dumps(result | {"images": options.images, "amp": options.amp, "device": machine}))
    gap = max(result["largest_tie_relative_m120"], result["largest_tie_relative_training"])
    if gap > TIE:
        raise SystemExit(f"the searches disagree: winners {gap:.1e} apart, more than a tie ({TIE:g})")


if __name__ == "__main__":
    main()
