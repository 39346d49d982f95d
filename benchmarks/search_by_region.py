"""What does choosing codes region by region find, in what time? Against choosing whole images, on one trained network.

    python benchmarks/search_by_region.py
    python benchmarks/search_by_region.py --generator imagefolder --data-root FOLDER

Both searches are camnet.imle.search on the same network, degradations and images; styles differ by region in the one
and not in the other (weights know no regions, so any network can be searched either way: --regions). Each row: codes
tried at each module, regions a side, mean distance of what was found from the truth at the finest module (the
training distance; lower is better; over all degraded images and some seeds, ± over seeds), and seconds (median).

The last line is one JSON object. found_distance_ratio: by region to wholes, equal numbers of candidates.
seconds_for_as_near_ratio: wholes to by region, for the fewest wholes that find as near a code; absent where none of
those tried does.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from camnet import frozen, imle
from camnet.distance import CALIBRATION_IMAGES, Distance
from camnet.tasks import Tasks
from configs.camnet import GeneratorConfig
from configs.data import DataConfig
from env.images import load
from training.seeding import generator_at

WHOLES = (1, 2, 4, 8, 16, 32)
"""Whole candidates at every module, besides those of --candidates."""


@dataclass(frozen=True)
class Row:
    """One way to search, and what it came to."""

    candidates: tuple[int, ...]
    regions: tuple[int, ...]
    distances: list[float]
    seconds: float

    @property
    def distance(self) -> float:
        """Mean over seeds."""
        return statistics.mean(self.distances)

    def line(self) -> str:
        """As a row of the table."""
        regions = ", ".join(map(str, self.regions)) or "wholes"
        spread = statistics.stdev(self.distances) if len(self.distances) > 1 else 0.0
        tried = ", ".join(map(str, self.candidates))
        return f"| {tried} | {regions} | {self.distance:.4f} ± {spread:.4f} | {self.seconds:.2f} |"


def parsed() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="cifar10", help="a shipped name or the path of weights")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of the images it was trained for")
    parser.add_argument("--candidates", type=int, nargs="+", help="codes tried at each module; default: the card's")
    parser.add_argument("--regions", type=int, nargs="+", help="regions a side at each module; default: the card's")
    parser.add_argument("--images", type=int, default=128, help="validation images")
    parser.add_argument("--seeds", type=int, default=3, help="draws of degradations and codes")
    parser.add_argument("--pixel-weight", type=float, default=8.0, help="of the distance, as in the training")
    parser.add_argument("--grid-weight", type=float, default=10.0, help="of the distance, as in the training")
    parser.add_argument("--texture-weight", type=float, default=5.0, help="of the distance, as in the training")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args()


def main() -> None:
    """Search, print the table and one JSON line."""
    options = parsed()
    torch.set_num_threads(options.threads)
    where = torch.device("cpu")
    operator = frozen.load(options.generator, where, torch.bfloat16)
    generator = operator._generator
    config: GeneratorConfig = generator.config
    regions = tuple(options.regions or config.regions)
    if not regions:
        raise SystemExit(f"--generator {options.generator}: its styles do not differ by region; give --regions")
    if not (options.candidates or "candidates" in operator.card):
        raise SystemExit(f"--generator {options.generator}: its card tells no candidates; give --candidates")
    data = operator.card["data"]
    data = data | {"root": options.data_root, "classes": tuple(data.get("classes", ()))}
    splits = load(DataConfig(**data), where)  # the split of the training: validation images were never trained on
    weights = {name: getattr(options, name) for name in ("pixel_weight", "grid_weight", "texture_weight")}
    distance = Distance(splits.train.spread(CALIBRATION_IMAGES), **weights)
    x = splits.validation.spread(options.images)
    targets = imle.pyramid(x, config.resolutions)
    tasks = Tasks(config, tuple(operator.card.get("grids", (4,))), 0.4, palette=None)

    def row(candidates: tuple[int, ...], regions: tuple[int, ...]) -> Row:
        generator.config = replace(config, regions=regions)
        distances, seconds = [], []
        for seed in range(options.seeds):
            degraded = tasks.draw("mix", x, generator_at(seed, 0, "degradations", where))
            start = time.perf_counter()
            codes = imle.search(
                generator, distance, degraded, targets, candidates, generator_at(seed, 0, "candidates", where)
            )
            seconds.append(time.perf_counter() - start)
            with torch.no_grad():
                distances.append(distance(generator(degraded, codes)[-1], x).mean().item())
        return Row(candidates, regions, distances, statistics.median(seconds))

    def shown(candidates: tuple[int, ...], regions: tuple[int, ...]) -> Row:
        found = row(candidates, regions)
        print(found.line(), flush=True)
        return found

    counts = tuple(options.candidates or operator.card["candidates"])
    row(counts, ())  # warms up
    print("| candidates | regions a side | distance found | seconds |\n|---|---|---|---|")
    by_region, equal = shown(counts, regions), shown(counts, ())
    wholes = [shown((m,) * len(counts), ()) for m in WHOLES]
    figures = {"found_distance_ratio": by_region.distance / equal.distance}
    as_near = [found for found in wholes if found.distance <= by_region.distance]
    if as_near:
        figures["seconds_for_as_near_ratio"] = as_near[0].seconds / by_region.seconds
    print(json.dumps(figures | {"images": len(x), "seeds": options.seeds, "distance": distance.name}))


if __name__ == "__main__":
    main()
