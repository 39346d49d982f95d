"""What a task downstream could get from the frozen features: accuracies within a run."""

from jaxtyping import Float
from torch import Tensor

from contrastive.encoder import Learner
from contrastive.features import encoded, features
from contrastive.knn import knn_accuracy
from contrastive.linear_probe import linear_accuracy
from env.images import ImageSet

BANK, QUERIES = 5000, 2000
"""Most training and test images behind a run's accuracies, evenly spread over the sets."""


def knn_top1(learner: Learner, train: ImageSet, asked: ImageSet) -> Float[Tensor, ""]:
    """KNN accuracy of the frozen features in [0, 1], on the device.

    Args:
        learner: Left as it was.
        train: Bank of the vote; at most `BANK` images of it.
        asked: What is classified; at most `QUERIES` images of it.
    """
    train, asked = train.thinned(BANK), asked.thinned(QUERIES)
    known, unknown = (encoded(features, learner, images) for images in (train, asked))
    return knn_accuracy(known, train.labels, unknown, asked.labels)


def accuracies(learner: Learner, train: ImageSet, test: ImageSet) -> dict[str, float | None]:
    """Measure what a task downstream could get from the frozen features, on as many images as `knn_top1`.

    Args:
        learner: Left as it was.
        train: Bank of the kNN vote, training set of the linear probe.
        test: What both are tested on.

    Returns:
        `knn_top1` and `linear_top1`, in [0, 1]; None (JSON's null) for a linear probe on one class, which cannot be.
    """
    train, test = train.thinned(BANK), test.thinned(QUERIES)
    bank, queries = (encoded(features, learner, images) for images in (train, test))
    several = len(train.labels.unique()) > 1
    return {
        "knn_top1": knn_accuracy(bank, train.labels, queries, test.labels).item(),
        "linear_top1": linear_accuracy(bank, train.labels, queries, test.labels) if several else None,
    }
