"""The linear probe reads what is linearly there, whatever the features' scale, and nothing else."""

import pytest
import torch

from contrastive.linear_probe import linear_accuracy, linear_classes


def features_and_labels(n, seed, noise=0.3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    centers = torch.tensor([[0.0, 0.0, 2.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    return centers[labels] + noise * torch.randn(n, 4, generator=generator), labels


def test_separable_classes_are_found_at_any_scale_and_with_a_dead_feature():
    (train, y), (test, z) = features_and_labels(200, 0), features_and_labels(100, 1)
    plain = linear_accuracy(train, y, test, z)
    assert plain > 0.98
    scale, shift = torch.tensor([1e-4, 1.0, 1e4, 0.0]), torch.tensor([0.0, 1e3, 0.0, 7.0])
    scaled = linear_accuracy(train * scale + shift, y, test * scale + shift, z)
    assert scaled > 0.9  # the fourth feature, always 7, carried nothing


def test_shuffled_labels_teach_nothing():
    (train, y), (test, z) = features_and_labels(300, 0), features_and_labels(300, 1)
    shuffled = y[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    assert linear_accuracy(train, shuffled, test, z) < 0.6


def test_one_class_alone_is_refused():
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="class"):
        linear_accuracy(x, torch.zeros(10, dtype=torch.long), x, torch.zeros(10, dtype=torch.long))


def test_accuracy_is_the_share_of_classes_that_are_right():
    (train, y), (test, z) = features_and_labels(200, 0, noise=1.0), features_and_labels(100, 1, noise=1.0)
    guess = linear_classes(train, 7 + y, test)  # classes need not begin at 0
    assert set(guess.tolist()) == {7, 8, 9}
    share = (guess == 7 + z).double().mean().item()
    assert linear_accuracy(train, y, test, z) == share
    assert 0.5 < share < 1
