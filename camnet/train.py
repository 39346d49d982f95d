"""Train CAMNet: `python -m camnet.train --config configs/camnet_digits.yaml`. The same command resumes.

One round: draw images, degrade them, search the best code for each (no gradient), take gradient steps on the codes
found. Checkpoints lie between rounds, so that a resumed training equals an uncut one.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from camnet import frozen
from camnet.degraded import Degraded
from camnet.distance import CALIBRATION_IMAGES, Distance
from camnet.evaluate import figures
from camnet.features import added
from camnet.generator import CascadeModule, Code, Generator
from camnet.imle import imle_loss, pyramid, search
from camnet.layout import SAMPLE, Palette
from camnet.metrics import diversity
from camnet.sheet import sheet_grid
from camnet.tasks import Tasks
from configs.camnet import CamnetConfig, Task
from configs.errors import UsageError
from configs.reading import read
from env.images import ImageSet, load
from training import device, tags
from training.descent import Descent
from training.folder import RunFolder
from training.run import Run, Stateful
from training.schedule import one_cycle
from training.seeding import generator_at, seeded

MAY_DIFFER = frozenset(
    {"steps", "max-minutes", "device", "compile", "log-every", "picture-every", "data.root", "data.download"}
)
WATCHED, MEASURED = 64, 200
"""Validation images behind the curves, and behind the figures of the card."""
SHOWN = ("best_distance", "mean_distance", "best_psnr", "mean_psnr", "diversity")
"""Figures that are printed at the end."""


class Trainer:
    """Everything that a CAMNet training changes, and its one round."""

    def __init__(self, config: CamnetConfig, images: ImageSet, where: torch.device) -> None:
        self.config, self.images, self.device = config, images, where
        with seeded(config.seed, "generator"):
            self.generator = Generator(config.generator).to(where)
        self.averaged = Generator(config.generator).to(where)
        self.averaged.load_state_dict(self.generator.state_dict())
        self.distance = Distance(images.spread(CALIBRATION_IMAGES), config.pixel_weight, added(config, images))
        layouts = "layout" in config.generator.tasks
        self.palette = (
            Palette.fit(images.spread(SAMPLE), config.generator.layout_classes, config.seed) if layouts else None
        )
        self.tasks = Tasks(config.generator, config.grids, config.pure, self.palette)
        self.descent = Descent(self.generator, config.learning_rate, weight_decay=1e-4, clip=1.0)
        for generator in (self.generator, self.averaged):
            generator.precision = torch.bfloat16 if config.amp else torch.float32
            if where.type == "cuda":
                generator.to(memory_format=torch.channels_last)
        if config.compile:
            for level in self.generator.levels:
                assert isinstance(level, CascadeModule)
                level.compile_refinement()

    def parts(self) -> dict[str, Stateful]:
        """Everything that a round changes."""
        return {"generator": self.generator, "averaged": self.averaged, "descent": self.descent}

    def round(self, step: int, progress: float) -> Iterator[dict[str, Tensor | float]]:
        """Search once, then take one gradient step after another on the codes found; yields each step's figures."""
        config = self.config
        random = generator_at(config.seed, step, "camnet", self.device)
        x = self.batch(random)
        tasks = config.generator.tasks
        degraded = self.tasks.draw(tasks[step // config.stride % len(tasks)], x, random)
        targets = pyramid(x, config.generator.resolutions)
        codes = self.search(degraded, targets, random)
        order, fresh = (
            torch.arange(len(x), device=self.device),
            torch.ones(len(x), dtype=torch.bool, device=self.device),
        )
        found = last = torch.zeros(len(x), device=self.device)
        for turn in range(config.reuse):
            if turn:
                order = torch.randperm(len(x), generator=random, device=self.device)
                codes, fresh = self.search_again(codes, last / found, degraded, targets, random)
            seen = torch.empty_like(last)
            for rows in order.split(config.batch):
                some = [t[rows] for t in targets]
                losses = imle_loss(
                    self.generator, self.distance, degraded.select(rows), some, [c.select(rows) for c in codes]
                )
                norm = self.descent.step(losses.mean(), one_cycle(progress))
                self.average()
                seen[rows] = losses.detach()
                yield {"camnet/loss": losses.detach().mean(), "camnet/grad_norm": norm}
            found, last = torch.where(fresh, seen, found), seen

    def batch(self, random: torch.Generator) -> Float[Tensor, "n 3 h w"]:
        """Draw the images of a round."""
        config = self.config
        index = torch.randint(len(self.images), (config.batch * config.group,), generator=random, device=self.device)
        x = self.images.images(index)
        if config.recolor:
            x = recolor(x, random)
        if config.flip:
            mirrored = torch.rand(len(x), 1, 1, 1, generator=random, device=self.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        return x

    def search(self, degraded: Degraded, targets: list[Tensor], random: torch.Generator) -> list[Code]:
        """The best code of every module for each image."""
        config = self.config
        return search(self.generator, self.distance, degraded, targets, config.candidates, random, config.reject)

    def search_again(
        self,
        codes: list[Code],
        fallen: Float[Tensor, " n"],
        degraded: Degraded,
        targets: list[Tensor],
        random: torch.Generator,
    ) -> tuple[list[Code], Bool[Tensor, " n"]]:
        """Adaptive IMLE (Aghabozorgi et al. 2023): new codes where the loss has fallen most, the old ones elsewhere.

        A departure: a fixed share of the images stands in for a threshold, so that shapes are fixed and the host need
        not wait.

        Args:
            codes: The codes in use.
            fallen: Each image's loss as a share of what it was when its code was new.
            degraded: The images.
            targets: The truth.
            random: Draws the candidates.

        Returns:
            The codes to go on with, and which of them are new.
        """
        is_new = torch.zeros_like(fallen, dtype=torch.bool)
        count = round(self.config.adaptive * len(fallen))
        if not count:
            return codes, is_new
        rows = fallen.topk(count, largest=False).indices
        found = self.search(degraded.select(rows), [t[rows] for t in targets], random)
        mixed = [
            Code(old.everywhere.index_copy(0, rows, new.everywhere), old.here.index_copy(0, rows, new.here))
            for old, new in zip(codes, found, strict=True)
        ]
        return mixed, is_new.index_fill(0, rows, True)

    @torch.no_grad()
    def average(self) -> None:
        """Let the averaged weights, which are what is exported, follow the trained ones."""
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.generator.parameters()), 1 - self.config.ema)


def recolor(x: Float[Tensor, "n 3 h w"], random: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Permute the color channels of each image and invert half of the images.

    Keeps the distribution of digits in colors that were drawn uniformly; photographs have no such symmetry.
    """
    n, device = len(x), x.device
    order = torch.rand(n, 3, generator=random, device=device).argsort(dim=1)
    x = x.gather(1, order[:, :, None, None].expand_as(x))
    invert = torch.rand(n, 1, 1, 1, generator=random, device=device) < 0.5
    return torch.where(invert, 1 - x, x)


@torch.no_grad()
def watch(trainer: Trainer, x: Float[Tensor, "n 3 h w"], k: int = 8) -> tuple[dict[str, Tensor], dict[Task, Tensor]]:
    """Restore validation images K times in every task: figures for the curves, and a sample sheet a task.

    The same images, degradations and codes at every call, so that curves and sheets compare.
    """
    operator = frozen.FrozenGenerator(trainer.averaged, {})
    distances, spreads, sheets = [], [], {}
    for task in dict.fromkeys(trainer.config.generator.tasks):
        random = generator_at(trainer.config.seed, 0, "watch", trainer.device)
        degraded = trainer.tasks.draw(task, x, random)
        samples = operator.views(degraded, k, random)
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


def card_of(trainer: Trainer, run: Run, argv: list[str], x: Tensor, provenance: dict[str, Any]) -> dict[str, Any]:
    """What is written beside the weights: settings, command, time, figures."""
    config, random = trainer.config, generator_at(trainer.config.seed, 0, "evaluate", trainer.device)
    operator = frozen.FrozenGenerator(trainer.averaged, {})
    measured = {
        name: figures(operator, trainer.distance, x, case(x, random), 16, random)
        for name, case in tqdm(trainer.tasks.cases().items(), desc="measuring")
    }
    return {
        "generator": asdict(config.generator),
        "data": {name: value for name, value in asdict(config.data).items() if name not in ("root", "download")},
        "grids": config.grids,
        "palette": trainer.palette.colors.tolist() if trainer.palette else None,
        "command": "python -m camnet.train " + " ".join(argv),
        "candidates": config.candidates,
        "steps": run.step,
        "seconds": round(run.seconds, 1),
        "distance": trainer.distance.name,
        "validation": {"images": len(x), "k": 16, "cases": measured},
        "provenance": provenance,
    }


def main(argv: list[str]) -> None:
    """Train, measure on the validation split, write weights and card."""
    config = read(CamnetConfig, argv, prog="python -m camnet.train", description=str(CamnetConfig.__doc__))
    where = device.resolve(config.device)
    with RunFolder.open(Path("runs") / f"camnet-{config.out.stem}", config, MAY_DIFFER) as folder:
        data = load(config.data, where)
        trainer = Trainer(config, data.train, where)
        run = Run(
            folder,
            trainer.parts(),
            tags.CAMNET,
            steps=config.steps,
            stride=config.stride,  # checkpoints lie between rounds
            log_every=config.log_every * config.stride,
            save_every=100 * config.stride,
            show={"camnet/loss": "loss", "camnet/best_distance": "best"},
            max_minutes=config.max_minutes,
            device=where,
        )
        watched = data.validation.spread(WATCHED)
        with run.logbook:
            for step in run.steps():
                for values in trainer.round(step, run.progress):
                    run.note(values)
                if (step // config.stride) % config.picture_every == 0:
                    curves, sheets = watch(trainer, watched)
                    run.note(curves)
                    for task, sheet in sheets.items():
                        run.logbook.picture(f"samples/{task}", sheet, step)
        card = card_of(trainer, run, argv, data.validation.spread(MEASURED), folder.provenance)
        frozen.save(trainer.averaged, config.out, card)
    print(f"{config.out}: {run.step} steps in {run.seconds:.0f} s")
    for case, measured in card["validation"]["cases"].items():
        print(f"  {case:32s} " + "  ".join(f"{name} {measured[name]:.4f}" for name in SHOWN))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UsageError as error:
        sys.exit(f"camnet.train: {error}")
    except KeyboardInterrupt:  # outside the steps, or pressed twice
        sys.exit("camnet.train: interrupted; the same command goes on from the last checkpoint, if there is one")
