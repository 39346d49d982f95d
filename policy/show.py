"""Look at a trained policy: `python -m policy.show runs/NAME`. Draws policy.png, prints a table of rates."""

import sys
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.errors import UsageError, as_program
from configs.reading import read
from configs.run import RunConfig
from configs.show import ShowConfig
from env import images
from env.corruption import corrupt
from env.distribution import Policy
from env.pictures import hatching
from policy import export
from policy.habits import Habits, observe
from policy.portrait import Examples, Portrait, draw
from training.folder import ROWS
from training.logbook import history
from training.seeding import generator_at
from training.settings import run_settings

EXTREMES = 6
"""Images shown of the most, and of the least corrupted."""


def settings(run: Path) -> RunConfig:
    """The settings of a run that has ended with an exported policy.

    Raises:
        UsageError: If there is no such run, its settings cannot be read, or it has no exported policy.
    """
    config = run_settings(run)
    if not config.policy.learns:
        raise UsageError(f"{run}: its policy, {config.policy.name}, learned nothing, so there is nothing to show")
    if not (run / export.WEIGHTS).is_file():
        raise UsageError(
            f"{run} has no {export.WEIGHTS}: the run has not ended. Give its command again; it goes on to the end"
        )
    return config


def steps_since(run: Path) -> int:
    """Steps of a run's curves past those of its exported policy; 0 where it does not tell."""
    exported = export.told(run).get("steps")
    logged = max((max(steps) for steps, _ in history(run / ROWS).values()), default=0)
    return max(0, logged - exported) if isinstance(exported, int) else 0


def starting_mask(config: RunConfig, like: Float[Tensor, "s s"]) -> dict[str, Float[Tensor, "s s"]]:
    """The mean mask of the policy as it began, by title; none where the settings alone do not tell.

    A new mask network hides every cell of every image at the configured rate.
    """
    known = config.policy.name == "learned" and not config.policy.start
    return {"mean mask at the start": torch.full_like(like, config.policy.mask_ratio)} if known else {}


def examples(
    title: str, policy: Policy, x: Float[Tensor, "n 3 h w"], habits: Habits, rows: Int[Tensor, " c"], seed: int
) -> Examples:
    """Images with one draw of the policy, hidden cells striped, and in words what was to be expected."""
    some, rates = x[rows], {name: values[rows].tolist() for name, values in habits.rates().items()}
    corrupted = corrupt(some, policy(some).sample(generator_at(seed, 0, f"show {title}", images.CPU)))
    drawn = torch.where(corrupted.hidden.bool(), hatching(some), corrupted.kept)
    above = [f"{share:.1%} deleted" for share in rates["deleted"]]
    below = [
        f"mask {mask:.2f}\nP(gray) {gray:.2f}\nP(1/2) {half:.2f}\nP(1/4) {quarter:.2f}"
        for mask, gray, half, quarter in zip(*(rates[name] for name in ("mask", "gray", "1/2", "1/4")), strict=True)
    ]
    return Examples(title, some, drawn, above, below)


@torch.no_grad()
def portrait(
    config: RunConfig, policy: Policy, test: images.ImageSet, habits: Habits, show: ShowConfig, classes: tuple[str, ...]
) -> Portrait:
    """All that is drawn of a policy and these test images."""
    x, curves, mean = test.images(), history(show.run / ROWS), habits.mean_mask()
    most, least = habits.extremes(EXTREMES)
    return Portrait(
        title=f"{show.run.resolve().name}: what the policy does to {len(test)} test images",
        masks=starting_mask(config, mean) | {"mean mask now": mean},
        entropy=habits.cell_entropy(),
        classes=dict(zip(classes, habits.class_masks(test.labels, len(classes)), strict=True)),
        examples=[
            examples("most corrupted, by the expected share of deleted numbers", policy, x, habits, most, config.seed),
            examples("least corrupted", policy, x, habits, least, config.seed),
        ],
        history=curves,
    )


def table(habits: Habits) -> str:
    """Expected rates: their mean over the images, and those of the images with the least and the most of each."""
    lines = [f"{'':22s}{'mean':>8s}{'least':>8s}{'most':>8s}"]
    titles = {"deleted": "share deleted", "mask": "mask ratio", "gray": "P(gray)", "1/2": "P(1/2)", "1/4": "P(1/4)"}
    for name, rates in habits.rates().items():
        lines.append(f"{titles[name]:22s}{rates.mean():8.3f}{rates.min():8.3f}{rates.max():8.3f}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Read the run, look at the policy, draw, print."""
    show = read(ShowConfig, argv, prog="python -m policy.show", description=str(ShowConfig.__doc__))
    config = settings(show.run)
    policy, since = export.load(show.run), steps_since(show.run)
    if since:
        print(
            f"{show.run}: the run has gone on for {since} steps since its policy was exported, and has not ended: this "
            "is what it did then. Give the run's command again; it goes on to the end",
            file=sys.stderr,
        )
    splits = images.load(config.data.in_folder(show.data_root), images.CPU)
    test = splits.test.thinned(show.images)
    habits = observe(policy, test.images())
    draw(portrait(config, policy, test, habits, show, splits.classes), show.out)
    print(f"{show.run}: {len(test)} test images\n\n{table(habits)}\n\n{show.out}")


if __name__ == "__main__":
    as_program("policy.show", main, "nothing was written")
