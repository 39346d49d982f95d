"""The losses are the papers' formulas, written as slow double loops, in value and gradient."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from contrastive.ntxent import ntxent, soft_nearest_neighbor


def unit_vectors(n, d, seed, dtype=torch.float64):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(x, dim=1).to(dtype)


def slow_ntxent(u1, u2, temperature):
    """Equation 1 anchor by anchor."""
    u, n = np.concatenate([u1, u2]), len(u1)
    losses = np.zeros(n)
    for i in range(2 * n):
        similarity = [math.exp(float(u[i] @ u[k]) / temperature) for k in range(2 * n)]
        others = sum(similarity[k] for k in range(2 * n) if k != i)
        losses[i % n] += -math.log(similarity[(i + n) % (2 * n)] / others) / 2
    return losses


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


def numerical_gradient(f, x, step=1e-6):
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (f(up) - f(down)) / (2 * step)
    return gradient


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_ntxent_and_its_gradient_equal_a_double_loop(temperature):
    u1, u2 = unit_vectors(5, 3, seed=1).requires_grad_(), unit_vectors(5, 3, seed=2)
    weight = torch.linspace(-1, 2, 5, dtype=torch.float64)  # each image's own loss, not just their mean
    loss = ntxent(u1, u2, temperature)
    (gradient,) = torch.autograd.grad((weight * loss).sum(), u1)

    a, b = u1.detach().numpy(), u2.numpy()
    assert np.allclose(loss.detach().numpy(), slow_ntxent(a, b, temperature), rtol=1e-12)
    slow = numerical_gradient(lambda x: weight.numpy() @ slow_ntxent(x, b, temperature), a)
    assert np.allclose(gradient.numpy(), slow, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_soft_nearest_neighbor_and_its_gradient_equal_a_double_loop(temperature):
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


def test_soft_nearest_neighbor_without_any_partner_has_no_gradient():
    u = unit_vectors(4, 3, seed=0).requires_grad_()
    loss = soft_nearest_neighbor(u, torch.arange(4), 0.1)
    loss.sum().backward()
    assert torch.equal(loss, torch.zeros(4, dtype=torch.float64))
    assert torch.equal(u.grad, torch.zeros_like(u))


def test_ntxent_follows_a_joint_permutation_and_ignores_the_order_of_views():
    u1, u2 = unit_vectors(6, 4, seed=1), unit_vectors(6, 4, seed=2)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    loss = ntxent(u1, u2, 0.2)
    assert torch.allclose(ntxent(u1[order], u2[order], 0.2), loss[order], rtol=1e-12)
    assert torch.allclose(ntxent(u2, u1, 0.2), loss, rtol=1e-12)
    assert not torch.allclose(ntxent(u1, u2[order], 0.2), loss, rtol=1e-3)  # pairing matters


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_losses_are_finite_at_small_temperature_and_with_large_values(dtype):
    u1, u2 = (100 * unit_vectors(8, 16, s, dtype) for s in (1, 2))
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    u1.requires_grad_()
    loss = ntxent(u1, u2, 0.01) + soft_nearest_neighbor(u1, labels, 0.01)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert u1.grad.isfinite().all()


def test_ntxent_is_not_coarsened_by_autocast():
    u1, u2 = unit_vectors(8, 16, 1, torch.float32), unit_vectors(8, 16, 2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ntxent(u1, u2, 0.1)
    assert torch.equal(inside, ntxent(u1, u2, 0.1))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at its first derivative
def test_forward_mode_derivative_agrees_with_the_gradient():
    """Credit per image needs d loss_i along one direction for all i at once."""
    u1, u2, direction = (unit_vectors(5, 3, seed) for seed in (1, 2, 3))
    _, forward = torch.func.jvp(lambda u: ntxent(u, u2, 0.2), (u1,), (direction,))
    backward = torch.func.jacrev(lambda u: ntxent(u, u2, 0.2))(u1)
    assert torch.allclose(forward, (backward * direction).sum(dim=(1, 2)), atol=1e-12)
