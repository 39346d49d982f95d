"""Begin with an exported policy instead of a new one."""

from pathlib import Path

from configs.errors import UsageError
from policy.build import LearnedPolicy
from policy.export import load

SAME = ("name", "mask", "grid", "width")
"""Settings that the weights depend on."""


def start_from(policy: LearnedPolicy, path: Path) -> None:
    """Take the weights of an exported policy over.

    Args:
        policy: A new policy; changed in place.
        path: A run's folder, or its policy.safetensors.

    Raises:
        UsageError: If there is no export, it is damaged, or it is of another architecture; names the settings.
    """
    found = load(path)
    differing = [
        f"--policy.{name} {getattr(found.config, name)} there, {getattr(policy.config, name)} here"
        for name in SAME
        if getattr(found.config, name) != getattr(policy.config, name)
    ]
    if found.image_size != policy.image_size:
        differing.append(f"--data.size {found.image_size} there, {policy.image_size} here")
    if differing:
        raise UsageError(f"--policy.from {path} is another kind of policy: {'; '.join(differing)}")
    policy.load_state_dict(found.state_dict())
