"""The nearest-neighbor vote is the one that a naive loop counts."""

import math

import pytest
import torch

from contrastive import knn
from contrastive.knn import knn_accuracy, knn_classes


def slow_classes(bank, bank_labels, queries, k, temperature):
    for query in queries.double():
        cosines = [float(query @ b / query.norm() / b.norm()) for b in bank.double()]
        nearest = sorted(range(len(bank)), key=lambda i: -cosines[i])[:k]
        votes = {}
        for i in nearest:
            voted = int(bank_labels[i])
            votes[voted] = votes.get(voted, 0.0) + math.exp(cosines[i] / temperature)
        yield max(votes, key=votes.get)


def classes(x):
    """Classes depend on the features, so that the vote is neither chance nor perfect."""
    return 5 + 2 * (x[:, 0] > 0) + (x[:, 1] > 0.3)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.1), (20, 0.1), (20, 5.0), (500, 0.5)])
def test_classes_equal_a_naive_loop(monkeypatch, k, temperature):
    monkeypatch.setattr(knn, "QUERIES_AT_ONCE", 16)  # several chunks
    monkeypatch.setattr(knn, "COMPARED_AT_ONCE", 16 * k * 7)
    generator = torch.Generator().manual_seed(k)
    bank, queries = torch.randn(60, 4, generator=generator), torch.randn(50, 4, generator=generator)
    bank_labels = classes(bank)
    slow = list(slow_classes(bank, bank_labels, queries, k, temperature))
    assert knn_classes(bank, bank_labels, queries, k, temperature).tolist() == slow


def test_accuracy_is_the_share_of_hits_of_twenty_voters():
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(60, 4, generator=generator), torch.randn(50, 4, generator=generator)
    labels = classes(queries)
    accuracy = knn_accuracy(bank, classes(bank), queries, labels)
    assert accuracy.shape == ()
    slow = slow_classes(bank, classes(bank), queries, 20, 0.1)
    hits = sum(guess == label for guess, label in zip(slow, labels.tolist(), strict=True))
    assert accuracy.item() == pytest.approx(hits / len(queries))
    assert 0.2 < accuracy < 1


def test_own_bank_is_recognized():
    bank, labels = torch.randn(30, 8, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    assert knn_classes(bank, labels, bank, k=1).tolist() == labels.tolist()
