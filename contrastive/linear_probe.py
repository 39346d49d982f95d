"""A linear classifier on frozen features: SimCLR's linear evaluation protocol."""

import warnings

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor


def linear_classes(
    train_features: Float[Tensor, "m d"],
    train_labels: Int[Tensor, " m"],
    test_features: Float[Tensor, "n d"],
) -> Int[Tensor, " n"]:
    """Fit a multinomial logistic regression on frozen features and let it classify others.

    Features are standardized by the training set's mean and deviation, so that the one strength of the L2
    penalty (scikit-learn's default, C = 1) suits every encoder.

    Args:
        train_features: Features to fit on.
        train_labels: Their classes, at least two different ones.
        test_features: Features to classify.

    Returns:
        The likeliest class of each, on the device of the test features.

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
    return torch.from_numpy(classifier.predict((test - mean) / deviation)).to(test_features.device)


def linear_accuracy(
    train_features: Float[Tensor, "m d"],
    train_labels: Int[Tensor, " m"],
    test_features: Float[Tensor, "n d"],
    test_labels: Int[Tensor, " n"],
) -> float:
    """Share of test images that `linear_classes` classifies rightly, in [0, 1]."""
    predicted = linear_classes(train_features, train_labels, test_features)
    return (predicted == test_labels).double().mean().item()
