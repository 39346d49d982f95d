"""REINFORCE: the policy's gradient from rewards alone, and the guard that keeps the mask ratio in range.

Symbols: r, reward of an image's action; b, baseline; A = r - b, advantage. Nothing here waits for the device.
"""

from jaxtyping import Float
from torch import Tensor


def advantage(reward: Float[Tensor, "*s"], baseline: float | Float[Tensor, "..."]) -> Float[Tensor, "*s"]:
    """Compute A = r - b, how much better each action was than expected.

    Unbiased for any b that does not depend on the image's own action. The batch's mean does, by 1/n: it
    shrinks the gradient to (n - 1) / n of its expectation, and to nothing where all images share one reward.

    Args:
        reward: One a scored action, in any shape.
        baseline: b, of a shape that broadcasts to the rewards'.

    Returns:
        Advantages, without gradient.
    """
    return (reward - baseline).detach()


def reinforce_loss(log_prob: Float[Tensor, "*s"], advantage: Float[Tensor, "*s"]) -> Float[Tensor, ""]:
    """Compute the loss whose gradient is minus REINFORCE's estimate of the expected reward's gradient.

        loss = -mean( A log π(a | x) )

    The minus is the one change of sign: rewards are maximized, losses minimized. The value itself means
    nothing.

    Source: Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning".

    Args:
        log_prob: Log-probability of each scored action as a whole, in nats.
        advantage: Carries no gradient into the loss.
    """
    return -(log_prob * advantage.detach()).mean()


def ratio_penalty(expected_ratio: Float[Tensor, " n"], low: float, high: float) -> Float[Tensor, " n"]:
    """Compute each image's squared distance from its expected mask ratio to the allowed range.

    On the expectation, not on the drawn mask: it is differentiable, so the guard acts directly and without
    the noise of sampling, where a penalty in the reward would have to be discovered by REINFORCE.

    Args:
        expected_ratio: Expected share of hidden cells, in [0, 1].
        low: Lower end of the range.
        high: Upper end; equal to `low` it holds one ratio.

    Returns:
        Penalties to add to the loss; 0 inside the range.
    """
    return (expected_ratio - expected_ratio.clamp(low, high)).square()
