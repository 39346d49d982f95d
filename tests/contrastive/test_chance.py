"""Chance is what the losses themselves say of a learner that gives all views one vector."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from configs.contrastive import ContrastiveConfig, LossName
from contrastive.chance import chance
from contrastive.contrast import Contrast

N = 6


@pytest.mark.parametrize("k", [2, 16])
@pytest.mark.parametrize("loss", [name for name in get_args(LossName) if name != "spherical"])
def test_it_is_the_loss_of_equal_vectors(loss, k):
    config = ContrastiveConfig(loss=loss, projection=8)
    equal = F.normalize(torch.ones(k, N, 8, dtype=torch.float64), dim=-1)
    expected = Contrast(config, N)(equal, torch.arange(N)).mean().item()
    level = chance(config, k, N)
    if loss == "cosine-pull" and k > 2:  # the loss of views that are told apart, and far from one another, is above it
        assert level is None
    else:
        assert level == pytest.approx(expected, rel=1e-12)


def test_a_learned_classifier_has_no_such_level():
    assert chance(ContrastiveConfig(loss="spherical"), 2, N) is None


def test_of_the_default_it_is_simclrs():
    assert chance(ContrastiveConfig(), 2, 128) == math.log(255)
