"""The sum over negatives is a slow loop's, whole or in tiles, in value and all derivatives; its memory is linear."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from contrastive.negatives import log_negatives, own_similarities

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, in forward mode

TILED = {"whole": 0}


def views(k, n, d, seed=0, dtype=torch.float64):
    x = torch.randn(k, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(x, dim=-1).to(dtype)


def slow(u, temperature):
    k, n, _ = u.shape
    out = torch.zeros(k, n, dtype=torch.float64)
    for a in range(k):
        for i in range(n):
            others = [u[a, i] @ u[b, j] for j in range(n) if j != i for b in range(k)]
            out[a, i] = math.log(sum(math.exp(float(s) / temperature) for s in others))
    return out


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, TILED | {"tile": 5}, TILED | {"tile": 1000}])
def test_log_negatives_equal_a_slow_loop(k, settings):
    u = views(k, 7, 4)
    assert torch.allclose(log_negatives(u, 0.3, **settings), slow(u, 0.3), rtol=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_own_similarities_are_those_of_the_following_views(k):
    u = views(k, 5, 4)
    s = own_similarities(u)
    for r in range(k):
        for a in range(k):
            assert torch.allclose(s[r, a], (u[a] * u[(a + r) % k]).sum(dim=1), rtol=1e-12)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("tile", [1, 2, 4, 6, 7, 12, 13, 24, 39])  # also no multiples of k, nor divisors of the rows
def test_tiles_change_nothing(k, tile):
    u, direction = views(k, 13, 4, seed=1), views(k, 13, 4, seed=2)
    weight = torch.linspace(-1, 2, k * 13, dtype=torch.float64).view(k, 13)
    results = []
    for settings in ({}, TILED | {"tile": tile}):
        x = u.clone().requires_grad_()
        value = log_negatives(x, 0.2, **settings)
        (gradient,) = torch.autograd.grad((weight * value).sum(), x)
        _, forward = torch.func.jvp(lambda v, s=settings: log_negatives(v, 0.2, **s), (u,), (direction,))
        results.append((value.detach(), gradient, forward))
    for whole, tiled in zip(*results, strict=True):
        assert torch.allclose(tiled, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, TILED | {"tile": 4}])
def test_all_derivatives_agree_with_finite_differences(settings):
    u = (1.3 * views(2, 5, 3)).requires_grad_()

    def f(v):
        return log_negatives(v, 0.5, **settings)

    assert torch.autograd.gradcheck(f, u, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(f, u)


@pytest.mark.parametrize("settings", [{}, TILED | {"tile": 4}])
def test_function_transforms_compose(settings):
    many = torch.stack([views(2, 5, 3, seed) for seed in range(3)])

    def f(v):
        return log_negatives(v, 0.5, **settings)

    assert torch.allclose(torch.func.vmap(f)(many), torch.stack([f(v) for v in many]), rtol=1e-12)
    jacobian = torch.func.jacrev(f)(many[0])
    _, forward = torch.func.jvp(f, (many[0],), (many[1],))
    assert torch.allclose((jacobian * many[1]).sum(dim=(2, 3, 4)), forward, atol=1e-12)
    gradients = torch.func.vmap(torch.func.grad(lambda v: f(v).sum()))(many)
    assert torch.allclose(gradients[0], jacobian.sum(dim=(0, 1)), atol=1e-12)


def test_nothing_is_recorded_without_gradient():
    with torch.no_grad():
        assert log_negatives(views(2, 5, 3).requires_grad_(), 0.2, **TILED).grad_fn is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("settings", [{}, TILED | {"tile": 6}])
def test_long_vectors_and_small_temperatures_stay_finite(dtype, settings):
    u = (100 * views(2, 8, 16, dtype=dtype)).requires_grad_()
    value = log_negatives(u, 0.01, **settings)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert u.grad.isfinite().all()


def test_rows_far_below_the_largest_similarity_do_not_underflow():
    """At τ = 0.01 the cosine -1 lies 200 nats below the cosine 1, beyond float32: each row needs its own maximum."""
    e = torch.eye(2)
    u = torch.stack([e[0], e[0], -e[0]])[None]  # the third image is far from both others
    for settings in ({}, TILED | {"tile": 1}, TILED | {"tile": 3}):
        assert torch.allclose(log_negatives(u, 0.01, **settings)[0, 2], torch.tensor(-100 + math.log(2)))


@pytest.mark.parametrize("settings", [{}, TILED | {"tile": 6}])
def test_autocast_coarsens_neither_pass(settings):
    def both(autocast):
        u = views(2, 8, 16, dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = log_negatives(u, 0.1, **settings)
        value.sum().backward()
        return value, u.grad

    for inside, outside in zip(both(True), both(False), strict=True):
        assert torch.equal(inside, outside)


def test_autocast_around_the_backward_pass_does_not_coarsen_tiles():
    u = views(2, 8, 16, dtype=torch.float32).requires_grad_()
    value = log_negatives(u, 0.1, **TILED, tile=6).sum()
    (outside,) = torch.autograd.grad(value, u, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        (inside,) = torch.autograd.grad(value, u)
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("settings", [{}, TILED])
def test_a_single_image_has_no_negatives(settings):
    u = views(3, 1, 4).requires_grad_()
    value = log_negatives(u, 0.2, **settings)
    assert torch.equal(value, torch.full((3, 1), -math.inf, dtype=torch.float64))
    assert not value.requires_grad


def test_a_last_tile_of_a_single_image_is_no_special_case():
    u = views(2, 3, 4).requires_grad_()
    log_negatives(u, 0.2, whole=0, tile=4).sum().backward()
    assert u.grad.isfinite().all()


def test_nothing_as_large_as_the_matrix_is_ever_made():
    """Every tensor made on the way, in both passes, is counted: none outgrows the vectors or a tile."""

    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.entries = max(self.entries, out.untyped_storage().nbytes() // out.element_size())
            return out

    def largest(n):
        u = views(2, n, 8).requires_grad_()
        with Largest() as seen:
            log_negatives(u, 0.2, whole=32, tile=32).sum().backward()
        return seen.entries

    assert largest(256) <= 2 * 256 * 8
    assert largest(512) <= 2 * 512 * 8


def test_what_is_kept_for_the_backward_pass_grows_linearly():
    def kept(n):
        entries = 0

        def count(tensor):
            nonlocal entries
            entries += tensor.numel()
            return tensor

        u = views(2, n, 8).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            log_negatives(u, 0.2, whole=32, tile=32)
        return entries

    assert kept(128) == 2 * kept(64)
