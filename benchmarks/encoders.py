"""What each encoder costs: parameters, features, one training step of the learner on 64 images of 32 pixels.

Run with, for example:

    python benchmarks/encoders.py --threads 1
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ENCODERS = (
    *("small", "mobilenet_v3_small", "timm:vit_tiny_patch16_224", "timm:resnet10t"),
    *("convnext_tiny", "resnet18", "resnet18, chunk 8", "resnet50"),
)
IMAGES, SIZE = 64, 32


def main() -> None:
    """Measure, print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="*", default=ENCODERS, help="'NAME' or 'NAME, chunk C'")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    import torch  # after the number of threads is known

    from configs.contrastive import ContrastiveConfig
    from contrastive.encoder import Learner

    torch.set_num_threads(chosen.threads)
    cuda = chosen.device == "cuda"
    print("| encoder | parameters (M) | features | a step (s) | kept for the backward pass (MiB) |")
    print("|---|---|---|---|---|")
    seconds: dict[str, float] = {}
    for row in chosen.encoders:
        name, _, chunk = row.partition(", chunk ")
        learner = Learner(ContrastiveConfig(encoder=name, chunk=int(chunk or 0)), SIZE).to(chosen.device)
        x = torch.rand(IMAGES, 3, SIZE, SIZE, device=chosen.device)
        times, kept = [], 0
        for _ in range(1 + chosen.repeats):
            sizes: dict[int, int] = {}

            def count(t: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
                sizes[t.data_ptr()] = t.numel() * t.element_size()
                return t

            start = time.perf_counter()
            with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
                u = learner(x)
            own = {p.data_ptr() for p in learner.parameters()}
            kept = sum(size for place, size in sizes.items() if place not in own)
            u.sum().backward()
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        seconds[row] = statistics.median(times[1:])
        millions = sum(p.numel() for p in learner.parameters()) / 1e6
        mebibytes = kept / 2**20
        print(
            f"| {row} | {millions:.1f} | {learner.feature_length} | {seconds[row]:.2f} | {mebibytes:.0f} |", flush=True
        )
    figures = {f"{row}_seconds": value for row, value in seconds.items()}
    first, *others = seconds
    figures |= {f"{row}_to_{first}_seconds_ratio": seconds[row] / seconds[first] for row in others}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
