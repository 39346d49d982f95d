"""Looking at the learner without leaving a trace: evaluation mode as a scope, features of image sets."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrastive.encoder import Learner
from contrastive.knn import knn_accuracy
from contrastive.linear_probe import linear_accuracy
from env.images import ImageSet

BANK, QUERIES = 5000, 2000
"""Most training and test images behind accuracies, evenly spread over the sets."""


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


def features(learner: Learner, images: Float[Tensor, "n 3 h w"], batch: int = 512) -> Float[Tensor, "n f"]:
    """Encode images in evaluation mode, without gradients, leaving the learner as it was.

    Args:
        learner: Its encoder is used, not its projector.
        images: In [0, 1], on the learner's device; at least one.
        batch: Images at once; bounds the memory, never the result.

    Returns:
        The encoder's features, one row an image.
    """
    with torch.no_grad(), evaluating(learner):
        return torch.cat([learner.features(x) for x in images.split(batch)])


def knn_top1(learner: Learner, train: ImageSet, asked: ImageSet) -> Float[Tensor, ""]:
    """KNN accuracy of the frozen features in [0, 1], on the device.

    Args:
        learner: Left as it was.
        train: Bank of the vote; at most `BANK` images of it.
        asked: What is classified; at most `QUERIES` images of it.
    """
    train, asked = train.thinned(BANK), asked.thinned(QUERIES)
    known, unknown = features(learner, train.images()), features(learner, asked.images())
    return knn_accuracy(known, train.labels, unknown, asked.labels)


def accuracies(learner: Learner, train: ImageSet, test: ImageSet) -> dict[str, float]:
    """Measure what a task downstream could get from the frozen features, on as many images as `knn_top1`.

    Args:
        learner: Left as it was.
        train: Bank of the kNN vote, training set of the linear probe.
        test: What both are tested on.

    Returns:
        `knn_top1` and `linear_top1`, in [0, 1].
    """
    train, test = train.thinned(BANK), test.thinned(QUERIES)
    bank, queries = features(learner, train.images()), features(learner, test.images())
    return {
        "knn_top1": knn_accuracy(bank, train.labels, queries, test.labels).item(),
        "linear_top1": linear_accuracy(bank, train.labels, queries, test.labels),
    }
