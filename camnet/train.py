"""Train CAMNet: `python -m camnet.train --config configs/camnet_digits.yaml`. The same command resumes.

`torchrun --nproc-per-node N -m camnet.train ...` trains data-parallel, every process on images of its own.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from camnet import frozen
from camnet.features import lpips_source
from camnet.figures import figures
from camnet.fit import history
from camnet.metrics import diversity
from camnet.sheet import sheet_grid
from camnet.start import Start
from camnet.trainer import Trainer
from configs.camnet import CamnetConfig, Task
from configs.errors import UsageError, as_program
from configs.reading import read
from env.folders import splits_at
from env.images import ImageSet, load, with_unlabeled
from training import tags
from training.folder import RunFolder
from training.memory import within_memory
from training.provenance import command_of
from training.ranks import Ranks
from training.run import Run
from training.seeding import generator_at

MAY_DIFFER = frozenset(
    {
        *("out", "steps", "max-minutes", "device", "compile", "log-every", "picture-every", "measured"),
        *("data.root", "data.download"),
    }
)
LOSS = {"--only-painter": "fill_loss", "--only-colorist": "color_loss"}
"""Beside the progress bar, where a part is trained alone; else the loss of all."""
WATCHED = 64
"""Validation images behind the curves."""
SHOWN = ("best_distance", "mean_distance", "best_psnr", "mean_psnr", "diversity")
"""Figures that are printed at the end."""
BATCH = 8
"""Validation images restored at once for the curves."""


@torch.no_grad()
def watch(trainer: Trainer, images: ImageSet, k: int = 8) -> tuple[dict[str, Tensor], dict[Task, Tensor]]:
    """Restore validation images K times in every task: figures for the curves, and a sample sheet per task.

    The same images, degradations and codes at every call, so that curves and sheets compare.
    """
    operator, x = frozen.FrozenGenerator(trainer.averaged, {}), images.images()
    parts = torch.arange(len(x), device=trainer.device).split(BATCH)
    distances, spreads, sheets = [], [], {}
    for task in dict.fromkeys(trainer.config.generator.tasks):
        random = generator_at(trainer.config.seed, 0, "watch", trainer.device)
        degraded = trainer.tasks.draw(task, x, random, images.layouts)
        samples = torch.cat([operator.views(degraded.select(rows), k, random) for rows in parts])
        distances.append(torch.stack([trainer.distance(samples[:, j], x) for j in range(k)], dim=1))
        spreads.append(diversity(samples, degraded.touched()))
        sheets[task] = sheet_grid(x, degraded, samples, distances[-1])
    drawn = torch.stack(distances)
    curves = {
        "camnet/best_distance": drawn.amin(dim=2).mean(),
        "camnet/mean_distance": drawn.mean(),
        "camnet/diversity": torch.stack(spreads).mean(),
    }
    return curves, sheets


def note_watched(trainer: Trainer, run: Run, images: ImageSet, step: int) -> None:
    """Put what `watch` finds into the curves and among the pictures of a step."""
    curves, sheets = watch(trainer, images)
    run.note(curves)
    for task, sheet in sheets.items():
        run.logbook.picture(f"samples/{task}", sheet, step)


def measure(trainer: Trainer, images: ImageSet) -> dict[str, Any]:
    """The card's figures: of every case, on the given validation images."""
    x, random = images.images(), generator_at(trainer.config.seed, 0, "evaluate", trainer.device)
    operator = frozen.FrozenGenerator(trainer.averaged, {})
    cases = {
        name: figures(operator, trainer.distance, x, case(x, random, images.layouts), 16, random)
        for name, case in tqdm(trainer.tasks.cases().items(), desc="measuring")
    }
    return {"images": len(x), "k": 16, "cases": cases}


def card_of(trainer: Trainer, run: Run, argv: list[str], provenance: dict[str, Any]) -> dict[str, Any]:
    """What is written beside the weights, figures aside: settings, command, time.

    `seconds_total` adds up this training and those before it, as far as their cards tell.
    """
    config = trainer.config
    apart = ("generator", "data", "out")  # the first two have entries of their own
    before = sum(link.get("seconds", 0) for link in history(trainer.origin.before))
    return {
        "generator": asdict(config.generator),
        "data": config.data.told(),
        "class_names": trainer.classes,
        "splits": splits_at(config.data.root) if config.data.name == "imagefolder" else None,
        "grids": config.grids,
        "unlabeled": config.unlabeled,
        "layouts": config.layouts,
        "palette": trainer.tasks.palette.colors.tolist() if trainer.tasks.palette else None,
        "command": command_of("camnet.train", argv),
        "settings": {name: value for name, value in asdict(config).items() if name not in apart},
        "before": trainer.origin.before,
        "candidates": config.candidates,
        "steps": run.step,
        "seconds": round(run.seconds, 1),
        "seconds_total": round(run.seconds + before, 1),
        "distance": trainer.distance.name,
        "validation": None,
        "provenance": provenance,
    }


def require_own(folder: RunFolder, out: Path) -> None:
    """Refuse to replace weights that another training made.

    Raises:
        UsageError: If there are such, by what their card tells; without a card, if this training has made none yet.
    """
    if out.exists() and not folder.has_made(frozen.provenance_of(out)):
        raise UsageError(f"--out {out}: weights of another training are there; remove them or choose another name")


def train(config: CamnetConfig, argv: list[str], ranks: Ranks) -> None:
    """Train, write weights and card, measure on the validation split, write the card once more."""
    if ranks.first:
        frozen.require_place(config.out)
    where = ranks.device(config.device)
    with RunFolder.open(Path("runs") / f"camnet-{config.out.stem}", config, MAY_DIFFER, ranks) as folder:
        if ranks.first:
            require_own(folder, config.out)
        with ranks.in_turn():  # the first downloads
            data = load(config.data, where, config.map_classes)
            images = with_unlabeled(data.train, config.data) if config.unlabeled else data.train
        sources = {"source images": data.source}
        if "lpips" in config.features:
            sources["LPIPS weights"] = lpips_source(config.lpips)
        trainer = Trainer(config, images, where, ranks, data.classes, Start(sources))
        run = Run(
            folder,
            trainer.parts(),
            tags.CAMNET,
            steps=config.steps,
            stride=config.stride,  # checkpoints lie between rounds, so that a resumed training equals an uncut one
            log_every=config.log_every * config.stride,
            save_every=100 * config.stride,
            show={f"camnet/{LOSS.get(config.only, 'loss')}": "loss", "camnet/best_distance": "best"},
            max_minutes=config.max_minutes,
            device=where,
            ranks=ranks,
        )
        trainer.begin(resumed=run.step > 0)
        watched = data.validation.thinned(WATCHED)
        with run.logbook:
            step = seen = None
            for step in run.steps():
                for values in trainer.round(step, run.progress):
                    run.note(values)
                if ranks.first and (step // config.stride) % config.picture_every == 0:
                    note_watched(trainer, run, watched, step)
                    seen = step
            ranks.leave()  # the first goes on alone
            if ranks.first:
                card = card_of(trainer, run, argv, folder.provenance)
                frozen.save(trainer.averaged, config.out, card)
                print(f"{config.out}: the weights are written, their figures are yet to be measured")
                if seen != step:
                    note_watched(trainer, run, watched, run.step)
                    run.logbook.flush(run.step)
                card["validation"] = measure(trainer, data.validation.thinned(config.measured))
                frozen.save(trainer.averaged, config.out, card)
                report(config, run, card)


def report(config: CamnetConfig, run: Run, card: dict[str, Any]) -> None:
    """Print what the training came to."""
    print(f"{config.out}: {run.step} steps in {run.seconds:.0f} s; distance {card['distance']}")
    for case, measured in card["validation"]["cases"].items():
        print(f"  {case:32s} " + "  ".join(f"{name} {measured[name]:.4f}" for name in SHOWN))


@within_memory("lower --batch, --group or --candidates, for an --out of another name")
def main(argv: list[str]) -> None:
    """Read the settings and train, together with the other processes if torchrun started several."""
    with Ranks.join() as ranks:
        config = read(
            CamnetConfig, argv, prog="python -m camnet.train", description=str(CamnetConfig.__doc__), resumes=True
        )
        train(config, argv, ranks)


if __name__ == "__main__":
    as_program("camnet.train", main, "the same command goes on from the last checkpoint, if there is one")
