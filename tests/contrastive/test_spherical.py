"""The spherical classifier is a softmax over all images' vectors, whatever the chunks, and stays on the sphere."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from contrastive.spherical import Spherical

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, in forward mode

T, IMAGES = 0.3, 11
ROWS = torch.tensor([7, 0, 10, 3])
CHUNKS = [10**6, 8 * 4, 1]  # logits at a time: all, four classes, one class


def views(k, dtype=torch.float64):
    x = torch.randn(k, len(ROWS), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return F.normalize(x, dim=-1).to(dtype)


def spherical(dtype=torch.float64, images=IMAGES):
    torch.manual_seed(1)
    module = Spherical(images, 3, T).to(dtype)
    with torch.no_grad():
        module.weight *= torch.linspace(0.5, 2, images, dtype=dtype)[:, None]  # lengths must not matter
    return module


def slow(u, weight):
    w = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    losses = np.zeros(u.shape[1])
    for a in range(u.shape[0]):
        for i, row in enumerate(ROWS.tolist()):
            scores = [math.exp(float(u[a, i] @ w[j]) / T) for j in range(len(w))]
            losses[i] -= math.log(scores[row] / sum(scores)) / u.shape[0]
    return losses


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("logits", CHUNKS)
def test_loss_and_gradients_equal_a_double_loop(k, logits, numerical_gradient):
    module, u = spherical(), views(k).requires_grad_()
    weight = torch.linspace(-1, 2, len(ROWS), dtype=torch.float64)
    loss = module(u, ROWS, logits)
    of_views, of_vectors = torch.autograd.grad((weight * loss).sum(), (u, module.weight))

    x, w = u.detach().numpy(), module.weight.detach().numpy()
    assert np.allclose(loss.detach().numpy(), slow(x, w), rtol=1e-12)
    assert np.allclose(of_views.numpy(), numerical_gradient(lambda y: weight.numpy() @ slow(y, w), x), atol=1e-7)
    assert np.allclose(of_vectors.numpy(), numerical_gradient(lambda y: weight.numpy() @ slow(x, y), w), atol=1e-7)


@pytest.mark.parametrize("logits", CHUNKS)
def test_forward_mode_derivative_agrees_with_the_gradient(logits):
    module, u = spherical(), views(2)
    direction = views(2).roll(1, dims=1)
    _, forward = torch.func.jvp(lambda v: module(v, ROWS, logits), (u,), (direction,))
    backward = torch.autograd.functional.jacobian(lambda v: module(v, ROWS, logits), u)
    assert torch.allclose(forward, (backward * direction).sum(dim=(1, 2, 3)), atol=1e-12)


def test_vectors_start_on_the_sphere_and_differ():
    torch.manual_seed(0)
    weight = Spherical(50, 8, T).weight
    assert torch.allclose(weight.norm(dim=1), torch.ones(50))
    assert len(weight.unique(dim=0)) == 50


def test_a_gradient_never_points_off_the_sphere():
    module = spherical()
    module(views(2), ROWS).sum().backward()
    assert torch.allclose((module.weight.grad * module.weight).sum(dim=1), torch.zeros(IMAGES).double(), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_loss_is_at_least_float32_and_finite_at_small_temperature(dtype):
    module = Spherical(IMAGES, 3, 0.01)
    u = (100 * views(2, dtype)).requires_grad_()
    loss = module(u, ROWS)
    loss.mean().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert u.grad.isfinite().all()


def test_autocast_does_not_coarsen():
    module, u = spherical(torch.float32), views(2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = module(u, ROWS)
    assert torch.equal(inside, module(u, ROWS))


def test_what_is_kept_for_the_backward_pass_grows_linearly():
    def kept(images):
        entries = 0

        def count(tensor):
            nonlocal entries
            entries += tensor.numel()
            return tensor

        module, u = spherical(images=images), views(2).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            module(u, ROWS, 64)
        return entries

    # Per image 3 numbers and a few more; a matrix of all logits would be 8 more an image.
    assert kept(800) - kept(400) < 400 * 8
