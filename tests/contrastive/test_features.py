"""Looking at a learner leaves no trace, and a trace is found."""

import pytest
import torch
from torch import nn

from configs.contrastive import ContrastiveConfig
from configs.errors import UsageError
from contrastive import features as looking
from contrastive.encoder import Learner
from contrastive.features import BATCH, digest, encoded, evaluating, features, fingerprints, projections, unchanged
from env.images import ImageSet


class Restless(Learner):
    """Counts its calls in a buffer, in evaluation mode as well."""

    def __init__(self):
        super().__init__(ContrastiveConfig(width=8, projection=16), 16)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def features(self, x):
        self.calls += 1
        return super().features(x)


@pytest.fixture
def learner():
    torch.manual_seed(0)
    return Learner(ContrastiveConfig(width=8, projection=16), 16)


def images(n, seed=0):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("space", [features, projections])
def test_any_batch_gives_the_same_vectors_and_leaves_no_trace(learner, space, monkeypatch):
    learner.projector.eval()  # a mixed mode must come back as it was
    modes = [part.training for part in learner.modules()]
    whole = space(learner, images(20))
    monkeypatch.setattr(looking, "BATCH", 7)
    with unchanged(learner):
        z = space(learner, images(20))
    assert [part.training for part in learner.modules()] == modes
    assert not z.requires_grad
    assert torch.allclose(z, whole, atol=1e-6)


@pytest.mark.parametrize("space", [features, projections])
def test_an_image_set_is_encoded_part_by_part(learner, space, monkeypatch):
    pixels = (images(BATCH + 3) * 255).to(torch.uint8)
    some, floats, asked = ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.long)), [], ImageSet.images
    expected = space(learner, some.images())

    def spied(self, index=None):
        floats.append(asked(self, index))
        return floats[-1]

    monkeypatch.setattr(ImageSet, "images", spied)
    assert torch.equal(encoded(space, learner, some), expected)
    assert [len(part) for part in floats] == [BATCH, 3]


def test_features_and_projections_are_the_learners(learner):
    learner.eval()
    x = images(5)
    assert torch.equal(features(learner, x), learner.features(x).detach())
    assert torch.equal(projections(learner, x), learner(x).detach())
    assert torch.allclose(projections(learner, x).norm(dim=1), torch.ones(5), atol=1e-6)


def test_a_mode_survives_an_exception(learner):
    learner.projector.eval()
    modes = [part.training for part in learner.modules()]

    def fails_inside():
        with evaluating(learner):
            assert not any(part.training for part in learner.modules())
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fails_inside()
    assert [part.training for part in learner.modules()] == modes


def test_training_mode_is_a_trace(learner):
    message = r"changed by being looked at: encoder\.1\.running_mean and 8 more"
    with pytest.raises(UsageError, match=message), unchanged(learner):
        learner(images(4))


def test_a_buffer_that_moves_in_evaluation_mode_is_a_trace():
    learner = Restless()
    with pytest.raises(UsageError, match="looked at: calls"), unchanged(learner):
        features(learner, images(4))


@torch.no_grad()
def test_the_last_bit_of_a_weight_is_a_trace(learner):
    weight = learner.projector[0].bias
    before = digest(learner)
    with pytest.raises(UsageError, match=r"looked at: projector\.0\.bias\. "), unchanged(learner):
        weight[3] = torch.nextafter(weight[3], torch.tensor(9.0))
    assert digest(learner) != before


def test_values_that_are_not_finite_and_bfloat16_are_compared_by_their_bits(learner):
    odd = nn.Linear(3, 2).bfloat16()
    nn.init.constant_(odd.weight, float("nan"))
    with unchanged(odd):
        pass
    assert fingerprints(odd).keys() == {"weight", "bias"}
    assert digest(odd) == digest(odd) != digest(learner)
