"""One image at a time, in numpy: the face of the environment for `gymnasium.make`."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.error import InvalidAction, ResetNeeded
from jaxtyping import Int, UInt8

from env.actions import decoded, from_vector, observation_space, space
from env.corruption import Action, corrupt
from env.rows import Rows
from env.world import World
from training.seeding import generator_at


class CorruptionEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Shows an image, takes its corruption, and pays what the learner got from the pair. An episode is one step.

    A contrastive loss of one pair is undefined: each image has companions, other images that make up a batch of the
    world with it. They are corrupted by the world's prior and serve as its negatives. The image is paid only its
    own reward.

    Images, companions, their corruptions, the codes and the reference examples are drawn by `np_random` as of `reset`.
    So with a frozen learner equal seeds and actions give equal rewards; with one that goes on learning they do not.

    Args:
        world: What is inside.
        frozen_learner: After every step, put the learner back to what it was when the environment was made.
        render_mode: rgb_array, or None to render nothing.
    """

    def __init__(self, world: World, *, frozen_learner: bool = True, render_mode: str | None = None) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 1}
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be rgb_array or None, got {render_mode!r}")
        self.world, self.render_mode = world, render_mode
        self.observation_space = observation_space(world.image_size)
        self.action_space = space(world.grid)
        self._start = world.snapshot() if frozen_learner else None
        self._rows: torch.Tensor | None = None  # the image's, then its companions'
        self._action: Action | None = None  # what was done to the image; None until then

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Show another image.

        Args:
            seed: Restarts the sequence of images, and of all that is drawn with them.
            options: None are known.

        Returns:
            The image, and where it lies in the set ("index").
        """
        super().reset(seed=seed)
        rows = self.np_random.choice(len(self.world.images), size=self.world.batch, replace=False)
        self._rows = torch.as_tensor(rows, device=self.world.device)
        self._number = int(self.np_random.integers(2**31))
        self._action = None
        return self._pixels(), self._info()

    def step(self, action: Int[np.ndarray, " d"]) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Corrupt the image; the learner has its turn; the episode ends.

        Args:
            action: An element of the action space (env/actions.py says what its numbers mean).

        Returns:
            The image again, its reward, terminated (True), truncated (False), and what was done: where the image lies
            in the set, what the action deletes (`env.actions.decoded`), and the figures of the learner's turn.

        Raises:
            ResetNeeded: If the episode is over, or none has begun.
            InvalidAction: If the action is none of the space.
        """
        if self._rows is None or self._action is not None:
            raise ResetNeeded("an episode is one step: call reset() before each step()")
        if action not in self.action_space:
            raise InvalidAction(f"{action} is no element of {self.action_space}")
        world, grid = self.world, self.world.grid
        self._action = from_vector(torch.as_tensor(action, device=world.device)[None], grid)
        random = generator_at(world.seed, self._number, "companions", world.device)
        companions = world.prior(world.batch - 1, random)
        rewards, figures = world.act(self._rows, Rows.joined([self._action, companions]), self._number)
        if self._start is not None:
            world.restore(self._start)
        info = self._info() | decoded(action, grid) | {tag: float(value.detach()) for tag, value in figures.items()}
        return self._pixels(), float(rewards[0]), True, False, info

    def render(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """Image, mask (white = hidden) and corrupted image (black where hidden) side by side.

        Until the image is corrupted, the mask hides nothing.

        Raises:
            ResetNeeded: If there is no image yet.
        """
        if self.render_mode is None:
            gymnasium.logger.warn('nothing is rendered: make the environment with render_mode="rgb_array"')
            return None
        if self._rows is None:
            raise ResetNeeded("there is no image to render: call reset() first")
        x = self.world.images.images(self._rows[:1])
        nothing = torch.zeros(1, self.world.grid**2 + 2, dtype=torch.long, device=x.device)
        corrupted = corrupt(x, self._action or from_vector(nothing, self.world.grid))
        picture = torch.cat([x, corrupted.hidden.expand_as(x), corrupted.kept], dim=3)[0]
        return (picture * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()

    def _pixels(self) -> UInt8[np.ndarray, "3 h w"]:
        """The image, in memory of its own at each call."""
        assert self._rows is not None
        return self.world.images.pixels[self._rows[0]].clone().cpu().numpy()

    def _info(self) -> dict[str, Any]:
        assert self._rows is not None
        return {"index": int(self._rows[0])}
