"""REINFORCE is right: enumerated over every action, its mean is the gradient of the expected reward."""

import itertools

import pytest
import torch

from configs.policy import PolicyConfig
from env.corruption import Action
from env.distribution import CorruptionDistribution
from env.masks.cells import Cells
from policy.network import PolicyNetwork
from policy.reinforce import advantage, ratio_penalty, reinforce_loss


def all_actions(grid):
    bits = list(itertools.product([False, True], repeat=grid * grid))
    rows = list(itertools.product(bits, range(3), [False, True]))
    return Action(
        mask=torch.tensor([row[0] for row in rows]).view(-1, grid, grid),
        downsample=torch.tensor([row[1] for row in rows]),
        decolorize=torch.tensor([row[2] for row in rows]),
    )


class Problem:
    """One image, every action, an arbitrary reward for each."""

    def __init__(self, grid, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shapes = ((1, grid, grid), (1, 3), (1,))
        self.logits = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
        for part in self.logits:
            part.requires_grad_()
        actions = all_actions(grid)
        n = len(actions)
        mask, factor, gray = (part.expand(n, *part.shape[1:]) for part in self.logits)
        pi = CorruptionDistribution(Cells(mask), factor, gray)
        self.log_p = pi.log_prob(actions)  # (n,)
        self.p = self.log_p.exp().detach()
        self.reward = torch.randn(n, generator=generator, dtype=torch.float64)

    def gradient(self, value):
        parts = torch.autograd.grad(value, self.logits, retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    def true_gradient(self):
        return self.gradient((self.log_p.exp() * self.reward).sum())


@pytest.mark.parametrize("baseline", [0.0, 3.7, torch.tensor(-1.3, dtype=torch.float64)])
def test_expected_gradient_equals_exact_enumeration(baseline):
    problem = Problem(grid=2)
    expected = sum(
        p * problem.gradient(reinforce_loss(log_p[None], advantage(r[None], baseline)))
        for p, log_p, r in zip(problem.p, problem.log_p, problem.reward, strict=True)
    )
    assert len(problem.p) == 16 * 3 * 2
    assert problem.true_gradient().norm() > 0.1
    assert torch.allclose(-expected, problem.true_gradient(), rtol=0, atol=1e-13)  # the one change of sign


@pytest.mark.parametrize("n", [2, 3])
def test_a_batch_mean_that_includes_the_sample_shrinks_the_gradient(n):
    problem = Problem(grid=1)
    expected = torch.zeros(5, dtype=torch.float64)
    for drawn in itertools.product(range(len(problem.p)), repeat=n):
        index = torch.tensor(drawn)
        reward = problem.reward[index]
        loss = reinforce_loss(problem.log_p[index], advantage(reward, reward.mean()))
        expected -= problem.p[index].prod() * problem.gradient(loss)
    shrunk = (n - 1) / n * problem.true_gradient()
    assert torch.allclose(expected, shrunk, rtol=0, atol=1e-13)


def test_a_shared_reward_minus_its_own_mean_teaches_nothing():
    problem = Problem(grid=1)
    reward = torch.full((12,), 0.7, dtype=torch.float64)
    loss = reinforce_loss(problem.log_p, advantage(reward, reward.mean()))
    assert torch.allclose(problem.gradient(loss), torch.zeros(5, dtype=torch.float64), atol=1e-15)


def test_no_gradient_flows_through_the_advantage():
    reward = torch.ones(4, requires_grad=True)
    log_prob = torch.full((4,), -1.0, requires_grad=True)
    assert not advantage(reward, 0.0).requires_grad
    reinforce_loss(log_prob, reward).backward()
    assert reward.grad is None
    assert torch.equal(log_prob.grad, torch.full((4,), -0.25))


def test_ratio_penalty_is_zero_inside_the_range_and_pulls_back_outside():
    ratio = torch.tensor([0.0, 0.2, 0.3, 0.5, 0.9], requires_grad=True)
    penalty = ratio_penalty(ratio, 0.2, 0.5)
    penalty.sum().backward()
    assert torch.allclose(penalty, torch.tensor([0.04, 0.0, 0.0, 0.0, 0.16]))
    assert torch.allclose(ratio.grad, torch.tensor([-0.4, 0.0, 0.0, 0.0, 0.8]))
    assert ratio_penalty(torch.tensor([0.4]), 0.3, 0.3).item() == pytest.approx(0.01)


def bandit(n, generator):
    """Images whose bright cells are the ones to hide, and whose reddish tint asks for decolorization."""
    best_mask = torch.rand(n, 4, 4, generator=generator) < 0.5
    best_decolorize = torch.rand(n, generator=generator) < 0.5
    x = best_mask.float().repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].repeat(1, 3, 1, 1)
    x = 0.2 + 0.4 * x + 0.1 * torch.rand(n, 3, 16, 16, generator=generator)
    x[:, 0] += 0.2 * best_decolorize.float()[:, None, None]
    return x, best_mask, best_decolorize


def test_the_policy_learns_a_planted_bandit():
    """A known best action that depends on the image, paid for by agreement alone."""
    torch.manual_seed(0)
    policy = PolicyNetwork(PolicyConfig(), image_size=16)
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        x, best_mask, best_decolorize = bandit(128, generator)
        pi = policy(x)
        action = pi.sample(generator)
        reward = (action.mask == best_mask).float().sum(dim=(1, 2)) / 4
        reward += (action.decolorize == best_decolorize).float() + (action.downsample == 2).float()
        loss = reinforce_loss(pi.log_prob(action), advantage(reward, reward.mean()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()

    x, best_mask, best_decolorize = bandit(512, generator)
    with torch.no_grad():
        mode = policy(x).mode()
    assert (mode.mask == best_mask).float().mean() > 0.95
    assert (mode.decolorize == best_decolorize).float().mean() > 0.95
    assert (mode.downsample == 2).float().mean() > 0.95
