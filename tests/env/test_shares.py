"""The shares on the real digits system: precise, and along the step that the optimizer then takes."""

import pytest
import torch
from torch.func import jvp

from configs.reading import read
from configs.run import RunConfig
from env import rewards
from env.credit import BOUND, bounded, credit_shares
from env.rewards import ImageSlope
from system import System
from training.seeding import generator_at

CPU = torch.device("cpu")
# torch's own, at its first derivative:
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")


def correlation(a, b):
    return torch.cosine_similarity(a - a.mean(), b - b.mean(), dim=0).item()


class Probe(rewards.Stateless):
    """Runs the reward at one step, and finds the exact derivatives at the same weights."""

    def __init__(self, reward):
        self.reward = reward

    def before(self, moment):
        self.reward.before(moment)
        self.at = [w.detach().clone() for w in moment.weights]
        self.gradient = [g / self.reward.weight for g in self.reward.gradient]
        self.raw = [d.clone() for d in moment.precondition(self.gradient)]

    def after(self, moment):
        r = self.reward.after(moment)
        self.shares = r[0] / self.reward.step_size
        self.exact = self.along(moment, bounded(self.raw))
        self.stepped = self.along(moment, moment.precondition(self.gradient))  # P has seen the step's own gradient
        return r

    def along(self, moment, direction):
        with torch.no_grad():
            return jvp(moment.judged[0].per_image, (self.at,), (list(direction),))[1]


@pytest.fixture(scope="module")
def points():
    """What the reward pays at two points of a short training, and what it should."""
    s = System(read(RunConfig, ["--device", "cpu", "--data", "digits"], prog="test", description=""), CPU)
    seen = {}
    for step in range(13):
        random = generator_at(0, step, "test", CPU)
        rows = s.world.rows(step)
        s.engine.reward = probe = Probe(s.reward) if step in (5, 12) else s.reward
        s.world.act(rows, s.world.prior(len(rows), random), step)
        if probe is not s.reward:
            seen[step] = probe
    return seen


@pytest.mark.parametrize("step", [5, 12])
def test_the_reward_is_the_derivative_of_each_images_loss(points, step):
    probe = points[step]
    assert correlation(probe.shares, probe.exact) > 0.998
    assert (probe.shares - probe.exact).norm() / probe.exact.norm() < 0.1
    assert len(probe.shares.unique()) > 120  # of 128: not lost in rounding


@pytest.mark.parametrize("step", [5, 12])
def test_the_reward_goes_by_the_step_that_the_optimizer_then_takes(points, step):
    probe = points[step]
    assert correlation(probe.shares, probe.stepped) > 0.995


def test_early_directions_do_have_wild_entries(points):
    """Or the tests above would not ask for much."""
    assert max(d.abs().max() for d in points[5].raw) > 1000 * BOUND


def test_what_is_not_wild_is_left_alone():
    direction = [torch.tensor([0.0, -9.5, 1e-3]), torch.tensor([[-torch.inf, 1e6]])]
    first, second = bounded(direction)
    assert torch.equal(first, direction[0])
    assert second.tolist() == [[-BOUND, BOUND]]


def test_no_wild_entry_reaches_the_image_reward():
    """A weight that P magnifies beyond measure, and that the losses hardly depend on, changes nothing."""
    weights = [torch.zeros(2, requires_grad=True)]
    slopes = torch.tensor([[1.0, 1e-6], [-2.0, 1e-6], [0.5, 1e-6]])
    moment = rewards.Moment(
        [rewards.Judged(torch.zeros(3), lambda w: slopes @ w[0])],
        lambda: weights[0].sum(),
        weights,
        lambda gradient: [g * torch.tensor([1.0, 1e8]) for g in gradient],
        lambda: torch.tensor(0.0),
    )
    reward = ImageSlope(weights, 0.9, 1.0)
    reward.before(moment)
    assert torch.allclose(reward.after(moment)[0], slopes[:, 0], atol=1e-4)


def test_a_share_does_not_depend_on_the_directions_length():
    slopes = torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
    paid = [
        credit_shares(lambda w: slopes @ w[0], [torch.zeros(2)], [d], torch.zeros(2)) / d[0]
        for d in (torch.tensor([1e-8, 1e-8]), torch.tensor([1e4, 1e4]))
    ]
    assert torch.allclose(paid[0], paid[1], rtol=1e-4)
