"""The learner of a run, as its newest checkpoint has it. Nothing is unpickled."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.errors import UsageError
from configs.run import RunConfig
from contrastive.encoder import Learner
from training import checkpoint
from training.folder import CHECKPOINTS
from training.seeding import seeded
from training.settings import run_settings


@dataclass(frozen=True)
class Trained:
    """What a run has come to.

    Attributes:
        config: The run's settings.
        learner: In evaluation mode; its parameters still take gradients.
        step: Learner steps done.
        path: The checkpoint that it comes from.
        images: Digest of the images that it learned from (`env.images.Splits.digest`); empty: unknown.
    """

    config: RunConfig
    learner: Learner
    step: int
    path: Path
    images: str = ""


def load(folder: Path, device: torch.device) -> Trained:
    """Read a run's settings and the learner of its newest valid checkpoint; global random numbers stay as they are.

    Args:
        folder: The run's folder, such as runs/digits-loss-slope-seed0; the run need not have ended.
        device: Where the learner goes.

    Returns:
        Settings, learner and step. A newer checkpoint that is damaged is skipped, with a line on stderr.

    Raises:
        UsageError: If there is no such run, it has no valid checkpoint, or the checkpoint does not fit the settings.
    """
    config = run_settings(folder)
    damages: list[str] = []
    saved = checkpoint.newest_valid(folder / CHECKPOINTS, damages.append)
    if saved is None:
        raise UsageError(_nothing_saved(folder, damages))
    if damages:
        print("\n".join(damages), file=sys.stderr)
    weights = saved.state.get("parts", {}).get("learner")
    if weights is None:
        raise UsageError(f"{saved.path} holds no learner: it is not a checkpoint of run_rl.py. Name another run")
    with seeded(config.seed, "learner"):
        learner = Learner(config.contrastive, config.data.size)
    checkpoint.load_into(learner, weights, f"{saved.path}: learner")
    origin = saved.state["parts"].get("origin", {})
    return Trained(config, learner.to(device).eval(), saved.step, saved.path, origin.get("source images", ""))


def _nothing_saved(folder: Path, damages: list[str]) -> str:
    if damages:
        return f"{folder} has no checkpoint that is whole: {'; '.join(damages)}. Give the run's command again"
    return f"{folder} has no checkpoint yet: give the run's command again and wait for its first one"
