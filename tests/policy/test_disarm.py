"""DisARM is right: enumerated over every pair of actions, its mean is the gradient of the expected reward."""

import itertools

import pytest
import torch

from env.codes import CodeLaw
from env.corruption import Action
from env.distribution import CorruptionDistribution
from env.masks.cells import Cells
from policy.disarm import DisARM, antithetic_bits
from policy.scaling import Scaling

CPU = torch.device("cpu")
BITS = 5  # a 2 x 2 grid and decolorization


def distribution(bits, factors, n):
    """One image's logits, n times over."""
    return CorruptionDistribution(Cells(bits[:4].expand(n, 4).view(n, 2, 2)), factors.expand(n, 3), bits[4].expand(n))


def action(bits, factor):
    return Action(bits[:, :4].reshape(-1, 2, 2).bool(), factor, bits[:, 4].bool())


def reward(table, bits, factor):
    """A number of its own for each of the 2^5 x 3 actions."""
    return table[(bits * 2 ** torch.arange(BITS)).sum(dim=1), factor]


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    bits = torch.randn(BITS, generator=generator, dtype=torch.float64).requires_grad_()
    factors = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    return bits, factors, torch.randn(2**BITS, 3, generator=generator, dtype=torch.float64)


def true_gradient(bits, factors, table):
    rows = torch.tensor([(*row, c) for *row, c in itertools.product(*[(0, 1)] * BITS, range(3))])
    log_p = distribution(bits, factors, len(rows)).log_prob(action(rows[:, :BITS], rows[:, BITS]))
    expected = (log_p.exp() * reward(table, rows[:, :BITS], rows[:, BITS])).sum()
    return torch.cat(torch.autograd.grad(expected, (bits, factors)))


def test_expected_gradient_equals_exact_enumeration(problem):
    bits, factors, table = problem
    pairs = list(itertools.product((0, 1), (0, 1)))
    rows = torch.tensor(
        [
            [*(b for b, _ in drawn), *(m for _, m in drawn), c, d]
            for *drawn, c, d in itertools.product(*[pairs] * BITS, range(3), range(3))
        ]
    )
    b, mirrored, c, d = rows[:, :BITS], rows[:, BITS : 2 * BITS], rows[:, -2], rows[:, -1]
    p, q = bits.detach().sigmoid(), factors.detach().softmax(dim=0)
    both, none = (2 * p - 1).clamp(min=0), (1 - 2 * p).clamp(min=0)
    either = torch.minimum(p, 1 - p)
    chance = torch.where(b != mirrored, either, torch.where(b == 1, both, none)).prod(dim=1) * q[c] * q[d]
    assert len(rows) == 4**BITS * 9
    assert chance.sum().item() == pytest.approx(1)

    n = len(rows)
    disarm = DisARM(torch.nn.Identity(), Scaling("none", 0.9, CPU))
    r = torch.stack([reward(table, b, c), reward(table, mirrored, d)])
    # The loss is a mean over images and linear in their rewards, so that rewards can carry the chances.
    pi, images = distribution(bits, factors, n), torch.zeros(n, 3, 2, 2)
    loss, _ = disarm.loss(pi, [action(b, c), action(mirrored, d)], n * chance * r, images, torch.arange(n))
    expected = -torch.cat(torch.autograd.grad(loss, (bits, factors)))
    truth = true_gradient(bits, factors, table)
    assert truth.norm() > 0.1
    assert torch.allclose(expected, truth, rtol=0, atol=1e-14)


def test_pairs_have_the_right_rates_and_differ_as_often_as_they_can():
    p = torch.tensor([0.0, 0.1, 0.5, 0.8, 1.0])
    generator = torch.Generator().manual_seed(0)
    bit, mirrored = antithetic_bits(p.logit().expand(40_000, 5), generator)
    for drawn in (bit, mirrored):
        assert torch.allclose(drawn.float().mean(dim=0), p, atol=0.01)
        assert not drawn[:, 0].any()
        assert drawn[:, 4].all()
    assert torch.allclose((bit != mirrored).float().mean(dim=0), 2 * torch.minimum(p, 1 - p), atol=0.01)
    assert (bit != mirrored)[:, 2].all()


def test_factors_of_a_pair_are_independent(problem):
    bits, factors, _ = problem
    pi = distribution(bits, factors, 40_000)
    first, second = DisARM(torch.nn.Identity(), Scaling("none", 0.9, CPU)).draw(pi, torch.Generator().manual_seed(0))
    q = factors.detach().softmax(dim=0).float()
    joint = torch.zeros(3, 3).index_put_((first.downsample, second.downsample), torch.tensor(1.0), accumulate=True)
    assert torch.allclose(joint / 40_000, q[:, None] * q, atol=0.01)


def test_anything_but_bits_is_refused(problem):
    bits, factors, _ = problem
    pi = distribution(bits, factors, 2)
    proposing = CorruptionDistribution(
        pi.mask, pi.downsample_logits, pi.decolorize_logits, CodeLaw(torch.zeros(2, 2, 3))
    )
    with pytest.raises(ValueError, match="independent bits"):
        DisARM(torch.nn.Identity(), Scaling("none", 0.9, CPU)).draw(proposing, torch.Generator())
