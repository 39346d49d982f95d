"""RankMe is the paper's formula: from 1 for one direction to full rank for all used alike."""

import math

import numpy as np
import pytest
import torch

from contrastive.rank import EPSILON, rankme


def randn(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_it_equals_the_formula_in_numpy(shape):
    z = randn(*shape) * torch.logspace(0, -3, shape[1])
    sigma = np.linalg.svd(z.double().numpy(), compute_uv=False)
    p = sigma / sigma.sum() + EPSILON
    assert rankme(z).item() == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_known_ranks():
    assert rankme(torch.eye(8)).item() == pytest.approx(8, rel=1e-5)
    assert rankme(torch.eye(8)[:, :3]).item() == pytest.approx(3, rel=1e-5)
    assert rankme(randn(40, 1) @ randn(1, 20, seed=1)).item() == pytest.approx(1, abs=1e-3)
    two = torch.diag(torch.tensor([3.0, 1.0, 0.0, 0.0]))
    assert rankme(two).item() == pytest.approx(0.75**-0.75 * 0.25**-0.25, rel=1e-5)


def test_neither_scale_nor_rotation_matters_and_a_common_offset_does():
    z = randn(50, 10)
    rotation = torch.linalg.qr(randn(10, 10, seed=1)).Q
    assert rankme(1e3 * z @ rotation).item() == pytest.approx(rankme(z).item(), rel=1e-4)
    assert rankme(z + 5) < 0.6 * rankme(z)  # not centered


def test_half_precision_is_taken_in_full():
    z = randn(20, 6).bfloat16()
    assert rankme(z) == rankme(z.float())
