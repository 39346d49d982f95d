"""A nearest-neighbor vote on frozen features."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

QUERIES_AT_ONCE = 1024
"""Bounds the memory: similarities to the whole bank are held for this many images."""
COMPARED_AT_ONCE = 2**25
"""Likewise: so many voters' classes are compared with one another at once."""


def knn_classes(
    bank_features: Float[Tensor, "m d"],
    bank_labels: Int[Tensor, " m"],
    features: Float[Tensor, "n d"],
    k: int = 20,
    temperature: float = 0.1,
) -> Int[Tensor, " n"]:
    """Classify by the k most similar images of the bank, each vote weighted by exp(cosine / temperature).

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
    section 3.4.

    Args:
        bank_features: Features with known classes, any length.
        bank_labels: Their classes.
        features: Features to classify.
        k: Voters; at most the whole bank votes.
        temperature: Small: the nearest decides. Large: all k count alike.

    Returns:
        The class that wins each vote, left on the device (no synchronization).
    """
    bank = F.normalize(bank_features.float(), dim=1)
    return torch.cat(
        [
            _vote(queries @ bank.T, bank_labels, min(k, len(bank)), temperature)
            for queries in F.normalize(features.float(), dim=1).split(QUERIES_AT_ONCE)
        ]
    )


def knn_accuracy(
    bank_features: Float[Tensor, "m d"],
    bank_labels: Int[Tensor, " m"],
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Share of images that `knn_classes` classifies as `labels` do, in [0, 1], left on the device."""
    return (knn_classes(bank_features, bank_labels, features) == labels).float().mean()


def _vote(
    similarity: Float[Tensor, "b m"], bank_labels: Int[Tensor, " m"], k: int, temperature: float
) -> Int[Tensor, " b"]:
    """The class with the largest weight among the k nearest."""
    nearest, index = similarity.topk(k, dim=1)
    voters = bank_labels[index]
    weight = (nearest / temperature).softmax(dim=1)
    # Votes are counted for each voter's class rather than for each class: the number of classes stays
    # unasked, for reading it off the labels would wait for the device.
    votes, at_once = torch.zeros_like(weight), max(1, COMPARED_AT_ONCE // max(1, voters.numel()))
    for some, its_weight in zip(voters.split(at_once, dim=1), weight.split(at_once, dim=1), strict=True):
        votes += ((voters[:, :, None] == some[:, None, :]) * its_weight[:, None, :]).sum(dim=2)
    return voters.gather(1, votes.argmax(dim=1, keepdim=True)).squeeze(1)
