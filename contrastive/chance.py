"""The loss of a learner that cannot tell images apart."""

import math

from configs.contrastive import ContrastiveConfig


def chance(config: ContrastiveConfig, k: int, n: int) -> float | None:
    """Compute the loss where all views have one vector: a learner that has collapsed, or not begun.

    Vectors that are spread without regard to the images come to as much or more, except under `paper` and `rince`:
    these also ask how near an image's views are, and there it comes to less.

    Args:
        config: Which loss, and its settings.
        k: Views of an image that the learner sees, at least 2.
        n: Images of a batch, at least 2.

    Returns:
        The loss in its own unit (docs/losses.md). None where no level says that nothing is told apart: the classes of
        `spherical` are learned beside the views, and `cosine-pull` adds distances of further views.
    """
    match config.loss:
        case "ntxent" | "supcon" | "stablerep" | "l-in":
            return math.log(k * n - 1)
        case "paper":
            return 2 * math.log(n)
        case "sincere":
            return math.log(k * (n - 1) + 1)
        case "dcl":
            return math.log(k * (n - 1))
        case "rince":
            q, compared = config.rince_q, k * (n - 1) + 1
            return math.exp(q / config.temperature) * ((config.rince_lambda * compared) ** q - 1) / q
        case "cosine-pull":
            return math.log(2 * n - 1) if k == 2 else None
        case "spherical":
            return None
