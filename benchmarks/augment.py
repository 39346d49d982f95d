"""Augmented images per second: ours, kornia's and torchvision's.

Ours and kornia's take a batch on the device in one call, each image with its own parameters; torchvision's v2 takes one
image at a time, as a DataLoader worker does (`env.augment.dataloader`), whatever the batch. All: random resized crop,
flip, color jitter, grayscale, and with --blur Gaussian blur, at strength 1. Where kornia's law is another: it draws one
order of color operations for a batch, where ours and torchvision's draw one for each image; and its blur has one kernel
size and sigma range, as ours. Kornia has two ways to crop, a loop over images ("slice", its default) and a batched
resampling ("resample"); the faster is taken for each batch.

On a CPU processor time is measured, which what else runs there disturbs less than a clock; on a GPU, time. They are
timed in turns; medians are reported.

    pip install kornia
    python benchmarks/augment.py
    python benchmarks/augment.py --sizes 32 224 --batches 256 --blur 0.5 --device cuda

The last line is one JSON object; `ours_32_256_to_kornia_ratio` is our images per second by kornia's at 32 pixels and
batches of 256 (above 1: ours is faster), and `..._peak_mb` what a call needs at most beside its input (GPU only).
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from configs.augment import AugmentConfig
from env.augment.blur import NARROWEST, WIDEST, kernel_size
from env.augment.dataloader import transform
from env.augment.dial import Dial
from env.augment.expert import Expert

STRENGTH = 1.0
ONE_BY_ONE = 32
"""Images that torchvision takes in a turn."""


def ours(config: AugmentConfig, x: Tensor) -> Callable[[], Tensor]:
    """This project's augmentation."""
    expert, random = Expert(config, STRENGTH, x.shape[-1]), torch.Generator(device=x.device).manual_seed(0)
    return lambda: expert(x, random)


def kornias(config: AugmentConfig, x: Tensor, way: str) -> Callable[[], Tensor]:
    """The same operations by kornia.augmentation, with one of its two ways to crop."""
    K, dial, size = importlib.import_module("kornia.augmentation"), Dial(STRENGTH), x.shape[-1]
    steps = [
        K.RandomResizedCrop((size, size), scale=(dial.smallest_area, 1.0), cropping_mode=way),
        K.RandomHorizontalFlip(p=config.flip),
        K.ColorJitter(dial.blend, dial.blend, dial.blend, dial.turn, p=dial.jitter_probability),
        K.RandomGrayscale(p=config.gray),
    ]
    if config.blur:
        side = kernel_size(size)
        steps.append(K.RandomGaussianBlur((side, side), (NARROWEST, WIDEST), p=config.blur))
    sequence = K.AugmentationSequential(*steps, data_keys=["input"], same_on_batch=False).to(x.device)
    return lambda: sequence(x)


def torchvisions(config: AugmentConfig, x: Tensor) -> Callable[[], Tensor]:
    """The same operations by torchvision.transforms.v2, image by image on the CPU."""
    one, images = transform(config, STRENGTH, x.shape[-1]), x[:ONE_BY_ONE].cpu()
    return lambda: torch.stack([one(image) for image in images])


def seconds(call: Callable[[], Tensor], device: torch.device, calls: int) -> float:
    """Time of one call."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = clock()
    for _ in range(calls):
        call()
    wait()
    return (clock() - start) / calls


def rates(
    contestants: dict[str, tuple[Callable[[], Tensor], int]], device: torch.device, options: argparse.Namespace
) -> dict[str, float]:
    """Images per second of each call that makes so many: the median of the turns, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(options.repeats + 1):
        for name, (call, _) in contestants.items():
            time_of_call = seconds(call, device, options.calls)
            if turn:
                times[name].append(time_of_call)
    return {name: count / statistics.median(times[name]) for name, (_, count) in contestants.items()}


def peak_mb(call: Callable[[], Tensor]) -> float:
    """GPU memory that a call takes at most beside what was there before."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96], help="sides of the images in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024], help="images of a call")
    parser.add_argument("--blur", type=float, default=0.0, help="probability of Gaussian blur")
    parser.add_argument("--calls", type=int, default=1, help="calls a turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns; medians are reported")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and one JSON line."""
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    config = AugmentConfig(blur=options.blur)
    random = torch.Generator(device=device).manual_seed(0)
    torch.manual_seed(0)
    result: dict[str, Any] = {}
    best: dict[str, float] = {}
    print("Images per second.\n\n| pixels | batch | ours | kornia | torchvision | ours / kornia |\n" + "|---" * 6 + "|")
    for size in options.sizes:
        for batch in options.batches:
            x = torch.rand(batch, 3, size, size, generator=random, device=device)
            mine, sliced, resampled = ours(config, x), kornias(config, x, "slice"), kornias(config, x, "resample")
            one_by_one = torchvisions(config, x)
            calls = {"ours": (mine, batch), "slice": (sliced, batch), "resample": (resampled, batch)}
            found = rates({**calls, "torchvision": (one_by_one, min(batch, ONE_BY_ONE))}, device, options)
            found["kornia"] = max(found.pop("slice"), found.pop("resample"))
            for name, rate in found.items():
                result[f"{name}_{size}_{batch}_images_per_second"] = rate
                best[f"{name}_{size}_best_images_per_second"] = max(
                    rate, best.get(f"{name}_{size}_best_images_per_second", 0.0)
                )
            for other in ("kornia", "torchvision"):
                result[f"ours_{size}_{batch}_to_{other}_ratio"] = found["ours"] / found[other]
            if device.type == "cuda":
                for name, call in (("ours", mine), ("kornia_resample", resampled)):
                    result[f"{name}_{size}_{batch}_peak_mb"] = peak_mb(call)
            row = [f"{found[name]:,.0f}" for name in ("ours", "kornia", "torchvision")]
            ratio = result[f"ours_{size}_{batch}_to_kornia_ratio"]
            print(f"| {size} | {batch} | " + " | ".join(row) + f" | {ratio:.2f} |", flush=True)
    settings = {name: getattr(options, name) for name in ("blur", "threads", "device")}
    print(json.dumps({**result, **best, **settings}))


if __name__ == "__main__":
    main()
