"""Evolution strategies: exactly the estimate they claim, for any module, in parts of any size."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from configs.errors import UsageError
from configs.policy import PolicyConfig
from env.codes import CodeLaw
from env.distribution import CorruptionDistribution
from env.masks.cells import Cells
from env.masks.law import MaskDraw
from policy.evolution import Evolution, under
from policy.network import PolicyNetwork
from policy.scaling import Scaling

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Shared:
    """A law whose numbers no image has for itself: `n` is a number, `logits` are a tuple."""

    logits: tuple[torch.Tensor, ...]
    n: int

    def sample(self, generator):
        drawn = torch.randn(self.n, 1, generator=generator) + self.logits[1]
        return MaskDraw((drawn > 0).expand(self.n, 4).reshape(self.n, 2, 2), drawn)

    def ratio(self):
        return self.logits[1].sigmoid().expand(self.n)

    def probabilities(self):
        return self.logits[1].sigmoid().expand(self.n, 2, 2)


class Blind(nn.Module):
    """Looks at nothing, proposes codes, and has a buffer that nobody perturbs."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-1, 1, 3))
        self.register_buffer("one", torch.ones(()))

    def forward(self, x):
        n = len(x)
        law = Shared((self.logits[:2], self.logits[2:] * self.one), n)
        code = CodeLaw(self.logits.expand(n, 2, 3))
        return CorruptionDistribution(law, self.logits.expand(n, 3), self.logits[0].expand(n), code)


class Seeing(nn.Module):
    """Looks at brightness alone."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(-2, 2, 8))

    def forward(self, x):
        logits = x.mean(dim=(1, 2, 3))[:, None] * self.gain
        return CorruptionDistribution(Cells(logits[:, :4].view(-1, 2, 2)), logits[:, 4:7], logits[:, 7])


def network():
    torch.manual_seed(0)
    policy = PolicyNetwork(PolicyConfig(width=8, grid=2), 8)
    for parameter in policy.parameters():  # heads start at zero, and would hide the trunk
        nn.init.normal_(parameter, 0, 0.3)
    return policy


def images(n, size=8):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def evolution(policy, perturbations=4, sigma=0.1, scaling="none"):
    return Evolution(policy, perturbations, sigma, Scaling(scaling, 0.9, CPU))


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("make", [Seeing, Blind, network])
@pytest.mark.parametrize("n", [8, 10])  # whole parts; parts of three and two
def test_the_gradient_is_exactly_minus_the_estimate(make, n):
    policy, sigma = make(), 0.1
    es, x = evolution(policy, 4, sigma), images(n)
    pi = es.look(x, seeded())
    r = torch.randn(2, n, generator=seeded(2))
    loss, figures = es.loss(pi, es.draw(pi, seeded()), r, x, torch.arange(n))
    gradients = torch.autograd.grad(loss, list(policy.parameters()))
    for (name, _), gradient in zip(policy.named_parameters(), gradients, strict=True):
        expected = torch.zeros_like(gradient)
        for p, (plus, minus) in enumerate(zip(r[0].tensor_split(4), r[1].tensor_split(4), strict=True)):
            expected -= (plus.mean() - minus.mean()) * pi.noise[name][p] / (2 * 4 * sigma)
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    assert figures["reward/advantage_std"].item() == pytest.approx(((r[0] - r[1]) / 2).std().item())


@pytest.mark.parametrize("make", [Seeing, Blind, network])
@pytest.mark.parametrize("n", [8, 10])
def test_each_part_is_seen_with_weights_of_its_own(make, n):
    policy = make()
    es, x = evolution(policy), images(n)
    pi = es.look(x, seeded())
    for sign, side in ((1, pi.plus), (-1, pi.minus)):
        for p, part in enumerate(x.tensor_split(4)):
            other = make()
            with torch.no_grad():
                for name, weight in other.named_parameters():
                    weight += sign * 0.1 * pi.noise[name][p]
                expected = other(part).probabilities()
            assert len(side[p].decolorize_logits) == len(part)
            for name, value in side[p].probabilities().items():
                assert torch.allclose(value, expected[name], atol=1e-5), name
                assert not value.requires_grad
    assert not torch.equal(pi.plus[0].downsample_logits[0], pi.plus[1].downsample_logits[0])


def test_pi_itself_is_that_of_the_weights_as_they_are_and_differentiable():
    policy, x = Seeing(), images(8)
    pi, plain = evolution(policy).look(x, seeded()), policy(x)
    for name, value in plain.probabilities().items():
        assert torch.equal(pi.probabilities()[name], value)
    assert torch.equal(pi.mask_ratio(), plain.mask_ratio())
    (gradient,) = torch.autograd.grad(pi.entropy().mean(), policy.gain)
    assert gradient.norm() > 0


@pytest.mark.parametrize("make", [Seeing, Blind])
def test_both_signs_are_drawn_from_the_same_random_numbers(make):
    policy, x = make(), images(10)
    pi = evolution(policy, sigma=1e-6).look(x, seeded())
    es, random = evolution(policy), seeded()
    plus, minus = es.draw(pi, random)
    assert len(plus) == 10
    assert torch.equal(plus.mask, minus.mask)
    assert torch.equal(plus.downsample, minus.downsample)
    again = es.draw(pi, random)[0]  # but the next draw is another
    assert not torch.equal(again.mask, plus.mask)
    far = es.draw(evolution(policy, sigma=3.0).look(x, seeded()), seeded())
    assert not torch.equal(far[0].mask, far[1].mask)
    assert (plus.drawn is None) == (plus.code is None) == (make is Seeing)
    if plus.code is not None:
        assert plus.code.shape == (10, 2, 3)
        assert plus.drawn.shape == (10, 1)


def test_the_estimate_is_unbiased_for_a_linear_reward():
    """R(θ) = <c, θ>: then each direction's estimate is <c, ε> ε, whose mean is c."""
    policy = Seeing()
    es, x = evolution(policy, 256), images(256)
    c = torch.linspace(1, -1, 8)
    total = torch.zeros(8)
    for step in range(8):
        pi = es.look(x, seeded(step))
        rise = es.sigma * pi.noise["gain"] @ c
        loss, _ = es.loss(pi, [], torch.stack([rise, -rise]), x, torch.arange(256))
        total -= torch.autograd.grad(loss, policy.gain)[0] / 8
    assert torch.allclose(total, c, atol=0.2)


def test_scaling_divides_half_differences():
    policy, x = Seeing(), images(8)
    r = torch.randn(2, 8, generator=seeded(2))
    pi = evolution(policy).look(x, seeded())
    losses = [evolution(policy, scaling=kind).loss(pi, [], r, x, torch.arange(8))[0] for kind in ("none", "rms")]
    rms = ((r[0] - r[1]) / 2).square().mean().sqrt()
    assert losses[1].item() == pytest.approx(losses[0].item() / rms.item(), rel=1e-4)


def test_more_perturbations_than_images_are_refused():
    with pytest.raises(UsageError, match=r"--policy.perturbations 9 .*\n?.*--schedule.batch 8"):
        evolution(Seeing(), 9).look(images(8), seeded())


def test_all_at_once_equals_one_by_one():
    policy = network()
    weights = {name: torch.stack([w, 0.5 * w, -w]) for name, w in policy.named_parameters()}
    parts = images(6).chunk(3)
    with torch.no_grad():
        together = under(policy, weights, parts)
        ragged = under(policy, weights, [*parts[:2], torch.cat([parts[2], parts[2]])])
    for one, other in itertools.islice(zip(together, ragged, strict=True), 2):
        assert torch.allclose(one.mask.logits, other.mask.logits, atol=1e-5)
    assert torch.allclose(together[2].mask.logits, ragged[2].mask.logits[:2], atol=1e-5)
