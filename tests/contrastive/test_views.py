"""The learner chooses the pair that a slow search over all pairs would choose, and the look leaves no trace."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from configs.contrastive import ContrastiveConfig
from configs.views import ViewsConfig
from contrastive.contrast import Contrast
from contrastive.encoder import Learner
from contrastive.losses import ntxent
from contrastive.views import Choice, highest_loss, least_similar

K, N = 4, 6


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def vectors(k=K, n=N, d=5, seed=0):
    return F.normalize(torch.randn(k, n, d, generator=drawn(seed)), dim=-1)


def test_the_least_similar_pair_is_found():
    u = vectors()
    chosen = least_similar(u)
    for image in range(N):
        pairs = list(itertools.combinations(range(K), 2))
        cosines = [float(u[a, image] @ u[b, image]) for a, b in pairs]
        assert tuple(chosen[:, image].tolist()) == pairs[cosines.index(min(cosines))]


def test_the_hardest_pair_is_found():
    """Each pair of views is judged with the other images in the same two views as negatives."""
    u = vectors(n=40, seed=3)
    chosen = highest_loss(u, lambda pair: ntxent(pair, 0.2))
    pairs = list(itertools.combinations(range(K), 2))
    losses = torch.stack([ntxent(u[list(pair)], 0.2) for pair in pairs])
    for image in range(40):
        assert tuple(chosen[:, image].tolist()) == pairs[int(losses[:, image].argmax())]
    assert not torch.equal(chosen, least_similar(u))  # negatives matter, too


@pytest.mark.parametrize("choose", [least_similar, lambda u: highest_loss(u, lambda pair: ntxent(pair, 0.2))])
def test_two_views_are_a_pair(choose):
    assert choose(vectors(k=2)).tolist() == [[0] * N, [1] * N]


@pytest.fixture
def learner():
    torch.manual_seed(0)
    return Learner(ContrastiveConfig(width=8, projection=16), 16)


def choice(learner, **settings):
    config = ContrastiveConfig(width=8, projection=16)
    return Choice(learner, Contrast(config, 50), ViewsConfig(**settings))


def candidates(k=K, size=16):
    """The last view of each image is another image; the others are nearly the same."""
    x = torch.rand(1, N, 3, size, size, generator=drawn(1)).repeat(k, 1, 1, 1, 1)
    x[-1] = torch.rand(N, 3, size, size, generator=drawn(2))
    return (x + 0.01 * torch.randn(x.shape, generator=drawn(3))).clamp(0, 1)


@pytest.mark.parametrize("name", ["most-different", "hard"])
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("coarse", [False, True])
def test_the_odd_view_is_always_in_the_pair(learner, name, scale, coarse):
    v = candidates()
    pair = choice(learner, name=name, scoring_scale=scale, scoring_bfloat16=coarse)(v, torch.arange(N))
    assert pair.shape == (2, N, 3, 16, 16)
    assert torch.equal(pair[1], v[-1])
    assert not torch.equal(pair[0], v[-1])


def test_the_look_leaves_no_trace(learner):
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    u = choice(learner, name="hard").look(candidates())
    assert not u.requires_grad
    assert learner.training
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert torch.allclose(u, learner(candidates().flatten(0, 1)).unflatten(0, (K, N)), atol=1e-6)
    assert not torch.equal(learner.state_dict()["encoder.1.running_mean"], before["encoder.1.running_mean"])
