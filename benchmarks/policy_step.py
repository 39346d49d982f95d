"""What does a policy step cost? Our REINFORCE and Stable-Baselines3's A2C and PPO against a step in bare torch.

All train one `PolicyNetwork` on one batch of images; the environment pays at once, so that what is measured is the
policy's side alone. Bare is what nobody can do without: bytes to floats, one forward pass, a draw, log-probabilities
and entropy, one backward pass, clipping, AdamW. A2C runs the network twice and a critic three times; PPO runs both once
more for each further epoch, so several epochs are more learning as well as more time. The four are timed in turns, by
processor time, which what else runs on the machine disturbs less than a clock; medians are reported, and the medians of
the turns' ratios.

    python benchmarks/policy_step.py
    python benchmarks/policy_step.py --envs 256 --size 32 --repeats 9

The last line is one JSON object; `reinforce_256_to_bare_ratio` is our step to the bare one with 256 environments, and
should be at most 1.15.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gymnasium
import numpy as np
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn
from torch import Tensor

from configs.policy import PolicyConfig
from env.actions import from_vector, observation_space, space
from env.corruption import Action
from policy.actor import CorruptionActorCriticPolicy
from policy.algorithm import Reinforce
from policy.network import PolicyNetwork
from policy.reinforce import advantage, reinforce_loss
from training.descent import Descent

ENTROPY_WEIGHT, CLIP = 0.002, 1.0
"""Of all four."""


class Bandit(VecEnv):
    """Pays at once for a planted corruption: the left half hidden, color deleted.

    Args:
        n: Environments.
        size: Side of the images in pixels; the images are noise, and stay the same.
        grid: Cells a side of the mask.
    """

    def __init__(self, n: int, size: int, grid: int) -> None:
        self.grid, self.render_mode = grid, None
        self.pixels = torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(0)).byte()
        self.target = (torch.arange(grid) < grid / 2).expand(grid, grid)
        super().__init__(n, observation_space(size), space(grid))

    def pay(self, action: Action) -> Tensor:
        """Share of the mask's bits that are right, and one more for gray."""
        return (action.mask == self.target).float().mean(dim=(1, 2)) + action.decolorize

    def reset(self) -> np.ndarray:
        """The images."""
        return self.pixels.numpy()

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions."""
        self.paid = self.pay(from_vector(torch.from_numpy(actions), self.grid)).numpy()

    def step_wait(self) -> VecEnvStepReturn:
        """Pay, and show the same images again."""
        return self.pixels.numpy(), self.paid, np.ones(self.num_envs, dtype=bool), [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, once for each environment."""
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set it for all."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call it once."""
        return [getattr(self, method_name)(*args, **kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Nothing is."""
        return [False] * self.num_envs


class TorchBandit(Bandit):
    """The same without numpy, as `env.sb3.CorruptionSB3VecEnv` offers it."""

    def reset_torch(self) -> Tensor:
        """The images."""
        return self.pixels

    def step_torch(self, action: Action) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The same images, rewards, and a figure to log."""
        rewards = self.pay(action)
        return self.pixels, rewards, {"learner/loss": -rewards.mean()}


def bare(bandit: Bandit, config: PolicyConfig) -> Callable[[int], None]:
    """REINFORCE and nothing else."""
    torch.manual_seed(0)
    network = PolicyNetwork(config, bandit.pixels.shape[-1])
    descent = Descent(network, config.learning_rate, clip=CLIP)
    random = torch.Generator().manual_seed(0)

    def steps(count: int) -> None:
        for _ in range(count):
            pi = network(bandit.pixels.float() / 255)
            action = pi.sample(random)
            r = bandit.pay(action)
            A = advantage(r, r.mean())
            descent.step(reinforce_loss(pi.log_prob(action), A) - ENTROPY_WEIGHT * pi.entropy().mean())

    return steps


def learning(model: OnPolicyAlgorithm) -> Callable[[int], None]:
    """`learn` of an algorithm, with a line of the log at the end."""

    def steps(count: int) -> None:
        model.learn(count * model.n_envs, log_interval=count, reset_num_timesteps=False)

    return steps


def contestants(n: int, size: int, config: PolicyConfig, epochs: int) -> dict[str, Callable[[int], None]]:
    """What is timed, by name."""
    policy, settings = CorruptionActorCriticPolicy, {"network_config": config}
    common: dict[str, Any] = {"policy_kwargs": settings, "learning_rate": config.learning_rate, "seed": 0}
    stock = common | {"device": "cpu", "n_steps": 1, "gamma": 0.0, "ent_coef": ENTROPY_WEIGHT, "max_grad_norm": CLIP}
    numpy = Bandit(n, size, config.grid)
    return {
        "bare": bare(numpy, config),
        "reinforce": learning(
            Reinforce(policy, TorchBandit(n, size, config.grid), entropy_weight=ENTROPY_WEIGHT, device="cpu", **common)
        ),
        "a2c": learning(A2C(policy, numpy, **stock)),
        "ppo": learning(PPO(policy, numpy, n_epochs=epochs, batch_size=n, **stock)),
    }


def timed(runs: dict[str, Callable[[int], None]], steps: int, repeats: int) -> dict[str, list[float]]:
    """Processor time of a step in milliseconds, one for each turn; each has had one turn before."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run(steps)
            if turn:
                times[name].append(1000 * (time.process_time() - start) / steps)
    return times


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, nargs="+", default=[256, 1024], help="environments, one row each")
    parser.add_argument("--size", type=int, default=16, help="side of the images in pixels")
    parser.add_argument("--grid", type=int, default=4, help="cells a side of the mask")
    parser.add_argument("--width", type=int, default=16, help="channels of the network's first stage")
    parser.add_argument("--epochs", type=int, default=4, help="PPO's passes over a batch, each one minibatch")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn; a line of the log ends it")
    parser.add_argument("--repeats", type=int, default=5, help="turns; medians are reported")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and one JSON line."""
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    config = PolicyConfig(grid=options.grid, width=options.width)
    result: dict[str, Any] = {}
    names = ["bare", "reinforce", "a2c", "ppo"]
    print(f"Processor time of a step (ms), and its ratio to bare torch. PPO: {options.epochs} epochs.\n")
    print("| environments | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for n in options.envs:
        times = timed(contestants(n, options.size, config, options.epochs), options.steps, options.repeats)
        row = []
        for name in names:
            ratio = statistics.median(t / b for t, b in zip(times[name], times["bare"], strict=True))
            result[f"{name}_{n}_ms"] = statistics.median(times[name])
            result[f"{name}_{n}_to_bare_ratio"] = ratio
            row.append(f"{result[f'{name}_{n}_ms']:.1f} ({ratio:.2f})")
        print(f"| {n} | " + " | ".join(row) + " |", flush=True)
    settings = {name: getattr(options, name) for name in ("size", "grid", "width", "epochs", "threads")}
    print(json.dumps({**result, **settings, "device": "cpu"}))


if __name__ == "__main__":
    main()
