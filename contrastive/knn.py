"""Accuracy of a nearest-neighbor vote on frozen features."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

QUERIES_AT_ONCE = 1024
"""Bounds the memory: similarities to the whole bank are held for this many images."""


def knn_accuracy(
    bank_features: Float[Tensor, "m d"],
    bank_labels: Int[Tensor, " m"],
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    k: int = 20,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Classify by the k most similar images of the bank, each vote weighted by exp(cosine / temperature).

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
    section 3.4.

    Args:
        bank_features: Features with known classes, any length.
        bank_labels: Their classes.
        features: Features to classify.
        labels: Their true classes.
        k: Voters; at most the whole bank votes.
        temperature: Small: the nearest decides. Large: all k count alike.

    Returns:
        Share of images classified correctly, in [0, 1], left on the device (no synchronization).
    """
    bank = F.normalize(bank_features.float(), dim=1)
    hits = [
        _vote(queries @ bank.T, bank_labels, min(k, len(bank)), temperature) == truth
        for queries, truth in zip(
            F.normalize(features.float(), dim=1).split(QUERIES_AT_ONCE),
            labels.split(QUERIES_AT_ONCE),
            strict=True,
        )
    ]
    return torch.cat(hits).float().mean()


def _vote(
    similarity: Float[Tensor, "b m"], bank_labels: Int[Tensor, " m"], k: int, temperature: float
) -> Int[Tensor, " b"]:
    """The class with the largest weight among the k nearest."""
    nearest, index = similarity.topk(k, dim=1)
    voters = bank_labels[index]
    weight = (nearest / temperature).softmax(dim=1)
    # Votes are counted for each voter's class rather than for each class: the number of classes stays
    # unasked, for reading it off the labels would wait for the device.
    votes = ((voters[:, :, None] == voters[:, None, :]) * weight[:, None, :]).sum(dim=2)
    return voters.gather(1, votes.argmax(dim=1, keepdim=True)).squeeze(1)
