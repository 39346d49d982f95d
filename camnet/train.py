"""Train CAMNet: `python -m camnet.train --config configs/camnet_digits.yaml`. The same command resumes.

One round: draw images and corruptions, search the best code for each (no gradient), take `reuse` gradient steps on the
codes found. Checkpoints lie between rounds, so that a resumed training equals an uncut one.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from camnet import frozen
from camnet.distance import Distance
from camnet.evaluate import figures
from camnet.generator import Generator
from camnet.imle import imle_loss, pyramid, search, training_actions
from configs.camnet import CamnetConfig
from configs.errors import UsageError
from configs.reading import read
from env.corruption import corrupt
from env.images import ImageSet, load
from training import device, tags
from training.descent import Descent
from training.folder import RunFolder
from training.run import Run, Stateful
from training.schedule import one_cycle
from training.seeding import generator_at, seeded

MAY_DIFFER = frozenset({"steps", "max-minutes", "device"})


class Trainer:
    """Everything that a CAMNet training changes, and its one round."""

    def __init__(self, config: CamnetConfig, images: ImageSet, where: torch.device) -> None:
        self.config, self.images, self.device = config, images, where
        with seeded(config.seed, "generator"):
            self.generator = Generator(config.generator).to(where)
        self.averaged = Generator(config.generator).to(where)
        self.averaged.load_state_dict(self.generator.state_dict())
        self.distance = Distance(images.images(), config.pixel_weight)
        self.descent = Descent(self.generator, config.learning_rate, weight_decay=1e-4, clip=1.0)

    def parts(self) -> dict[str, Stateful]:
        """Everything that a round changes."""
        return {"generator": self.generator, "averaged": self.averaged, "descent": self.descent}

    def round(self, step: int, progress: float) -> Iterator[dict[str, Tensor | float]]:
        """Search once, then take one gradient step after another on the codes found; yields each step's figures."""
        config = self.config
        random = generator_at(config.seed, step, "camnet", self.device)
        index = torch.randint(len(self.images), (config.batch * config.reuse,), generator=random, device=self.device)
        x = self.images.images(index)
        if config.recolor:
            x = recolor(x, random)
        corrupted = corrupt(x, training_actions(len(x), config.grid, random))
        targets = pyramid(x, config.generator.resolutions)
        codes = search(self.generator, self.distance, corrupted, targets, config.candidates, random)
        for rows in torch.arange(len(x), device=self.device).split(config.batch):
            loss = imle_loss(
                self.generator,
                self.distance,
                corrupted.select(rows),
                [t[rows] for t in targets],
                [c.select(rows) for c in codes],
            ).mean()
            norm = self.descent.step(loss, one_cycle(progress))
            self.average()
            yield {"camnet/loss": loss.detach(), "camnet/grad_norm": norm}

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
            stride=config.reuse,  # checkpoints lie between rounds
            log_every=10 * config.reuse,
            save_every=100 * config.reuse,
            show={"camnet/loss": "loss"},
            max_minutes=config.max_minutes,
            device=where,
        )
        with run.logbook:
            for step in run.steps():
                for values in trainer.round(step, run.progress):
                    run.note(values)
        operator = frozen.FrozenGenerator(trainer.averaged, {})
        x = data.validation.images()
        random = generator_at(config.seed, 0, "evaluate", where)
        action = training_actions(len(x), config.grid, random)
        measured = figures(operator, trainer.distance, x, action, k=16, random=random)
        card = {
            "generator": asdict(config.generator),
            "data": asdict(config.data),
            "command": "python -m camnet.train " + " ".join(argv),
            "steps": run.step,
            "seconds": round(run.seconds, 1),
            "distance": Distance.name,
            "validation": measured,
            "provenance": folder.provenance,
        }
        frozen.save(trainer.averaged, config.out, card)
    print(f"{config.out}: {run.step} steps in {run.seconds:.0f} s")
    for name, value in measured.items():
        print(f"  {name:14s} {value:.4f}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UsageError as error:
        sys.exit(f"camnet.train: {error}")
    except KeyboardInterrupt:  # outside the steps, or pressed twice
        sys.exit("camnet.train: interrupted; the same command goes on from the last checkpoint, if there is one")
