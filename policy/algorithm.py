"""REINFORCE as an algorithm of Stable-Baselines3: its `learn`, callbacks, logger, `save` and `load`.

The same losses as run_rl.py's loop, for whoever drives the environment the way Stable-Baselines3 does. One forward pass
per step serves for acting and for learning, where A2C makes three; with an environment that speaks torch nothing leaves
the device between two lines of the log.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor, nn

from configs.reward import RewardConfig
from env.actions import to_vector
from env.corruption import Action
from policy.actor import CorruptionActorCriticPolicy, unit
from policy.baseline import Baseline
from policy.estimator import ScoreFunction, build_baseline
from policy.reinforce import ratio_penalty
from policy.scaling import Scaling
from training.descent import Descent
from training.seeding import generator_at

BaselineName = Literal["batch", "ema", "critic", "none"]
REWARD = "rollout/reward"
"""What a batch's mean reward is noted under until the log is written; it becomes `rollout/ep_rew_mean`."""


class SavedScoreFunction(ScoreFunction):
    """REINFORCE's estimate in the form that Stable-Baselines3 can load."""

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Go on from a saved model. `strict` is what modules are told; there is nothing here to be lax about."""
        super().load_state_dict(state)


class Reinforce(OnPolicyAlgorithm):
    """REINFORCE for one-step episodes: each image gets one action, each action one reward.

        loss = -mean(A log π(a | x)) - entropy_weight mean H(π(. | x)) + ratio_weight mean (distance to ratio_range)²

    Actions are drawn from a source that depends only on (seed, update), so a model saved after `learn` and loaded goes
    on as if it had never stopped, if its environment does. An environment with `step_torch` (env.sb3) is stepped on
    the device; any other, or a wrapped one, through Stable-Baselines3's numpy interface.

    Args:
        policy: "CorruptionPolicy", or a class derived from `CorruptionActorCriticPolicy`. Its value network and its
            optimizer are not used: the network is trained by AdamW (training.descent).
        env: One whose observations are images of bytes and whose actions are those of `env.actions.space`.
        learning_rate: Step size, or a function of the share of the training that remains.
        baseline: Subtracted from rewards: the batch's mean, the moving average of past means, a critic's guess from
            the image, or nothing. Where all images share one reward, `batch` leaves no gradient.
        momentum: Decay of the moving averages (baseline, scale of the advantages), in [0, 1).
        entropy_weight: Weight of the entropy bonus (nats per image).
        ratio_range: The expected mask ratio of an image is free inside this range.
        ratio_weight: Weight of the squared distance to it.
        max_grad_norm: Largest norm of a gradient; log-probabilities are sums over many bits, so larger than A2C's.
        stats_window_size: Steps that `rollout/ep_rew_mean` averages.
        tensorboard_log: Folder of the curves; None writes none.
        policy_kwargs: Settings of the policy, for example `{"network_config": PolicyConfig(grid=8)}`.
        verbose: 0: nothing, 1: the log on the screen, 2: more.
        seed: Of the weights, the actions and the environment; None draws one.
        device: Where the policy lives.
        _init_setup_model: False builds the networks later; `load` does.

    Raises:
        ValueError: If the policy is of another kind or has BatchNorm, or there is no such baseline.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CorruptionPolicy": CorruptionActorCriticPolicy}
    policy: CorruptionActorCriticPolicy

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: VecEnv | gymnasium.Env | str | None,
        learning_rate: float | Schedule = 3e-3,
        baseline: BaselineName = "batch",
        momentum: float = 0.9,
        entropy_weight: float = 0.002,
        ratio_range: tuple[float, float] = (0.0, 0.5),
        ratio_weight: float = 20.0,
        max_grad_norm: float = 1.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,  # type: ignore[arg-type]
            learning_rate,
            n_steps=1,
            gamma=0.0,
            gae_lambda=1.0,
            ent_coef=entropy_weight,
            vf_coef=0.0,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            monitor_wrapper=False,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
            supported_action_spaces=(spaces.MultiDiscrete,),
        )
        self.baseline, self.momentum = baseline, momentum
        self.ratio_range, self.ratio_weight = ratio_range, ratio_weight
        self.drawn_seed = int(torch.randint(2**31, ())) if seed is None else seed
        self._noted: dict[str, deque[Tensor]] = {}
        if _init_setup_model:
            self._setup_model()

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer | None,
        n_rollout_steps: int,
    ) -> bool:
        """Take one step in all environments; what was done stays on the device for `train`.

        Callbacks find `new_obs`, `rewards`, `dones` and `infos` among the locals, on the torch path the first two as
        tensors.

        Returns:
            False if a callback wants to end the training.
        """
        callback.on_rollout_start()
        random = generator_at(self.drawn_seed, self._n_updates, "actions", self.device)
        x = unit(torch.as_tensor(self._last_obs, device=self.device))
        pi = self.estimator.look(x, random)
        a = self.estimator.draw(pi, random)
        new_obs, rewards, dones, infos = self._step(env, a[0])
        self._note({REWARD: rewards.mean()})
        self.num_timesteps += env.num_envs
        callback.update_locals(locals())
        if not callback.on_step():
            return False
        self._turn = x, pi, a, rewards
        self._last_obs, self._last_episode_starts = new_obs, dones
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Take one gradient step on what the last rewards say; a gradient that is not finite is skipped and counted."""
        x, pi, a, rewards = self._turn
        # Which images they are, nobody says here, and none of the baselines asks.
        rows = torch.arange(len(x), device=self.device)
        loss, figures = self.estimator.loss(pi, a, rewards[None], x, rows)
        entropy = pi.entropy().mean()
        guard = ratio_penalty(pi.mask_ratio(), *self.ratio_range).mean()
        learning_rate = self.lr_schedule(self._current_progress_remaining)
        norm = self.descent.step(loss - self.ent_coef * entropy + self.ratio_weight * guard, learning_rate)
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/learning_rate", learning_rate)
        self._note(
            {
                "train/policy_gradient_loss": loss,
                "train/entropy_loss": -entropy,
                "train/grad_norm": norm,
                "train/advantage_std": figures["reward/advantage_std"],
                "train/skipped": self.descent.skipped,
            }
        )

    def dump_logs(self, iteration: int = 0) -> None:
        """Fetch what was noted since the last time, in one transfer, and write the log: means over the steps."""
        noted, self._noted = self._noted, {}
        rewards = list(noted.pop(REWARD, ()))
        means = [torch.stack(tuple(values)).mean() for values in noted.values()]
        numbers = torch.stack([*rewards, *means]).tolist() if rewards or means else []
        assert self.ep_info_buffer is not None
        # One entry per step; with one per environment, the window would hold only the end of the last step.
        self.ep_info_buffer.extend({"r": reward, "l": 1} for reward in numbers[: len(rewards)])
        for tag, mean in zip(noted, numbers[len(rewards) :], strict=True):
            self.logger.record(tag, mean)
        super().dump_logs(iteration)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 10,
        tb_log_name: str = "Reinforce",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> "Reinforce":
        """Train, as every algorithm of Stable-Baselines3 does.

        Args:
            total_timesteps: Images to act on; the step that reaches it is finished.
            callback: Called at every step.
            log_interval: Steps between two lines of the log; the host waits for the device there and nowhere else. None
                writes none.
            tb_log_name: Folder of the curves below `tensorboard_log`.
            reset_num_timesteps: False goes on counting, and takes `total_timesteps` as so many more.
            progress_bar: Whether to show one.

        Returns:
            Itself.

        Raises:
            ValueError: If there is only one environment.
        """
        if self.n_envs < 2:
            raise ValueError("rewards are compared within a batch: REINFORCE needs more than one environment")
        return super().learn(
            total_timesteps,
            callback,
            log_interval,  # type: ignore[arg-type]  # None is understood, though not announced
            tb_log_name,
            reset_num_timesteps,
            progress_bar,
        )

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed as Stable-Baselines3 does, but leave cuDNN's settings: they are the learner's in this process, too."""
        cudnn = torch.backends.cudnn
        before = cudnn.deterministic, cudnn.benchmark
        super().set_random_seed(seed)
        cudnn.deterministic, cudnn.benchmark = before

    def _setup_model(self) -> None:
        """Make policy, optimizer and moving averages. There is no rollout buffer: nothing is looked at twice."""
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        if not issubclass(self.policy_class, CorruptionActorCriticPolicy):
            raise ValueError(f"the policy must be a CorruptionActorCriticPolicy, got {self.policy_class.__name__}")
        self.rollout_buffer = None  # type: ignore[assignment]
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)
        if any(isinstance(module, nn.modules.batchnorm._NormBase) for module in self.policy.modules()):
            raise ValueError(
                "the policy has BatchNorm: what it thinks of an image would depend on the other images of the batch, "
                "and an action would be scored by another distribution than it was drawn from. Use GroupNorm"
            )
        # A learning rate of 1: the schedule's value is the share of it.
        self.descent = Descent(self.policy.network, 1.0, clip=self.max_grad_norm)
        self.policy.optimizer = self.descent.optimizer
        self.estimator = SavedScoreFunction(
            self.policy.network, self._build_baseline(), Scaling("rms", self.momentum, self.device)
        )

    def _build_baseline(self) -> Baseline:
        """What rewards are compared with, as run_rl.py builds it."""
        if self.baseline not in get_args(BaselineName):
            raise ValueError(f"baseline must be one of {', '.join(get_args(BaselineName))}, got {self.baseline!r}")
        return build_baseline(
            RewardConfig(baseline=self.baseline, momentum=self.momentum),
            width=self.policy.network.config.width,
            images=0,
            image_size=self.policy.image_size,
            device=self.device,
            seed=self.drawn_seed,
        )

    def _step(self, env: VecEnv, action: Action) -> tuple[Any, Float[Tensor, " n"], np.ndarray, list[dict[str, Any]]]:
        """Step the environments: next observations, rewards on the device, dones, infos."""
        # A wrapper lends out the methods of what it wraps; stepping past it would leave it unaware.
        if hasattr(env, "step_torch") and not isinstance(env, VecEnvWrapper):
            new_obs, rewards, figures = env.step_torch(action)
            self._note(figures)
            return new_obs, rewards, np.ones(env.num_envs, dtype=bool), [{} for _ in range(env.num_envs)]
        new_obs, paid, dones, infos = env.step(to_vector(action).cpu().numpy())
        return new_obs, torch.as_tensor(paid, device=self.device), dones, infos

    def _note(self, figures: Mapping[str, Tensor]) -> None:
        """Keep scalars where they are until the log is written; of each the last `stats_window_size`."""
        for tag, value in figures.items():
            # Copied, since the environment may go on to change a running average in place.
            copy = value.detach().to(torch.float32, copy=True)
            self._noted.setdefault(tag, deque(maxlen=self._stats_window_size)).append(copy)

    def _excluded_save_params(self) -> list[str]:
        """What a saved model leaves out: images, whatever lives on the device, and what is rebuilt."""
        here = ["_last_obs", "_last_original_obs", "_last_episode_starts", "_turn", "_noted", "descent"]
        return [*super()._excluded_save_params(), *here]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        """What a saved model keeps as tensors."""
        return ["policy", "policy.optimizer", "estimator"], []
