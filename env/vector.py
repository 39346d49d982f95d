"""A batch of images at a time, in torch on the device: the face of the environment for `gymnasium.make_vec`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from env.actions import from_vector, observation_space, space
from env.corruption import Action
from env.world import World


class CorruptionVectorEnv(VectorEnv[Any, Any, Any]):
    """Shows the world's batch, takes one corruption per image, and pays each image its reward.

    Every episode is one step, so every step shows the next images: AutoresetMode.SAME_STEP. (Under the usual NEXT_STEP,
    every second step would be a mere reset, with no reward.) The images of step t are a function of the seed and t.
    Codes and reference examples are too, of the world's own seed and t.

    In torch mode no step waits for the device.

    Args:
        world: What is inside.
        array: What observations and rewards are: torch (tensors on the world's device), or numpy. Actions may be
            either.
        frozen_learner: After every step, put the learner back to what it was when the environment was made.

    Attributes:
        next_step: Number of the step that comes next. To go on with an interrupted sequence, set it before `reset`.
    """

    def __init__(self, world: World, *, array: str = "torch", frozen_learner: bool = False) -> None:
        if array not in ("torch", "numpy"):
            raise ValueError(f"array must be torch or numpy, got {array!r}")
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.world, self.array = world, array
        self.num_envs = world.batch
        self.single_observation_space = observation_space(world.image_size)
        self.single_action_space = space(world.grid)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.next_step = 0
        self._seed = world.seed
        self._start = world.snapshot() if frozen_learner else None
        self._rows: Tensor | None = None

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Show the images of the next step; images that nobody has corrupted yet are shown again.

        Args:
            seed: Chooses the sequence of batches and starts it at step 0; None goes on with the present one, which is
                the world's at first. Of a list (other environments take one seed per image) the first counts: the
                images of a batch are drawn together.
            options: None are known.

        Returns:
            The images, and where they lie in the set ("index").
        """
        if seed is not None:
            self.start(seed[0] if isinstance(seed, Sequence) else seed)
        self._rows = self._next_rows()
        return self._given(self.pixels()), self._info()

    def step(self, actions: Int[Tensor, "n d"] | Int[np.ndarray, "n d"]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Corrupt the images shown; the learner has its turn; the next images are shown.

        Args:
            actions: One row per image (env/actions.py says what its numbers mean).

        Returns:
            The next images, the rewards of those before, terminated (all True), truncated (all False), and infos:
            where the next images lie in the set ("index"), the images that the rewards belong to ("final_obs",
            "_final_obs": those that have one, all), and the figures of the learner's turn ("figures", by tag: 0-d
            tensors; in numpy mode once for each image, with "_" before the name for those that have one, all, as
            Gymnasium's wrappers expect it).

        Raises:
            ResetNeeded: If nothing has been shown yet.
            ValueError: If the rows are of another length than the action space's.
        """
        final = self.pixels()
        rewards, figures = self.act(from_vector(torch.as_tensor(actions, device=self.world.device), self.world.grid))
        over = torch.ones(self.num_envs, dtype=torch.bool, device=self.world.device)
        infos = self._info() | {
            "final_obs": final if self.array == "torch" else _one_by_one(final.cpu().numpy()),
            "_final_obs": self._given(over.clone()),
            "figures": figures if self.array == "torch" else self._of_each({t: float(v) for t, v in figures.items()}),
        }
        given = (self._given(part) for part in (self.pixels(), rewards, over, ~over))
        return (*given, infos)

    def start(self, seed: int) -> None:
        """Choose another sequence of batches; the next `reset` shows its first."""
        super().reset(seed=seed)  # of the random numbers that wrappers may ask for
        self._seed, self.next_step = seed, 0

    def act(self, action: Action) -> tuple[Float[Tensor, " n"], dict[str, Tensor]]:
        """Take one action for each image shown, and show the next ones (`pixels`).

        Returns:
            The rewards, and the figures of the learner's turn by tag.
        """
        rewards, figures = self.world.act(self._shown(), action, self.next_step)
        if self._start is not None:
            self.world.restore(self._start)
        self.next_step += 1
        self._rows = self._next_rows()
        return rewards, {tag: value.detach() for tag, value in figures.items()}

    def pixels(self) -> UInt8[Tensor, "n 3 h w"]:
        """The images shown, in memory of their own at each call."""
        return self.world.images.pixels[self._shown()]

    def _next_rows(self) -> Int[Tensor, " n"]:
        return self.world.images.rows(self._seed, self.next_step, self.num_envs)

    def _shown(self) -> Int[Tensor, " n"]:
        if self._rows is None:
            raise ResetNeeded("no images have been shown: call reset() before the first step()")
        return self._rows

    def _info(self) -> dict[str, Any]:
        index = self._given(self._shown().clone())
        return {"index": index} if self.array == "torch" else {"index": index, "_index": self._all()}

    def _of_each(self, figures: dict[str, float]) -> dict[str, np.ndarray]:
        """Figures of the batch as those of each image, with masks of those that have one."""
        values = {tag: np.full(self.num_envs, value) for tag, value in figures.items()}
        return values | {f"_{tag}": self._all() for tag in figures}

    def _all(self) -> np.ndarray:
        """The mask of Gymnasium's infos: every image has one."""
        return np.ones(self.num_envs, dtype=bool)

    def _given(self, part: Tensor) -> Any:
        """What the agent gets to see of it."""
        return part if self.array == "torch" else part.cpu().numpy()


def _one_by_one(images: UInt8[np.ndarray, "n 3 h w"]) -> np.ndarray:
    """An array of n arrays, the form in which Gymnasium's own vector environments and wrappers keep final images."""
    boxes = np.empty(len(images), dtype=object)
    for row, image in enumerate(images):
        boxes[row] = image
    return boxes
