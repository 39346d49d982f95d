"""How fast is the code search? camnet.imle.search against the published procedure, on one network and equal candidates.

"The published procedure, written from its description" (published_search.py) searches one image at a time, twenty
candidates at a time, and runs all modules up to the one in question anew for each. Both searches see the same
candidates and the same distance (ours; under the published one, LPIPS-VGG with DCI, the published procedure would be
slower still), so the codes that they find can be compared one by one. They are timed in turns, once with the published
120 candidates at every module and once with those of a training.

    python benchmarks/imle_search.py --device cpu
    python benchmarks/imle_search.py --device cpu --amp both --threads 2 --training-images 256 --config FILE
    python benchmarks/imle_search.py --device cuda --amp ours --images 32 --training-images 256 --config FILE

The second line searches as a training does: under its distance (but for --features), in bfloat16, on all cores, with as
many images at once as a round has. The published procedure knows float32 alone; with --amp both it, too, has bfloat16,
so that both searches compute alike and their winners can differ in nothing but the order of sums. The third is for a
GPU, which --device auto, the default, takes where there is one, with enough images to fill it. FILE holds the settings
of a training, such as configs/camnet_imagefolder.yaml.

The last line is one JSON object; speedup_m120_ratio and speedup_training_ratio are images per second, ours to the
published. On a CPU in float32 arithmetic bounds them: run once, the modules of the default network need about 2.5 times
fewer multiplications, and what more there is comes of the batch. On a GPU the published procedure mostly waits for
kernels to start.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import published_search
import torch
from torch import Tensor

from camnet import frozen, imle
from camnet.code import Code
from camnet.distance import Distance
from camnet.generator import Generator
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
TIE_IN_BFLOAT16 = 1e-3
"""The same for the network in bfloat16, which rounds each number by up to 4e-3."""


@dataclass(frozen=True)
class Problem:
    """One network, some degraded images and the truth at each module's resolution."""

    generator: Generator
    own: Generator
    """The same network as our search runs it: with --compile, compiled."""
    distance: Distance
    own_distance: Distance
    """Likewise."""
    degraded: Corrupted
    targets: list[Tensor]
    precision: dict[str, torch.dtype]
    """Of the network, while a search is timed: `ours` and `published`."""

    def random(self) -> torch.Generator:
        """The source of the candidates, always at its start."""
        return generator_at(0, 0, "candidates", self.targets[0].device)

    def candidates(self, counts: tuple[int, ...]) -> list[Code]:
        """The codes that `ours` tries, in the order in which it draws them."""
        random = self.random()
        return [self.generator.draw(len(self.degraded) * m, level, random) for level, m in enumerate(counts)]

    def ours(self, counts: tuple[int, ...], precision: torch.dtype) -> list[Code]:
        """Search with camnet.imle."""
        self.own.precision = precision
        return imle.search(self.own, self.own_distance, self.degraded, self.targets, counts, self.random()).codes

    def published(self, codes: list[Code], precision: torch.dtype) -> list[Code]:
        """Search by the published procedure, written from its description."""
        self.generator.precision = precision
        return published_search.search(self.generator, self.distance, self.degraded, self.targets, codes)


Weights = tuple[float, float, float]
"""Of pixels, grid and texture in the distance."""


def network(options: argparse.Namespace, where: torch.device) -> tuple[Generator, tuple[int, ...], Weights]:
    """The network, and of the training setting the candidates and the weights in the distance."""
    counts: tuple[int, ...] = (24, 12, 4)
    config, weights = NETWORK, (1.0, 0.0, 0.0)
    if options.config:
        training = read(CamnetConfig, ["--config", str(options.config)], prog="imle_search.py", description="")
        counts, config = training.candidates, training.generator
        weights = training.pixel_weight, training.grid_weight, training.texture_weight
    if options.generator:
        generator = frozen.load(str(options.generator), where)._generator
    else:
        with seeded(0, "generator"):
            generator = Generator(config).to(where)
    # The published codes hold for the whole image, so a network with styles by region is searched without them.
    generator.config = replace(generator.config, regions=())
    counts, modules = tuple(options.candidates or counts), len(generator.config.resolutions)
    if len(counts) != modules:
        raise SystemExit(f"--candidates needs one count a module: {modules}, got {len(counts)}")
    generator.prepare(torch.float32)
    return generator, counts, weights


def problem(
    generator: Generator,
    own: Generator,
    weights: Weights,
    images: int,
    amp: str,
    compile: bool,
    where: torch.device,
) -> Problem:
    """Colored digits, some of their cells hidden, half of them decolorized, 40 % downsampled."""
    resolutions = generator.config.resolutions
    pixels, _ = colored_digits(resolutions[-1], seed=0)
    everything = pixels.to(where).float() / 255
    x = everything[:images]
    rates = fixed_rates(len(x), 4, 0.3, 0.5, (0.2, 0.2), where)
    degraded = corrupt(x, rates.sample(generator_at(0, 0, "corruption", where)))
    precision = {
        "ours": torch.float32 if amp == "off" else torch.bfloat16,
        "published": torch.bfloat16 if amp == "both" else torch.float32,
    }
    pixel, grid, texture = weights
    distance, own_distance = (Distance(everything, pixel, (), grid, texture) for _ in range(2))
    if compile:
        own_distance.compile_parts()
    targets = imle.pyramid(x, resolutions)
    return Problem(generator, own, distance, own_distance, degraded, targets, precision)


@torch.no_grad()
def agreement(
    problem: Problem, counts: tuple[int, ...], precision: torch.dtype, published_precision: torch.dtype
) -> dict[str, float]:
    """Compare the codes that both searches find, each with the network in a precision; distances are float32's.

    A search is greedy, so where two codes of an image differ at one module, its later ones are not comparable and are
    left out.

    Returns:
        `equal_winners_share`; of the unequal ones the `largest_gap_relative` of their distances to the truth (a tie
        where it is no more than `TIE`; 0 where all are equal); `mean_excess_relative`: how much farther our winners
        are than the published ones, over all that were compared.
    """
    ours = problem.ours(counts, precision)
    published = problem.published(problem.candidates(counts), published_precision)
    generator, distance = problem.generator, problem.distance
    generator.precision = torch.float32
    conditions, stage = generator.conditions(problem.degraded), generator.start(problem.degraded)
    agree = torch.ones(len(problem.degraded), dtype=torch.bool, device=stage.image.device)
    same_winner, excess = [], []
    for level, (a, b) in enumerate(zip(ours, published, strict=True)):
        stages = [generator.step(level, conditions[level], code, stage) for code in (a, b)]
        images = [s.image for s in stages]
        if level == len(counts) - 1:
            images = [problem.degraded.make_consistent(image) for image in images]
        d, other = (distance(image, problem.targets[level]) for image in images)
        same = (a.style == b.style).flatten(1).all(dim=1) & (a.noise == b.noise).flatten(1).all(dim=1)
        same_winner.append(same[agree])
        excess.append(torch.where(same, 0.0, (d - other) / other)[agree])
        agree, stage = agree & same, stages[0]
    return {
        "equal_winners_share": torch.cat(same_winner).float().mean().item(),
        "largest_gap_relative": torch.cat(excess).abs().max().item(),
        "mean_excess_relative": torch.cat(excess).mean().item(),
    }


@contextmanager
def exact() -> Iterator[None]:
    """Full float32 in convolutions inside the scope, so that two orders of summation may be compared."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def seconds(run: Callable[[], object], where: torch.device) -> tuple[float, float]:
    """Wall time and processor time of one call; waits for the device before and after."""
    wait = torch.cuda.synchronize if where.type == "cuda" else lambda: None
    wait()
    start, busy = time.perf_counter(), time.process_time()
    run()
    wait()
    return time.perf_counter() - start, time.process_time() - busy


def timed(problem: Problem, counts: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Images per second of both searches, timed in turns: medians, their ratio, and the range of the turns' ratios.

    On a CPU also the ratio of processor times, which what else runs on the machine disturbs less.
    """
    where, codes, precision = problem.targets[0].device, problem.candidates(counts), problem.precision
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: problem.ours(counts, precision["ours"]),
        "published": lambda: problem.published(codes, precision["published"]),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    busy: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, float] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            if where.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            wall, processor = seconds(run, where)
            times[name].append(wall)
            busy[name].append(processor)
            if where.type == "cuda":
                peaks[f"{name}_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    ratios = [slow / fast for fast, slow in zip(times["ours"], times["published"], strict=True)]
    rates = {f"{name}_images_per_s": len(problem.degraded) / statistics.median(t) for name, t in times.items()}
    result = {"speedup_ratio": rates["ours_images_per_s"] / rates["published_images_per_s"]}
    result |= {"speedup_lowest": min(ratios), "speedup_highest": max(ratios)}
    if where.type == "cpu":
        result["processor_time_ratio"] = statistics.median(busy["published"]) / statistics.median(busy["ours"])
    return rates | peaks | result


def measure(problem: Problem, name: str, counts: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Compare the winners, then time both searches; prints a row and returns figures that end in `_name`."""
    with exact():
        same = agreement(problem, counts, torch.float32, torch.float32)  # warms both up, too
    if problem.precision["ours"] != torch.float32:
        rounded = agreement(problem, counts, problem.precision["ours"], problem.precision["published"])
        same |= {f"amp_{key}": value for key, value in rounded.items()}
    figures = timed(problem, counts, repeats)
    low, high = figures["speedup_lowest"], figures["speedup_highest"]
    print(
        f"| {counts} | {len(problem.degraded)} | {figures['ours_images_per_s']:.2f} "
        f"| {figures['published_images_per_s']:.2f} | {figures['speedup_ratio']:.2f} ({low:.2f} to {high:.2f}) "
        f"| {100 * same['equal_winners_share']:.1f} % | {same['largest_gap_relative']:.1e} |",
        flush=True,
    )
    speedup = {f"speedup_{name}_ratio": figures.pop("speedup_ratio")}
    return speedup | {f"{key}_{name}": value for key, value in (figures | same).items()}


def parsed() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="images searched with 120 candidates a module")
    parser.add_argument("--training-images", type=int, default=64, help="images searched with those of the training")
    parser.add_argument("--repeats", type=int, default=3, help="turns; medians are reported")
    parser.add_argument("--config", type=Path, help="settings of camnet.train to take network and candidates from")
    parser.add_argument("--generator", type=Path, help="trained weights (.safetensors); random ones without it")
    parser.add_argument("--candidates", type=int, nargs="+", help="of the training; default: --config's, else 24 12 4")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--amp",
        choices=("off", "ours", "both"),
        default="off",
        help="who is timed with the network in bfloat16; the published procedure knows float32 alone",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile modules and distance for our search (some minutes)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table and one JSON line; fails where winners differ by more than a tie."""
    options = parsed()
    torch.set_num_threads(options.threads)
    where = device.resolve(options.device)
    generator, training, weights = network(options, where)
    own = copy.deepcopy(generator)
    own.prepare(torch.float32, compile=options.compile)
    print("published: the published procedure, written from its description\n")
    print("| candidates | images | ours (images/s) | published (images/s) | ratio | equal winners | largest gap |")
    print("|---|---|---|---|---|---|---|")
    result: dict[str, Any] = {}
    for name, counts, images in (
        ("m120", (PUBLISHED,) * len(training), options.images),
        ("training", training, options.training_images),
    ):
        given = problem(generator, own, weights, images, options.amp, options.compile, where)
        result |= measure(given, name, counts, options.repeats) | {"distance": given.distance.name}
    # Not at equal candidates: what a training searches with, against what the published procedure does.
    result["training_to_published_m120_ratio"] = (
        result["ours_images_per_s_training"] / result["published_images_per_s_m120"]
    )
    machine = torch.cuda.get_device_name() if where.type == "cuda" else f"cpu, threads: {options.threads}"
    print(json.dumps(result | {"amp": options.amp, "compiled": options.compile, "device": machine}))
    gap = max(result["largest_gap_relative_m120"], result["largest_gap_relative_training"])
    rounded = max(result.get(f"amp_largest_gap_relative_{name}", 0.0) for name in ("m120", "training"))
    for found, tie in ((gap, TIE), (rounded, TIE_IN_BFLOAT16)):
        if found > tie:
            raise SystemExit(f"the searches disagree: two winners are {found:.1e} apart, which is no tie ({tie:g})")


if __name__ == "__main__":
    main()
