"""The policy network as Stable-Baselines3 sees one: actions as vectors of whole numbers, a value beside them.

With it, unmodified A2C and PPO train the same `PolicyNetwork` that run_rl.py trains and exports.
"""

import math
from typing import Any, cast

import torch
from gymnasium import spaces
from jaxtyping import Float, Int
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from configs.policy import PolicyConfig
from env import actions as vectors
from env.distribution import CorruptionDistribution
from policy.critic import Critic
from policy.network import PolicyNetwork


class CorruptionBits(Distribution):
    """A `CorruptionDistribution` whose actions are the vectors of `env.actions`.

    Stable-Baselines3's own distribution for them is made of one category per bit: sampling and scoring 64 cells takes
    ten times as long.

    Args:
        grid: Cells a side.

    Attributes:
        distribution: What it stands for; `proba_distribution` sets it.
    """

    distribution: CorruptionDistribution  # type: ignore[assignment]

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def proba_distribution_net(self) -> nn.Module:
        """No layer: the network ends in the distribution."""
        return nn.Identity()

    def proba_distribution(self, pi: CorruptionDistribution) -> "CorruptionBits":
        """Stand for this one."""
        self.distribution = pi
        return self

    def log_prob(self, actions: Tensor) -> Float[Tensor, " n"]:
        """Log-probability of each whole action in nats, the sum over its bits and its factor; differentiable.

        Args:
            actions: Shape (n, d), of any type that holds the whole numbers: rollout buffers keep floats.
        """
        return self.distribution.log_prob(vectors.from_vector(actions.long(), self.grid))

    def entropy(self) -> Float[Tensor, " n"]:
        """Entropy of each action in nats; differentiable."""
        return self.distribution.entropy()

    def sample(self) -> Int[Tensor, "n d"]:
        """Draw one action per image from torch's global random numbers, as all of Stable-Baselines3 does."""
        return vectors.to_vector(self.distribution.sample(global_generator(self.distribution.decolorize_logits.device)))

    def mode(self) -> Int[Tensor, "n d"]:
        """The most probable action of each image; a bit of probability 1/2 deletes nothing."""
        return vectors.to_vector(self.distribution.mode())

    def actions_from_params(self, pi: CorruptionDistribution, deterministic: bool = False) -> Int[Tensor, "n d"]:
        """The mode or a sample of the given distribution."""
        return self.proba_distribution(pi).get_actions(deterministic)

    def log_prob_from_params(self, pi: CorruptionDistribution) -> tuple[Int[Tensor, "n d"], Float[Tensor, " n"]]:
        """A sample of the given distribution, and its log-probability."""
        actions = self.actions_from_params(pi)
        return actions, self.log_prob(actions)


class CorruptionActorCriticPolicy(ActorCriticPolicy):
    """`PolicyNetwork` with a value network beside it that shares nothing with it.

    Features extractors, network architectures and orthogonal weights of the base class are not used: the network is
    what `network_config` says, as run_rl.py builds it.

    Args:
        observation_space: Box of bytes, shape (3, h, h).
        action_space: `env.actions.space(grid)`.
        lr_schedule: Step size by the share of the training that remains.
        network_config: Of the network; its grid is that of the actions. None: the default, with the actions' grid.
        use_sde: Always False; Stable-Baselines3's algorithms pass it.
        optimizer_class: Trains both networks; `policy.algorithm.Reinforce` brings its own.
        optimizer_kwargs: Its settings beside the step size.

    Attributes:
        network: The `PolicyNetwork`; its state is what `policy.export` writes.
        value_net: The expected reward of an image, from the image.

    Raises:
        ValueError: If observations or actions are of another form, or the network's masks are not made of cells.
    """

    network: PolicyNetwork

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        network_config: PolicyConfig | None = None,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.image_size = _image_size(observation_space)
        self.network_config = network_config or PolicyConfig(grid=_grid(action_space))
        if self.network_config.grid != _grid(action_space):
            raise ValueError(
                f"the network's grid is {self.network_config.grid}, that of the actions is {_grid(action_space)}"
            )
        if (self.network_config.name, self.network_config.mask) != ("learned", "cells"):
            raise ValueError(
                "the actions are one bit per cell: they need the policy learned with masks of cells, got "
                f"{self.network_config.name} with {self.network_config.mask}"
            )
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            use_sde=use_sde,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Act on images: actions (n, d), values (n, 1), log-probabilities (n)."""
        distribution, values = self._look(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Score actions: values (n, 1), log-probabilities (n), entropies (n)."""
        distribution, values = self._look(obs)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Tensor) -> CorruptionBits:  # type: ignore[override]
        """π(a | x), as Stable-Baselines3 asks for it."""
        return CorruptionBits(self.network_config.grid).proba_distribution(self.network(unit(obs)))

    def predict_values(self, obs: Tensor) -> Float[Tensor, "n 1"]:  # type: ignore[override]
        """Expected reward of each image."""
        return self.value_net(unit(obs))[:, None]

    def _look(self, obs: Tensor) -> tuple[CorruptionBits, Float[Tensor, "n 1"]]:
        """Distribution and value of each image."""
        x = unit(obs)
        return CorruptionBits(self.network_config.grid).proba_distribution(self.network(x)), self.value_net(x)[:, None]

    def _build(self, lr_schedule: Schedule) -> None:
        """Make both networks and their optimizer; the base class calls it."""
        self.action_dist = CorruptionBits(self.network_config.grid)
        self.network = PolicyNetwork(self.network_config, self.image_size)
        self.value_net = Critic(self.network_config.width, self.image_size)  # type: ignore[assignment]
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """What `load` builds an equal policy from."""
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # the optimizer's state brings its step size along
            "network_config": self.network_config,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


def global_generator(device: torch.device) -> torch.Generator:
    """Torch's own random numbers on a device, those that Stable-Baselines3 seeds and draws from."""
    if device.type == "cuda":
        return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    return torch.default_generator


def unit(obs: Tensor) -> Float[Tensor, "n 3 h w"]:
    """Observed bytes to what the network takes, images in [0, 1]; the same division as in `ImageSet.images`."""
    return obs.float() / 255


def _image_size(space: spaces.Space) -> int:
    """Side of the observed images."""
    size = (space.shape or (0,))[-1]
    if space != vectors.observation_space(size):
        raise ValueError(f"observations must be square images of bytes, Box(0, 255, (3, h, h), uint8), got {space}")
    return size


def _grid(space: spaces.Space) -> int:
    """Cells a side of the masks in the actions."""
    length = cast(tuple[int], space.shape)[0] if isinstance(space, spaces.MultiDiscrete) else 0
    grid = math.isqrt(max(length - 2, 0))
    if not grid or space != vectors.space(grid):
        raise ValueError(f"actions must be those of env.actions.space(grid), got {space}")
    return grid
