"""The soft nearest-neighbor loss is the paper's formula, written as a slow double loop, in value and gradient."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from contrastive.soft_nearest_neighbor import soft_nearest_neighbor


def unit_vectors(n, d, seed, dtype=torch.float64):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(x, dim=1).to(dtype)


def slow_soft_nearest_neighbor(u, labels, temperature):
    losses = np.zeros(len(u))
    for i in range(len(u)):
        same = all_others = 0.0
        for j in range(len(u)):
            if j != i:
                all_others += math.exp(float(u[i] @ u[j]) / temperature)
                same += math.exp(float(u[i] @ u[j]) / temperature) if labels[i] == labels[j] else 0.0
        losses[i] = -math.log(same / all_others) if same else 0.0
    return losses


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_loss_and_its_gradient_equal_a_double_loop(temperature, numerical_gradient):
    u = unit_vectors(7, 3, seed=3).requires_grad_()
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 1])  # class 2 is alone
    weight = torch.linspace(-1, 2, 7, dtype=torch.float64)
    loss = soft_nearest_neighbor(u, labels, temperature)
    (gradient,) = torch.autograd.grad((weight * loss).sum(), u)

    a = u.detach().numpy()
    assert loss[3] == 0
    assert np.allclose(loss.detach().numpy(), slow_soft_nearest_neighbor(a, labels.tolist(), temperature))
    slow = numerical_gradient(lambda x: weight.numpy() @ slow_soft_nearest_neighbor(x, labels.tolist(), temperature), a)
    assert np.allclose(gradient.numpy(), slow, atol=1e-7)


def test_without_any_partner_there_is_no_gradient():
    u = unit_vectors(4, 3, seed=0).requires_grad_()
    loss = soft_nearest_neighbor(u, torch.arange(4), 0.1)
    loss.sum().backward()
    assert torch.equal(loss, torch.zeros(4, dtype=torch.float64))
    assert torch.equal(u.grad, torch.zeros_like(u))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_loss_is_finite_at_small_temperature_and_with_large_values(dtype):
    u = (100 * unit_vectors(8, 16, 1, dtype)).requires_grad_()
    loss = soft_nearest_neighbor(u, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), 0.01)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert u.grad.isfinite().all()


def test_autocast_does_not_coarsen():
    u, labels = unit_vectors(8, 16, 1, torch.float32), torch.arange(8) // 2
    with torch.autocast("cpu", torch.bfloat16):
        inside = soft_nearest_neighbor(u, labels, 0.1)
    assert torch.equal(inside, soft_nearest_neighbor(u, labels, 0.1))
