"""Every estimator, with every baseline, follows the true gradient, learns what pays, and survives a checkpoint."""

import itertools

import pytest
import torch
from torch import nn

from configs.policy import PolicyConfig
from configs.reward import RewardConfig
from env.corruption import Action
from env.distribution import CorruptionDistribution
from env.masks.cells import Cells
from policy.baseline import Greedy, LeaveOneOut
from policy.estimator import Estimator, ScoreFunction, build
from policy.scaling import Scaling
from training import structure

CPU = torch.device("cpu")
BASELINES = ["none", "ema", "batch", "critic", "table", "rloo:2", "rloo:4", "greedy"]
NAMES = [*BASELINES, "disarm", "evolution"]
IMAGES = 64
"""Training images; one in two is bright."""


class Small(nn.Module):
    """Logits common to all images, and what brightness adds to them: 4 cells, 3 factors, 1 bit for color."""

    def __init__(self, spread=0.5):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.common = nn.Parameter(spread * torch.randn(8, generator=draw))
        self.gain = nn.Parameter(spread * torch.randn(8, generator=draw))

    def forward(self, x):
        side = 2 * (x.mean(dim=(1, 2, 3)) > 0.5).to(self.gain) - 1
        logits = self.common + side[:, None] * self.gain
        return CorruptionDistribution(Cells(logits[:, :4].view(-1, 2, 2)), logits[:, 4:7], logits[:, 7])


def shown(rows):
    """Images whose left half is dark or whose whole is bright; which of the two tells all there is to know."""
    x = torch.full((len(rows), 3, 4, 4), 0.9)
    x[rows % 2 == 0, :, :, :3] = 0.1
    return x


def every_action():
    rows = torch.tensor([*itertools.product(*[(0, 1)] * 4, range(3), (0, 1))])
    return Action(rows[:, :4].view(-1, 2, 2).bool(), rows[:, 4], rows[:, 5].bool())


def index(action):
    """Which of `every_action` it is."""
    bits = (action.mask.flatten(1) * 2 ** torch.arange(3, -1, -1)).sum(dim=1)
    return (bits * 3 + action.downsample) * 2 + action.decolorize


TABLE = torch.randn(2, 96, generator=torch.Generator().manual_seed(1)) + torch.tensor([[-1.0], [2.0]])
"""What each action earns on a dark and on a bright image."""


def new(name, policy, scaling="rms", **settings):
    estimator, baseline = ("reinforce", name) if name in BASELINES else (name, "auto")
    return build(
        policy,
        PolicyConfig(grid=2, width=8, estimator=estimator, **settings),
        RewardConfig(baseline=baseline, scaling=scaling),
        images=IMAGES,
        image_size=4,
        device=CPU,
        seed=0,
    )


def turn(estimator, rows, reward, random):
    x = shown(rows)
    pi = estimator.look(x, random)
    a = estimator.draw(pi, random)
    r = torch.stack([reward(rows, action) for action in a])
    return estimator.loss(pi, a, r, x, rows)


def gradient(value, policy):
    return torch.cat(torch.autograd.grad(value, (policy.common, policy.gain)))


def agreed(rows, action):
    """The reward of the table."""
    return TABLE[rows % 2, index(action)]


def true_gradient(policy, table=TABLE):
    total = 0.0
    for row in (0, 1):
        pi = policy(shown(torch.full((96,), row)))
        total = total + (pi.log_prob(every_action()).exp() * table[row]).sum() / 2
    return gradient(total, policy)


@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_points_along_the_true_gradient(name):
    policy, random = Small(), torch.Generator().manual_seed(0)
    estimator = new(name, policy, perturbations=64, sigma=0.3)
    # A table wants no image twice in a batch; a perturbation says little, and that about many directions at once.
    repeats, turns = {"table": (1, 128), "evolution": (128, 12)}.get(name, (128, 2))
    total = torch.zeros(16)
    for _ in range(turns):
        loss, _ = turn(estimator, torch.arange(IMAGES).repeat(repeats), agreed, random)
        total -= gradient(loss, policy)
    assert torch.cosine_similarity(total, true_gradient(policy), dim=0) > 0.9


@pytest.mark.parametrize(("baseline", "samples"), [(LeaveOneOut(), 2), (Greedy(), 1)])
def test_comparisons_are_unbiased(baseline, samples):
    """Enumerated: every pair of actions for leave-one-out, every action against the most probable for greedy."""
    policy = Small().double()
    greedy = isinstance(baseline, Greedy)
    estimator = ScoreFunction(policy, baseline, Scaling("none", 0.9, CPU), samples, greedy)
    actions, table, expected = every_action(), TABLE.double(), torch.zeros(16, dtype=torch.float64)
    for row in (0, 1):
        p = policy(shown(torch.full((96,), row))).log_prob(actions).exp().detach()
        drawn = [torch.arange(96)]
        if greedy:
            one = policy(shown(torch.full((1,), row)))
            drawn, chance = [*drawn, index(one.mode()).expand(96)], p
        else:
            drawn = [part.flatten() for part in torch.meshgrid(drawn[0], drawn[0], indexing="ij")]
            chance = p[drawn[0]] * p[drawn[1]]
        n = len(chance)
        rows = torch.full((n,), row)
        # The loss is a mean over images and linear in their rewards, so that rewards can carry the chances.
        r = torch.stack([n * chance * table[row, i] for i in drawn])
        x = shown(rows)
        loss, _ = estimator.loss(policy(x), [actions.select(i) for i in drawn], r, x, rows)
        expected -= gradient(loss, policy) / 2
    assert torch.allclose(expected, true_gradient(policy, table), rtol=0, atol=1e-13)


def test_greedy_draws_the_most_probable_corruption_second():
    policy = Small()
    estimator = new("greedy", policy)
    pi = estimator.look(shown(torch.arange(32)), torch.Generator())
    drawn, mode = estimator.draw(pi, torch.Generator().manual_seed(0))
    assert torch.equal(index(mode), index(pi.mode()))
    assert not torch.equal(index(mode), index(drawn))


@pytest.mark.parametrize("scaling", ["rms", "quantiles"])
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_a_planted_bandit(name, scaling):
    """Bright images want half of their cells hidden and no color; dark ones the other half, and all of their color."""
    policy, random = Small(0.0), torch.Generator().manual_seed(0)
    estimator = new(name, policy, scaling, perturbations=8, sigma=0.2)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    half = torch.tensor([[True, True], [False, False]])

    def reward(rows, a):
        bright = rows % 2 == 1
        right = (a.mask == (half == bright[:, None, None])).sum(dim=(1, 2)) + (a.decolorize == bright).float()
        return 1e-3 * (right + 2 * (a.downsample == 1) + 3 * bright)

    for _ in range(100):
        loss, _ = turn(estimator, torch.randperm(IMAGES, generator=random), reward, random)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pi = policy(shown(torch.tensor([0, 1])))
    best = pi.mode()
    assert torch.equal(best.mask, torch.stack([~half, half]))
    assert best.downsample.tolist() == [1, 1]
    assert best.decolorize.tolist() == [False, True]
    assert pi.log_prob(best).exp().min() > 0.15  # 1/96 at the start


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_estimator_goes_on_bit_for_bit(name):
    policy = Small()
    going, restored = (new(name, policy, "quantiles" if name == "rloo:2" else "rms") for _ in range(2))
    assert isinstance(going, Estimator)

    def losses(estimator, steps):
        turns = (
            turn(estimator, torch.arange(IMAGES), agreed, random)
            for random in (torch.Generator().manual_seed(step) for step in steps)
        )
        return torch.stack([torch.stack([loss.detach(), figures["reward/advantage_std"]]) for loss, figures in turns])

    losses(going, range(3))
    restored.load_state_dict(structure.join(*structure.split(going.state_dict())))  # as a checkpoint does
    known = losses(going, range(3, 6))
    assert torch.equal(known, losses(restored, range(3, 6)))
    assert not torch.equal(known, losses(new(name, policy), range(3, 6)))  # it is not as if nothing had been


def test_critics_of_equal_seeds_are_equal_whatever_was_drawn_before():
    x = shown(torch.arange(4))
    states = []
    for drawn in (3, 7):
        torch.manual_seed(drawn)
        critic = new("critic", Small()).baseline.critic
        states.append(critic.trunk(x)[1])
    assert torch.equal(*states)
