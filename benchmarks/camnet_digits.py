"""What conditional IMLE buys: the shipped digits CAMNet against m = 1 (plain regression) at equal gradient steps.

Trains the control with the shipped generator's own configuration but one candidate a module (kept in runs/ and
resumed), then measures both on the 500 test digits, 16 restorations each, under four corruptions.

    python benchmarks/camnet_digits.py
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from camnet import frozen, train
from camnet.distance import Distance
from camnet.evaluate import figures
from configs.data import DataConfig
from env.distribution import fixed_rates
from env.images import load
from training.seeding import generator_at

CONTROL = Path("runs/camnet_m1.safetensors")
CORRUPTIONS = {
    "half of the cells hidden": (0.5, 0.0, (0.0, 0.0)),
    "decolorized": (0.0, 1.0, (0.0, 0.0)),
    "downsampled by 4": (0.0, 0.0, (0.0, 1.0)),
    "30 % hidden and decolorized": (0.3, 1.0, (0.0, 0.0)),
}
"""Mask ratio, P(decolorize), P(downsampling by 2 and by 4)."""
COLUMNS = ("best_distance", "mean_distance", "best_psnr", "mean_psnr", "diversity", "kept_error", "hue_share")


def main() -> None:
    """Train the control if need be, measure, print the tables and one JSON line."""
    if not CONTROL.exists():
        train.main(["--config", "configs/camnet_digits.yaml", "--candidates", "1", "1", "1", "--out", str(CONTROL)])
    cpu = torch.device("cpu")
    operators = {"m = (32, 8, 4)": frozen.load("digits", cpu), "m = 1": frozen.load(str(CONTROL), cpu)}
    data = load(DataConfig(), cpu)
    distance, x = Distance(data.train.images(), pixel_weight=1.0), data.test.images()
    result: dict[str, float] = {}
    for title, (mask_ratio, decolorize, downsample) in CORRUPTIONS.items():
        print(f"\n**{title}** (distance: {Distance.name})\n\n| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
        rows = {}
        for name, operator in operators.items():
            random = generator_at(0, 0, "benchmark", cpu)
            action = fixed_rates(len(x), 4, mask_ratio, decolorize, downsample, cpu).sample(random)
            rows[name] = measured = figures(operator, distance, x, action, k=16, random=random)
            cells = [f"{measured[c]:.1e}" if c == "kept_error" else f"{measured[c]:.3f}" for c in COLUMNS]
            print(f"| {name} | {' | '.join(cells)} |")
        key = title.replace(" ", "_").replace("%", "percent")
        imle, control = rows.values()
        result[f"{key}_best_distance_ratio"] = imle["best_distance"] / control["best_distance"]
        result[f"{key}_best_psnr_gain_db"] = imle["best_psnr"] - control["best_psnr"]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
