"""The policy π_θ: what to delete from an image, learned by REINFORCE or fixed.

In: images in [0, 1], rewards of single images. Out: distributions over corruptions, losses, exported weights.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policy.actor import CorruptionActorCriticPolicy
    from policy.algorithm import Reinforce

__all__ = ["CorruptionActorCriticPolicy", "Reinforce"]


def __getattr__(name: str) -> Any:
    """Import what needs Stable-Baselines3 when it is asked for; nothing else in this package needs it."""
    match name:
        case "CorruptionActorCriticPolicy":
            from policy.actor import CorruptionActorCriticPolicy

            return CorruptionActorCriticPolicy
        case "Reinforce":
            from policy.algorithm import Reinforce

            return Reinforce
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
