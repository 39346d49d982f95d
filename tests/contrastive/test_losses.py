"""The losses are the papers' formulas, written as slow loops, in value and gradient; and other libraries' losses."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightly.loss import DCLLoss, NTXentLoss
from pytorch_metric_learning import losses as pml

from contrastive import losses

T = 0.3
Q, LAMBDA = 0.4, 0.025
PULL = 0.7


def views(k, n, d, seed=0, dtype=torch.float64):
    x = torch.randn(k, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(x, dim=-1).to(dtype)


def e(x, y):
    return math.exp(float(x @ y) / T)


def others(u, a, i):
    """A(i): all rows of the batch but the anchor."""
    k, n, _ = u.shape
    return [u[b, j] for b in range(k) for j in range(n) if (b, j) != (a, i)]


def negatives(u, a, i):
    k, n, _ = u.shape
    return sum(e(u[a, i], u[b, j]) for b in range(k) for j in range(n) if j != i)


def per_image(of_anchor):
    """Mean over the image's anchors; of_anchor(u, a, i, positives)."""

    def loss(u):
        k, n, _ = u.shape
        anchors = [[of_anchor(u, a, i, [u[b, i] for b in range(k) if b != a]) for a in range(k)] for i in range(n)]
        return np.array(anchors).mean(axis=1)

    return loss


@per_image
def simclr(u, a, i, positives):
    """ℓ_{i,j} of Eq. 1, over all ordered pairs of positives."""
    total = sum(e(u[a, i], x) for x in others(u, a, i))
    return np.mean([-math.log(e(u[a, i], p) / total) for p in positives])


@per_image
def supcon_out(u, a, i, positives):
    """-1/|P(i)| Σ_p log( exp(z_i z_p / τ) / Σ_{a ∈ A(i)} exp(z_i z_a / τ) )."""
    total = sum(e(u[a, i], x) for x in others(u, a, i))
    return -1 / len(positives) * sum(math.log(e(u[a, i], p) / total) for p in positives)


@per_image
def stablerep(u, a, i, positives):
    """H(p, q): p the normalized indicator of matches, q the softmax over all candidates."""
    candidates = others(u, a, i)
    match = np.array([float(any(np.shares_memory(x, p) for p in positives)) for x in candidates])
    logits = np.array([float(u[a, i] @ x) / T for x in candidates])
    q = np.exp(logits - logits.max())
    return -(match / match.sum()) @ np.log(q / q.sum())


@per_image
def supcon_in(u, a, i, positives):
    """-log( 1/|P(i)| Σ_p exp(z_i z_p / τ) / Σ_{a ∈ A(i)} exp(z_i z_a / τ) )."""
    total = sum(e(u[a, i], x) for x in others(u, a, i))
    return -math.log(sum(e(u[a, i], p) / total for p in positives) / len(positives))


@per_image
def sincere(u, a, i, positives):
    return np.mean([-math.log(e(u[a, i], p) / (e(u[a, i], p) + negatives(u, a, i))) for p in positives])


@per_image
def dcl(u, a, i, positives):
    return np.mean([-math.log(e(u[a, i], p) / negatives(u, a, i)) for p in positives])


@per_image
def rince(u, a, i, positives):
    """The authors' pseudo-code: -pos**q / q + (lam * (pos + neg))**q / q."""
    neg, pos = negatives(u, a, i), [e(u[a, i], p) for p in positives]
    return np.mean([-(p**Q) / Q + (LAMBDA * (p + neg)) ** Q / Q for p in pos])


def note(u):
    """-log( Σ_{i,j=1..k} exp sim(f(x_i), f(x_j)) / Z ), Z the sum of all the exponentiated similarities."""
    k, n, _ = u.shape
    of = [sum(e(u[a, i], u[b, i]) for a in range(k) for b in range(k)) for i in range(n)]
    z = sum(e(u[a, i], u[b, j]) for a in range(k) for b in range(k) for i in range(n) for j in range(n))
    return np.array([-math.log(own / z) for own in of])


def clsp(u):
    pair = simclr(u[:2])
    pulls = [((u[c] - u[a]) ** 2).sum(axis=1) for c in range(2, len(u)) for a in range(2)]
    return pair + PULL * np.mean(pulls, axis=0) if pulls else pair


OURS = {
    "ntxent": lambda u: losses.ntxent(u, T),
    "paper": lambda u: losses.paper(u, T),
    "l_in": lambda u: losses.l_in(u, T),
    "sincere": lambda u: losses.sincere(u, T),
    "dcl": lambda u: losses.dcl(u, T),
    "rince": lambda u: losses.rince(u, T, Q, LAMBDA),
    "cosine_pull": lambda u: losses.cosine_pull(u, T, PULL),
}
SLOW = {
    "ntxent": [simclr, supcon_out, stablerep],
    "paper": [note],
    "l_in": [supcon_in],
    "sincere": [sincere],
    "dcl": [dcl],
    "rince": [rince],
    "cosine_pull": [clsp],
}


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("name", OURS)
def test_each_loss_and_its_gradient_equal_slow_loops(name, k, numerical_gradient):
    n = 4
    u = views(k, n, 3).requires_grad_()
    weight = torch.linspace(-1, 2, n, dtype=torch.float64)  # each image's own loss, not just their mean
    loss = OURS[name](u)
    (gradient,) = torch.autograd.grad((weight * loss).sum(), u)
    x = u.detach().numpy()
    for slow in SLOW[name]:
        assert np.allclose(loss.detach().numpy(), slow(x), rtol=1e-11)
    if name == "cosine_pull":  # 2 - 2 cos is the squared distance on the sphere alone, where gradients are compared
        sphere = x / np.linalg.norm(x, axis=-1, keepdims=True)
        tangent = gradient.numpy() - (gradient.numpy() * sphere).sum(axis=-1, keepdims=True) * sphere

        def on_sphere(y):
            return weight.numpy() @ SLOW[name][0](y / np.linalg.norm(y, axis=-1, keepdims=True))

        assert np.allclose(tangent, numerical_gradient(on_sphere, x), atol=1e-7)
    else:
        slow_gradient = numerical_gradient(lambda y: weight.numpy() @ SLOW[name][0](y), x)
        assert np.allclose(gradient.numpy(), slow_gradient, atol=1e-7)


def with_gradient(f, u):
    u = u.clone().requires_grad_()
    value = f(u)
    return value.detach(), torch.autograd.grad(value, u)[0]


def agree(f, g, u):
    return all(
        torch.allclose(a, b, rtol=1e-8, atol=1e-10)
        for a, b in zip(with_gradient(f, u), with_gradient(g, u), strict=True)
    )


def labelled(loss):
    """A loss of pytorch-metric-learning on the views, where an image is a class."""

    def value(u):
        k, n, _ = u.shape
        return loss(u.flatten(0, 1), torch.arange(n).repeat(k))

    return value


def normalized(f):
    """Other libraries normalize once more, so that their gradients are tangents; ours are compared as such."""
    return lambda u: f(F.normalize(u, dim=-1)).mean()


def test_ntxent_is_lightlys():
    other = NTXentLoss(temperature=T)
    assert agree(normalized(OURS["ntxent"]), lambda u: other(u[0], u[1]), views(2, 6, 4))


def test_dcl_is_lightlys():
    other = DCLLoss(temperature=T)
    assert agree(normalized(OURS["dcl"]), lambda u: other(u[0], u[1]), views(2, 6, 4))


@pytest.mark.parametrize("k", [2, 3])
def test_ntxent_is_pytorch_metric_learnings_supcon(k):
    assert agree(normalized(OURS["ntxent"]), labelled(pml.SupConLoss(temperature=T)), views(k, 5, 4))


@pytest.mark.parametrize("k", [2, 3])
def test_sincere_is_pytorch_metric_learnings_ntxent(k):
    assert agree(normalized(OURS["sincere"]), labelled(pml.NTXentLoss(temperature=T)), views(k, 5, 4))


def test_two_views_make_three_losses_one_and_three_views_do_not():
    names = ["ntxent", "l_in", "sincere", "cosine_pull"]
    two, three = views(2, 5, 4), views(3, 5, 4)
    first = OURS["ntxent"](two)
    assert all(torch.allclose(OURS[name](two), first, rtol=1e-12) for name in names)
    values = torch.stack([OURS[name](three).mean() for name in names])
    assert len(values.round(decimals=3).unique()) == len(names)


def test_rince_becomes_sincere_as_q_vanishes():
    u = views(3, 5, 4)
    limit = losses.rince(u, T, 1e-7, LAMBDA)
    assert torch.allclose(limit, losses.sincere(u, T) + math.log(LAMBDA), atol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_losses_follow_images_and_notice_exchanged_partners(name):
    u = views(3, 6, 4)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    loss = OURS[name](u)
    assert torch.allclose(OURS[name](u[:, order]), loss[order], rtol=1e-12)
    exchanged = torch.stack([u[0], u[1, order], u[2]])
    assert not torch.allclose(OURS[name](exchanged), loss, rtol=1e-3)


@pytest.mark.parametrize("name", OURS)
def test_the_order_of_views_does_not_matter(name):
    u = views(3, 6, 4)
    # cosine_pull sets the first two apart from the rest, but not from one another.
    orders = [[1, 0, 2]] if name == "cosine_pull" else [[1, 0, 2], [2, 0, 1], [0, 2, 1]]
    for order in orders:
        assert torch.allclose(OURS[name](u[order]), OURS[name](u), rtol=1e-12)


SETTLED = ["ntxent", "paper", "l_in", "sincere", "dcl"]  # cosine_pull is ntxent and a cosine; rince is an exponential


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", SETTLED)
def test_losses_are_finite_at_small_temperature_and_with_large_values(name, dtype, k):
    u = (100 * views(k, 8, 16, dtype=dtype)).requires_grad_()
    loss = getattr(losses, name)(u, 0.01)
    loss.mean().backward()  # the sum's gradient is beyond float16 for `paper`, where each image's loss has all of Z
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert u.grad.isfinite().all()


@pytest.mark.parametrize("name", OURS)
def test_autocast_does_not_coarsen(name):
    u = views(3, 8, 16, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = OURS[name](u)
    assert torch.equal(inside, OURS[name](u))


@pytest.mark.parametrize(
    ("name", "value"), [("ntxent", 0.0), ("paper", 0.0), ("l_in", 0.0), ("sincere", 0.0), ("dcl", -math.inf)]
)
def test_a_single_image_has_no_negatives(name, value):
    u = views(2, 1, 4).requires_grad_()
    loss = OURS[name](u)
    loss.sum().backward()
    assert torch.allclose(loss, torch.tensor([value], dtype=torch.float64), atol=1e-12)
    assert u.grad.isfinite().all()


@pytest.mark.parametrize("k", [2, 3])
def test_the_notes_loss_falls_from_twice_log_n_to_log_n(k):
    """From all vectors equal to images that are told apart: orthogonal ones, as good as that at a low temperature."""
    n = 128
    equal, apart = torch.eye(n)[:1].expand(k, n, n), torch.eye(n).expand(k, n, n)
    assert torch.allclose(losses.paper(equal, T), torch.tensor(2 * math.log(n)))
    settled = losses.paper(apart, 0.03)
    assert torch.allclose(settled, torch.tensor(math.log(n)))
    assert 2 * math.log(n) > losses.paper(apart, T)[0] > math.log(n)


@pytest.mark.parametrize("name", OURS)
def test_a_single_view_is_refused(name):
    with pytest.raises(ValueError, match="two views"):
        OURS[name](views(1, 4, 3))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at its first derivative
@pytest.mark.parametrize("name", OURS)
def test_forward_mode_derivative_agrees_with_the_gradient(name):
    """Credit per image needs d loss_i along one direction for all i at once."""
    u, direction = views(3, 5, 3, seed=1), views(3, 5, 3, seed=2)
    _, forward = torch.func.jvp(OURS[name], (u,), (direction,))
    backward = torch.func.jacrev(OURS[name])(u)
    assert torch.allclose(forward, (backward * direction).sum(dim=(1, 2, 3)), atol=1e-12)
