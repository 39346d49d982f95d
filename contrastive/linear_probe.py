"""Accuracy of a linear classifier on frozen features: SimCLR's linear evaluation protocol."""

import warnings

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor


def linear_accuracy(
    train_features: Float[Tensor, "m d"],
    train_labels: Int[Tensor, " m"],
    test_features: Float[Tensor, "n d"],
    test_labels: Int[Tensor, " n"],
) -> float:
    """Fit a multinomial logistic regression on frozen features and test it.

    Features are standardized by the training set's mean and deviation, so that the one strength of the L2
    penalty (scikit-learn's default, C = 1) suits every encoder.

    Args:
        train_features: Features to fit on.
        train_labels: Their classes, at least two different ones.
        test_features: Features to test on.
        test_labels: Their classes.

    Returns:
        Share of test images classified correctly, in [0, 1].

    Raises:
        ValueError: If the training labels hold a single class (from scikit-learn).
    """
    train, test = (x.detach().double().cpu().numpy() for x in (train_features, test_features))
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)  # a dead feature stays a harmless zero
    classifier = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        # A thousand steps without convergence still make a classifier, and its accuracy is all that is asked.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit((train - mean) / deviation, train_labels.cpu().numpy())
    return float(classifier.score((test - mean) / deviation, test_labels.cpu().numpy()))
