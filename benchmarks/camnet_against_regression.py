"""What conditional IMLE buys: a trained CAMNet against plain regression (one candidate a module, m = 1).

Trains two controls by the command in the generator's card, with m = 1: one for as many gradient steps, one for as many
minutes. Where that training began with other weights (--start), so do the controls: what is compared is the last
training, and the card's `before` tells what both had behind them. Then measures all three on the test images, K = 16
restorations each, on the same degraded images. Controls are kept in runs/, so the same command goes on.

    python benchmarks/camnet_against_regression.py --generator runs/cifar10.safetensors --threads 1

A card that is too old to tell which weights its training began with needs --start FILE, and nobody checks that these
are the ones. Controls are trained under today's distance; where the generator was trained under another, that is said.

Equal minutes mean equal compute only on an equally busy machine: train the controls as the generator was trained.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from camnet import evaluate, frozen, train
from configs.camnet import CamnetConfig
from configs.reading import read

FOREVER = 10**9
"""More steps than the minutes allow."""


def main() -> None:
    """Train the controls if need be, measure, print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, required=True, help="the .safetensors file of the trained generator")
    parser.add_argument("--start", help="the weights that its training began with, if they have moved since")
    parser.add_argument("--data-root", help="folder of the image set, if it has moved since")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--threads", type=int, default=1, help="threads, as the generator was trained")
    parser.add_argument("--only", choices=("steps", "time"), help="only train this control")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = options.generator
    card = json.loads(weights.with_suffix(".json").read_text())
    own = shlex.split(card["command"])[3:]
    own += ["--data.root", options.data_root] if options.data_root else []
    own += ["--start", options.start] if options.start else []
    config = read(CamnetConfig, own, prog="camnet.train", description="")
    if config.only_prior:
        raise SystemExit(
            f"{weights}: its last training left the network alone and learned a prior, which regression has none of. "
            f"Give the weights that it began with, {config.start}"
        )
    require_start(config.start, card, asserted=bool(options.start))
    lengths = {
        "steps": ["--steps", str(card["steps"]), "--max-minutes", "0"],
        "time": ["--steps", str(FOREVER), "--max-minutes", str(card["seconds"] / 60)],
    }
    if (ranks := card.get("provenance", {}).get("ranks", 1)) > 1:
        raise SystemExit(
            f"{weights}: {ranks} processes trained it together, the controls would be trained by one: neither their "
            "steps nor their time would be equal"
        )
    controls = {}
    for name, length in lengths.items():
        controls[name] = Path(f"runs/{weights.stem}_m1_{name}.safetensors")
        if options.only in (None, name):
            ones = ["--candidates", *("1" for _ in config.candidates), "--generator.prior"]
            ones += ["--generator.schemes", "1", "--paintings", "1"]
            if config.only_painter:
                ones = ["--paintings", "1"]
            elif config.only_colorist:
                ones = ["--generator.schemes", "1"]
            train_once([*own, *length, *ones, "--out", str(controls[name])], controls[name])
            distance = json.loads(controls[name].with_suffix(".json").read_text())["distance"]
            if distance != card["distance"]:
                print(f"{controls[name]} was trained under {distance}, {weights} under {card['distance']}")
    if options.only:
        return
    out = Path(f"runs/{weights.stem}_against_regression")
    against = ["--against", *map(str, controls.values())]
    shared = ["--data.root", str(config.data.root), "--images", str(options.images), "--out", str(out)]
    shared += ["--amp", str(config.amp)]
    evaluate.main(["--generator", str(weights), *against, *shared])
    print(json.dumps(ratios(out, weights.stem)))


def require_start(start: str, card: dict[str, Any], asserted: bool) -> None:
    """Refuse controls that would begin with other weights than the generator did.

    Args:
        start: The weights that the controls are to begin with; empty: none.
        card: Of the generator.
        asserted: Whether the user named them; what the card's command names may have been replaced since.
    """
    if not start:
        return
    wanted = (card.get("before") or {}).get("file_sha256")
    if wanted is None:
        if not asserted:
            raise SystemExit(
                "the generator's card is too old to tell which weights its training began with: its command names "
                f"{start}, which may be others by now. Give their file with --start, and it is taken at your word"
            )
    elif frozen.load(start, torch.device("cpu"), flag="--start").card["file_sha256"] != wanted:
        raise SystemExit(
            f"--start {start}: not the weights that this training began with (SHA-256 {wanted}); give their file"
        )


def train_once(argv: list[str], out: Path) -> None:
    """Train a control, or keep the one that the same command has made."""
    card = out.with_suffix(".json")
    if (
        out.exists()
        and card.exists()
        and json.loads(card.read_text())["command"] == f"python -m camnet.train {shlex.join(argv)}"
    ):
        return
    train.main(argv)


def ratios(out: Path, generator: str) -> dict[str, float]:
    """Best-of-K distance over each control's, and the gain in best-of-K PSNR, case by case."""
    figures = {}
    for case, rows in json.loads((out / "figures.json").read_text())["cases"].items():
        key = case.replace(" %", " percent").replace(" + ", " ").replace(" ", "_")
        for control in ("steps", "time"):
            own, other = rows[generator], rows[f"{generator}_m1_{control}"]
            figures[f"{key}_best_distance_to_m1_equal_{control}_ratio"] = own["best_distance"] / other["best_distance"]
            figures[f"{key}_best_psnr_gain_over_m1_equal_{control}_db"] = own["best_psnr"] - other["best_psnr"]
    return figures


if __name__ == "__main__":
    main()
