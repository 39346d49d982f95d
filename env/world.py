"""The environment's inside: it shows images, takes corruptions, and lets the learner take its turn.

run_rl.py, the Gymnasium environments and Stable-Baselines3 all step through this one class, whatever face they show.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from env.corruption import Action, corrupt
from env.engine import Engine, Turn
from env.images import ImageSet
from env.showing import Showing
from training.checkpoint import Stateful
from training.seeding import generator_at

Prior = Callable[[int, torch.Generator], Action]
"""Draws corruptions for so many images that no policy looks at."""


class World:
    """Images, frozen generator and learner as one bandit: an action for each image, a reward for each action.

    Args:
        images: What is shown.
        showing: From degraded images to what the learner sees.
        engine: The learner's turn, and the reward.
        learning: What a turn changes, by name: the learner, its descent, the reward.
        batch: Images per step.
        grid: Cells a side of the masks in the actions of its Gymnasium faces.
        prior: Corrupts the companions of a single image.
        seed: Of batches, codes and draws.

    Attributes:
        turn: What is wanted of the learner's turns in `act`.
    """

    def __init__(
        self,
        images: ImageSet,
        showing: Showing,
        engine: Engine,
        learning: Mapping[str, Stateful],
        *,
        batch: int,
        grid: int,
        prior: Prior,
        seed: int,
    ) -> None:
        self.images, self.showing, self.engine, self.learning = images, showing, engine, learning
        self.batch, self.grid, self.prior, self.seed = batch, grid, prior, seed
        self.turn = Turn()

    @property
    def device(self) -> torch.device:
        """Where all of it lives."""
        return self.images.pixels.device

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.images.pixels.shape[-1]

    def rows(self, step: int) -> Int[Tensor, " n"]:
        """Which images the step shows."""
        return self.images.rows(self.seed, step, self.batch)

    def decorrupt(
        self, x: Float[Tensor, "n 3 h w"], actions: Sequence[Action], random: torch.Generator
    ) -> list[Float[Tensor, "k n 3 h w"]]:
        """Corrupt each image by its action and decorrupt it k times: g(c(x, a), z₁), ..., g(c(x, a), z_k).

        Args:
            x: Images in [0, 1].
            actions: One action per image, or several to compare.
            random: Draws the codes, on the images' device.

        Returns:
            The decorruptions, for each of the actions.
        """
        return [self.showing.decorrupt(corrupt(x, a), random, a.code) for a in actions]

    def show(
        self, decorrupted: Sequence[Float[Tensor, "k n 3 h w"]], rows: Int[Tensor, " n"], random: torch.Generator
    ) -> list[Float[Tensor, "j n 3 h w"]]:
        """What the learner sees of each: the views that it chooses, or all, augmented."""
        return [self.showing.show(candidates, rows, random) for candidates in decorrupted]

    def act(self, rows: Int[Tensor, " n"], action: Action, step: int) -> tuple[Float[Tensor, " n"], dict[str, Tensor]]:
        """Take one action for each of the chosen images; the learner has its turn on the pairs.

        Args:
            rows: Which images.
            action: Theirs.
            step: Numbers the codes and the reference examples that are drawn.

        Returns:
            One reward per image (NaN for all where none is finite), and the figures of the learner's turn by tag.
        """
        random = generator_at(self.seed, step, "codes", self.device)
        views = self.show(self.decorrupt(self.images.images(rows), [action], random), rows, random)
        r, figures = self.engine.learn(views, rows, step, self.turn)
        if r is None:
            raise ValueError("this world pays nothing: build it with a reward")
        return r[0], figures

    def warm_up(self, steps: int, pays_last: bool = False) -> None:
        """Let the learner take turns on prior corruptions: without a past, its optimizer makes wild rewards.

        Args:
            steps: How many.
            pays_last: Whether the last is paid for, so that a reward which compares with the past has one.
        """
        for step in range(steps):
            random = generator_at(self.seed, step, "warm-up", self.device)
            rows = self.rows(step)
            action = self.prior(len(rows), random)
            views = self.show(self.decorrupt(self.images.images(rows), [action], random), rows, random)
            self.engine.learn(views, rows, step, Turn(rewarded=pays_last and step == steps - 1))

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that a turn changes."""
        return {name: copy.deepcopy(part.state_dict()) for name, part in self.learning.items()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Undo all turns since the snapshot."""
        for name, part in self.learning.items():
            part.load_state_dict(copy.deepcopy(snapshot[name]))
