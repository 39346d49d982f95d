"""Begin with an exported policy instead of a new one."""

from pathlib import Path

from configs.errors import UsageError
from policy.build import LearnedPolicy
from policy.export import load
from policy.latent import LatentPolicy
from policy.pattern import PatternPolicy


def start_from(policy: LearnedPolicy, path: Path) -> None:
    """Take the weights of an exported policy over.

    Args:
        policy: A new policy; changed in place.
        path: A run's folder, or its policy.safetensors.

    Raises:
        UsageError: If there is no export, it is damaged, or its weights mean something else; names the settings.
    """
    found = load(path)
    there, here = meaning(found), meaning(policy)
    differing = [
        f"{what} {there[what]} there, {value} here"
        for what, value in here.items()
        if what in there and there[what] != value  # policies of two names have the name in common, and differ in it
    ]
    if differing:
        raise UsageError(f"--policy.from {path} is another kind of policy: {'; '.join(differing)}")
    policy.load_state_dict(found.state_dict())


def meaning(policy: LearnedPolicy) -> dict[str, str | int]:
    """All that a policy's weights depend on, by flag."""
    c = policy.config
    depends: dict[str, str | int] = {"--policy": c.name, "--data.size": policy.image_size}
    if isinstance(policy, PatternPolicy):
        return depends
    depends |= {"--policy.grid": c.grid, "--policy.width": c.width}
    if isinstance(policy, LatentPolicy):
        return depends | {"length of the --generator's codes": policy.code_length}
    return depends | {"--policy.mask": c.mask}
