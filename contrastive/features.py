"""Looking at the learner without leaving a trace: evaluation mode as a scope, features, proof that nothing changed."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from configs.errors import UsageError
from contrastive.encoder import Learner
from env.images import ImageSet

BATCH = 512
"""Images encoded at once; bounds the memory, never the result."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a while.

    BatchNorm then reads its running statistics and leaves them alone. Every submodule gets its own mode back
    at the end, after an exception too. Gradients flow as before.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def features(learner: Learner, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
    """Encode images in evaluation mode, without gradients, leaving the learner as it was.

    Args:
        learner: Its encoder is used, not its projector.
        images: In [0, 1], on the learner's device; at least one.

    Returns:
        The encoder's features, one row per image.
    """
    with torch.no_grad(), evaluating(learner):
        return torch.cat([learner.features(x) for x in images.split(BATCH)])


def projections(learner: Learner, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    """Project images to the unit vectors that the contrastive loss compares, in the manner of `features`.

    Args:
        learner: Encoder and projector are used.
        images: In [0, 1], on the learner's device; at least one.

    Returns:
        Unit vectors, one row per image.
    """
    with torch.no_grad(), evaluating(learner):
        return torch.cat([learner(x) for x in images.split(BATCH)])


def encoded(
    space: Callable[[Learner, Tensor], Tensor], learner: Learner, images: ImageSet, what: str = ""
) -> Float[Tensor, "n d"]:
    """Encode an image set part by part, so that it is never held as floats; does not wait for the device.

    Args:
        space: `features` or `projections`.
        learner: Left as it was.
        images: On the learner's device; at least one.
        what: Title of a progress bar on stderr; empty: none.
    """
    parts = torch.arange(len(images), device=images.labels.device).split(BATCH)
    bar = tqdm(parts, desc=what, leave=False, disable=not what)
    return torch.cat([space(learner, images.images(rows)) for rows in bar])


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Make sure that a module's weights and buffers are at the end, bit for bit, what they were at the beginning.

    Raises:
        UsageError: At the end, if one is not; names it.
    """
    before = fingerprints(module)
    yield
    after = fingerprints(module)
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UsageError(
            f"the learner was changed by being looked at: {changed[0]}{more}. Its figures would be another learner's "
            "each time; use a --contrastive.encoder that leaves its weights and buffers alone in evaluation mode"
        )


def fingerprints(module: nn.Module) -> dict[str, str]:
    """SHA-256 of each weight and each buffer (those that no checkpoint holds, too), as they lie in memory now."""
    return {
        # As bytes: numpy knows no bfloat16, and a NaN equals itself.
        name: hashlib.sha256(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()
        for name, value in (*module.named_parameters(), *module.named_buffers())
    }


def digest(module: nn.Module) -> str:
    """SHA-256 of all weights and buffers together, names included."""
    return hashlib.sha256(repr(sorted(fingerprints(module).items())).encode()).hexdigest()
