"""Stable-Baselines3's A2C and PPO, unmodified, taking turns with the learner in run_rl.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from configs.policy import PolicyConfig
from env.sb3 import CorruptionSB3VecEnv
from policy.actor import CorruptionActorCriticPolicy
from policy.network import PolicyNetwork
from training.seeding import seeded

EPOCHS = 4
"""Passes of PPO over each batch: they are nearly free beside the decorruption of the batch."""


class StableAlgorithm:
    """One of Stable-Baselines3's algorithms, stepped from outside: one batch of images, one update, a turn.

    A run that goes on draws what an uncut one draws: before each turn, the global random numbers that the algorithm
    uses are seeded by (seed, step).

    Args:
        kind: Which.
        env: The environment it steps.
        config: The policy's; step size and gradient clipping are taken over.
        seed: The run's.
        device: Where the policy lives.

    Attributes:
        network: The policy that it trains.
    """

    def __init__(
        self,
        kind: Literal["a2c", "ppo"],
        env: CorruptionSB3VecEnv,
        config: PolicyConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        self.env, self.seed, self.learning_rate = env, seed, config.learning_rate
        shared: dict[str, Any] = {
            "policy": CorruptionActorCriticPolicy,
            "env": env,
            "n_steps": 1,
            "gamma": 0.0,
            "gae_lambda": 1.0,
            "max_grad_norm": config.clip_norm,
            "stats_window_size": env.num_envs,
            "policy_kwargs": {"network_config": config},
            "device": device,
        }
        self.algorithm: OnPolicyAlgorithm
        if kind == "a2c":
            self.algorithm = A2C(**shared, normalize_advantage=True, use_rms_prop=False)
        else:
            self.algorithm = PPO(**shared, n_epochs=EPOCHS, batch_size=env.num_envs)
        self.algorithm.set_logger(Logger(folder=None, output_formats=[]))  # `configure` would make a folder

    @property
    def network(self) -> PolicyNetwork:
        """The policy that is trained, and exported."""
        return self.algorithm.policy.network  # type: ignore[return-value]

    def turn(self, step: int, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the algorithm act on the step's images (the learner has its turn inside) and update the policy once.

        Where no reward is a number there is nothing to learn from: the update is left out.

        Args:
            step: The step.
            share: Step size as a share of the learning rate.

        Returns:
            The rewards (n; NaN where there were none) and the figures of the learner's turn by tag, all on the device.
        """
        self.env.next_step = step
        self.algorithm.lr_schedule = lambda _: share * self.learning_rate
        self.algorithm._last_obs = None  # show the images of this step, also in a run that goes on
        with seeded(self.seed, "algorithm", step), _numpy_seeded():
            self.algorithm.learn(
                self.env.num_envs,
                callback=lambda *_: self.env.paid,  # False ends it before the update
                log_interval=None,  # type: ignore[arg-type]
                reset_num_timesteps=False,
            )
        if not self.env.paid:
            return torch.full((self.env.num_envs,), torch.nan, device=self.algorithm.device), self.env.figures
        rewards = torch.as_tensor(self.algorithm.rollout_buffer.rewards, device=self.algorithm.device)
        return rewards.flatten(), self.env.figures

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: policy, value network, optimizer."""
        policy = self.algorithm.policy
        return {"policy": policy.state_dict(), "optimizer": policy.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.algorithm.policy.load_state_dict(state["policy"])
        self.algorithm.policy.optimizer.load_state_dict(state["optimizer"])


@contextmanager
def _numpy_seeded() -> Iterator[None]:
    """Seed numpy's global random numbers as torch's are, inside the scope: rollout buffers shuffle with them."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(torch.initial_seed() % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
