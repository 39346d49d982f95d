"""A batch of images at a time, for Stable-Baselines3: numpy for its own algorithms, torch for those that know how."""

import time
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Float, UInt8
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn
from torch import Tensor

from env.actions import from_vector
from env.corruption import Action
from env.vector import CorruptionVectorEnv
from env.world import World


class CorruptionSB3VecEnv(VecEnv):
    """The vector environment as Stable-Baselines3 needs it; every step ends every episode.

    Each info carries its episode's reward and length, as a Monitor would write them, so that rollout/ep_rew_mean
    appears without one. That curve averages over the last `stats_window_size` images: give the algorithm the batch size
    there, or 100 of them speak for all.

    An algorithm that knows this class can stay on the device: `reset_torch` and `step_torch` stand in place of `reset`
    and `step` and wait for nothing. After a change from one pair to the other, reset.

    Args:
        world: What is inside.
        frozen_learner: After every step, put the learner back to what it was when the environment was made.

    Attributes:
        figures: Of the learner's last turn, by tag; 0-d tensors on the device.
        paid: Whether the rewards of the last `step` were numbers; where none was, 0 stands for them, and an algorithm
            should learn nothing from it.
    """

    def __init__(self, world: World, *, frozen_learner: bool = False) -> None:
        self.inner = CorruptionVectorEnv(world, frozen_learner=frozen_learner)
        self.render_mode = None
        self.figures: dict[str, Tensor] = {}
        self.paid = True
        self._begun = time.monotonic()
        super().__init__(world.batch, self.inner.single_observation_space, self.inner.single_action_space)

    @property
    def next_step(self) -> int:
        """Number of the step that comes next. To go on with an interrupted run, set it before `reset`.

        An algorithm with a seed of its own calls `seed` when it is made or loaded, so set it after that.
        """
        return self.inner.next_step

    @next_step.setter
    def next_step(self, step: int) -> None:
        self.inner.next_step = step

    def reset_torch(self) -> UInt8[Tensor, "n 3 h w"]:
        """Show the images of the next step."""
        return self.inner.reset()[0]

    def step_torch(self, action: Action) -> tuple[UInt8[Tensor, "n 3 h w"], Float[Tensor, " n"], dict[str, Tensor]]:
        """Corrupt the images shown; the learner has its turn; the next images are shown.

        Returns:
            The next images, the rewards of those before, and the figures of the learner's turn by tag.
        """
        rewards, self.figures = self.inner.act(action)
        return self.inner.pixels(), rewards, self.figures

    def reset(self) -> UInt8[np.ndarray, "n 3 h w"]:
        """`reset_torch` in numpy."""
        self._shown = self.reset_torch().cpu().numpy()
        return self._shown

    def step_async(self, actions: np.ndarray) -> None:
        """Hand over the actions."""
        device = self.inner.world.device
        self._pending = from_vector(torch.as_tensor(actions, device=device), self.inner.world.grid)

    def step_wait(self) -> VecEnvStepReturn:
        """`step_torch` in numpy: the next images, rewards, dones (all True), and one info per image."""
        pixels, reward, _ = self.step_torch(self._pending)
        # One copy from the device; the images make the other. A NaN would stay in the weights of its algorithms.
        rewards = reward.cpu().numpy()
        self.paid = bool(np.isfinite(rewards).all())
        rewards = np.nan_to_num(rewards)
        final, self._shown = self._shown, pixels.cpu().numpy()
        seconds = round(time.monotonic() - self._begun, 6)
        infos: list[dict[str, Any]] = [
            {
                "terminal_observation": image,  # a view
                "TimeLimit.truncated": False,
                "episode": {"r": r, "l": 1, "t": seconds},
            }
            for image, r in zip(final, rewards.tolist(), strict=True)
        ]
        return self._shown, rewards, np.ones(self.num_envs, dtype=bool), infos

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Choose the sequence of batches and start it at step 0, from the next reset on.

        Args:
            seed: As in `CorruptionVectorEnv.reset`; None draws one from numpy's global random numbers, as
                Stable-Baselines3 does.

        Returns:
            One number per image, as Stable-Baselines3 counts them. The first is the seed of the whole batch.
        """
        seeds = list(super().seed(seed))
        self._reset_seeds()  # they are in force, none is left for later
        assert seeds[0] is not None
        self.inner.start(seeds[0])
        return seeds

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, once for each of the chosen images: they share one environment."""
        return [getattr(self, attr_name)] * self._count(indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute of the one environment.

        Raises:
            ValueError: If it should be set for some of the images only.
        """
        if self._count(indices) != self.num_envs:
            raise ValueError(f"all {self.num_envs} images share one environment: set {attr_name} for all of them")
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call the method of the one environment once; its answer, once for each of the chosen images."""
        return [getattr(self, method_name)(*method_args, **method_kwargs)] * self._count(indices)

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for Monitor, whose episode figures this class writes itself; no other wrapper is inside."""
        return [wrapper_class is Monitor] * self._count(indices)

    def _count(self, indices: VecEnvIndices) -> int:
        return len(list(self._get_indices(indices)))
