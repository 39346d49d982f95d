"""Alignment and uniformity are the paper's formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from contrastive import alignment as module
from contrastive.alignment import alignment, distance, uniformity


def unit_vectors(n, d, seed):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(x, dim=1)


def pairs(u):
    """Squared distances of all pairs i < j, one by one."""
    u = u.numpy()
    return np.array([((u[i] - u[j]) ** 2).sum() for i in range(len(u)) for j in range(i)])


@pytest.mark.parametrize("rows", [4, 9, 1000])
def test_all_three_equal_a_double_loop(monkeypatch, rows):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows)  # several blocks, the last of them short, and one
    u, v = unit_vectors(23, 5, seed=0), unit_vectors(23, 5, seed=1)
    u = F.normalize(u + 0.7, dim=1)  # a cone, as features make one
    assert uniformity(u).item() == pytest.approx(math.log(np.exp(-2 * pairs(u)).mean()), rel=1e-12)
    assert distance(u).item() == pytest.approx(pairs(u).mean(), rel=1e-12)
    slow = np.mean([((a - b) ** 2).sum() for a, b in zip(u.numpy(), v.numpy(), strict=True)])
    assert alignment(u, v).item() == pytest.approx(slow, rel=1e-12)


def test_known_places():
    u = unit_vectors(6, 4, seed=0)
    assert alignment(u, u) == 0
    assert alignment(u, -u).item() == pytest.approx(4)
    antipodes, axes = torch.tensor([[1.0, 0, 0], [-1, 0, 0]]), torch.eye(7)
    collapsed = torch.tensor([[0.6, 0.8]]).expand(9, 2)
    assert uniformity(antipodes).item() == pytest.approx(-8)  # squared distance 4
    assert uniformity(axes).item() == pytest.approx(-4)  # squared distance 2
    assert uniformity(collapsed).item() == pytest.approx(0, abs=1e-6)
    assert [distance(z).item() for z in (antipodes, axes, collapsed)] == pytest.approx([4, 2, 0], abs=1e-6)


def test_an_even_spread_comes_near_minus_four_and_two():
    u = unit_vectors(1500, 256, seed=0)
    assert uniformity(u).item() == pytest.approx(-4, abs=0.05)
    assert distance(u).item() == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("figure", [uniformity, distance])
def test_one_image_is_no_pair(figure):
    with pytest.raises(ValueError, match="n = 1"):
        figure(torch.ones(1, 1))
