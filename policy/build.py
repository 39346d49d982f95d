"""From settings to the policy they name."""

from configs.policy import PolicyConfig
from policy.latent import LatentPolicy
from policy.network import PolicyNetwork
from policy.pattern import PatternPolicy

LearnedPolicy = PolicyNetwork | PatternPolicy | LatentPolicy


def build(config: PolicyConfig, image_size: int, code_length: int = 0) -> LearnedPolicy:
    """Build a new policy that can learn.

    Args:
        config: Its settings, of a policy with `learns`.
        image_size: Side of the square images, in pixels.
        code_length: Numbers of a code that the generator lets a policy propose; only `latent` asks.

    Raises:
        ValueError: If the policy named learns nothing, or the images do not fit its grid.
    """
    match config.name:
        case "learned":
            return PolicyNetwork(config, image_size)
        case "autodropout":
            return PatternPolicy(config, image_size)
        case "latent":
            return LatentPolicy(config, image_size, code_length)
    raise ValueError(f"the policy {config.name} learns nothing: there is no module to build")
