"""Evolution strategies: the gradient from rewards under perturbed weights; nothing is differentiated through."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from configs.errors import UsageError
from env.corruption import Action
from env.distribution import CorruptionDistribution
from policy.scaling import Scaling

Parameters = dict[str, Tensor]
"""Those of a module by name, or a stack of such: one row per perturbation."""


@dataclass(frozen=True, kw_only=True)
class Perturbed(CorruptionDistribution):
    """π(· | x) of the weights as they are, differentiable, for bonus, guard and curves; beside it, perturbed ones.

    Attributes:
        noise: ε, one row per perturbation.
        plus: Under θ + σ ε_p, on the images of part p.
        minus: Under θ - σ ε_p, on the same images.
    """

    noise: Parameters
    plus: list[CorruptionDistribution]
    minus: list[CorruptionDistribution]


class Evolution:
    """Antithetic perturbations of the weights, each tried on its own part of the batch.

    The gradient is that of the expected reward smoothed over weights N(θ, σ²); entropy bonus and guard are known
    functions of the weights as they are, and keep their exact gradients.

    Source: Salimans et al. 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement Learning" (arXiv
    1703.03864). Departures: rewards are scaled as for the other estimators, not ranked; both signs of a perturbation
    see the same images and draw their actions with the same random numbers.

    Args:
        policy: Images to distributions; any module.
        perturbations: Directions tried per step, P; at most one per image.
        sigma: Standard deviation of a perturbation of each weight.
        scaling: Of rewards, or of half their differences.
        clip: Largest norm of the estimate. It grows with the root of the number of weights and would drown entropy
            bonus and guard in a common clipping.
    """

    def __init__(
        self, policy: nn.Module, perturbations: int, sigma: float, scaling: Scaling, clip: float = math.inf
    ) -> None:
        self.policy, self.perturbations, self.sigma, self.scaling = policy, perturbations, sigma, scaling
        self.clip = clip

    def look(self, x: Float[Tensor, "n 3 h w"], random: torch.Generator) -> Perturbed:
        """π(· | x), under the weights as they are and under perturbed ones.

        Raises:
            UsageError: If there are fewer images than perturbations.
        """
        if len(x) < self.perturbations:
            raise UsageError(
                f"--policy.perturbations {self.perturbations} needs at least as many images per step: raise "
                f"--schedule.batch {len(x)}, or try fewer"
            )
        pi = self.policy(x)
        with torch.no_grad():
            weights = dict(self.policy.named_parameters())
            noise = {name: _normal(w, self.perturbations, random) for name, w in weights.items()}
            both = {name: w + self.sigma * torch.cat([noise[name], -noise[name]]) for name, w in weights.items()}
            tried = under(self.policy, both, 2 * x.tensor_split(self.perturbations))
        plus, minus = tried[: self.perturbations], tried[self.perturbations :]
        return Perturbed(
            pi.mask, pi.downsample_logits, pi.decolorize_logits, pi.code, noise=noise, plus=plus, minus=minus
        )

    def draw(self, pi: CorruptionDistribution, random: torch.Generator) -> list[Action]:
        """Draw two corruptions of each image, one per sign, from the same random numbers; no gradient."""
        assert isinstance(pi, Perturbed), "draw needs what look returned"
        again = random.clone_state()
        signs = ((pi.plus, random), (pi.minus, again))
        return [Action.joined([part.sample(numbers) for part in parts]) for parts, numbers in signs]

    def loss(
        self,
        pi: CorruptionDistribution,
        a: Sequence[Action],
        r: Float[Tensor, "k n"],
        x: Float[Tensor, "n 3 h w"],
        rows: Int[Tensor, " n"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compute a loss whose gradient is minus the estimate, and the figures for the curves.

            1 / (2 P σ) sum_p (R⁺_p - R⁻_p) ε_p,  R: mean reward of a part

        The loss is linear in the weights; its value means nothing.
        """
        assert isinstance(pi, Perturbed), "loss needs what look returned"
        r = self.scaling.rewards(r)
        A = self.scaling.advantages((r[0] - r[1]) / 2)
        per_part = torch.stack([part.mean() for part in A.tensor_split(self.perturbations)])
        share = per_part / (self.perturbations * self.sigma)
        weights = dict(self.policy.named_parameters())
        estimate = {name: torch.tensordot(share.to(w), pi.noise[name], dims=1) for name, w in weights.items()}
        norm = torch.stack([g.norm() for g in estimate.values()]).norm()
        clipped = (self.clip / norm.clamp(min=1e-12)).clamp(max=1)
        gain = torch.stack([(estimate[name] * w).sum() for name, w in weights.items()]).sum()
        return -clipped * gain, {"reward/advantage_std": A.std()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"scaling": self.scaling.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.scaling.load_state_dict(state["scaling"])


def under(policy: nn.Module, weights: Parameters, parts: Sequence[Tensor]) -> list[CorruptionDistribution]:
    """Ask a policy under many weights, each for its own images.

    Parts of one size are asked all at once.

    Args:
        policy: Images to distributions.
        weights: Stacks of parameters; as many rows as there are parts.
        parts: The images for each row.

    Returns:
        One distribution per row.
    """
    if len({len(part) for part in parts}) > 1:
        rows = ({name: stack[p] for name, stack in weights.items()} for p in range(len(parts)))
        return [functional_call(policy, row, (part,)) for row, part in zip(rows, parts, strict=True)]
    # vmap returns only tensors: take the distributions apart inside, and put them together again outside.
    model = policy(parts[0])
    tensors = vmap(lambda row, part: _tensors(functional_call(policy, row, (part,))))(weights, torch.stack(list(parts)))
    return [_with_tensors(model, iter(row)) for row in zip(*tensors, strict=True)]


def _normal(like: Tensor, rows: int, random: torch.Generator) -> Tensor:
    """Standard normal numbers, so many rows of the given shape."""
    return torch.randn(rows, *like.shape, generator=random, dtype=like.dtype, device=like.device)


def _tensors(tree: Any) -> list[Tensor]:
    """All tensors of nested dataclasses, lists and tuples, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    return [tensor for part in _parts(tree) for tensor in _tensors(part)]


def _with_tensors(tree: Any, tensors: Iterator[Tensor]) -> Any:
    """The same structure, filled with other tensors."""
    if isinstance(tree, Tensor):
        return next(tensors)
    if is_dataclass(tree) and not isinstance(tree, type):
        filled = [_with_tensors(part, tensors) for part in _parts(tree)]
        return replace(tree, **{field.name: part for field, part in zip(fields(tree), filled, strict=True)})
    if isinstance(tree, (list, tuple)):
        return type(tree)(_with_tensors(part, tensors) for part in tree)
    return tree


def _parts(tree: Any) -> list[Any]:
    """What a dataclass, list or tuple is made of; nothing, for anything else."""
    if is_dataclass(tree):
        return [getattr(tree, field.name) for field in fields(tree)]
    return list(tree) if isinstance(tree, (list, tuple)) else []
