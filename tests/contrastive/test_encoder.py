"""The learner gives unit vectors; looking at it leaves no trace."""

import pytest
import torch
from torch.func import functional_call, jvp

from configs.contrastive import ContrastiveConfig
from contrastive.encoder import Learner
from contrastive.evaluate import evaluating, features


@pytest.fixture
def learner():
    torch.manual_seed(0)
    return Learner(ContrastiveConfig(width=8, projection=16), 16)


def images(n, size=16, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("size", [16, 32])
def test_outputs_are_unit_vectors_of_the_configured_length(size):
    learner = Learner(ContrastiveConfig(width=8, projection=12), size)
    u = learner(images(6, size))
    assert u.shape == (6, 12)
    assert torch.allclose(u.norm(dim=1), torch.ones(6), atol=1e-6)
    assert learner.features(images(6, size)).shape == (6, 16 * (size // 4) ** 2)


def test_features_tell_where_a_stroke_is(learner):
    """An average over the last map would be equal for both images."""
    x = torch.full((2, 3, 16, 16), 0.5)  # what the padding looks like
    x[0, :, 5:7, 5:7] = images(1, 2)
    x[1] = x[0].roll(4, dims=-1)
    here, moved = learner.eval().features(x).view(2, 16, 4, 4)
    assert here.std() > 0
    assert not torch.allclose(here, moved)
    assert torch.allclose(here.roll(1, dims=-1), moved, atol=1e-6)


def test_memory_format_of_the_input_is_no_concern_of_the_caller(learner):
    x = images(6)
    assert torch.equal(learner(x), learner(x.contiguous(memory_format=torch.channels_last)))


def test_training_moves_the_buffers_and_features_do_not(learner):
    before = snapshot(learner)
    learner.projector.eval()  # a mixed mode must come back as it was
    modes = [part.training for part in learner.modules()]
    x = images(20)
    h = features(learner, x, batch=7)
    assert unchanged(learner, before)
    assert [part.training for part in learner.modules()] == modes
    assert not h.requires_grad
    assert torch.allclose(h, features(learner, x, batch=20), atol=1e-6)
    learner(x)
    assert not unchanged(learner, before)


def test_mode_and_buffers_survive_an_exception(learner):
    before = snapshot(learner)

    def fails_inside():
        with evaluating(learner):
            assert not any(part.training for part in learner.modules())
            learner(images(4))
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fails_inside()
    assert all(part.training for part in learner.modules())
    assert unchanged(learner, before)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at its first derivative
@pytest.mark.parametrize("training", [True, False])
def test_forward_mode_derivative_agrees_with_the_gradient(learner, training):
    """Credit per image differentiates the learner along one direction of its weights."""
    learner.double().train(training)
    x = images(5).double()
    weights = {name: p.detach() for name, p in learner.named_parameters()}
    buffers = {name: b.clone() for name, b in learner.named_buffers()}
    generator = torch.Generator().manual_seed(1)
    direction = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in weights.items()}

    def outputs(w):
        return functional_call(learner, (w, {k: b.clone() for k, b in buffers.items()}), (x,))

    _, tangent = jvp(outputs, (weights,), (direction,))
    leaves = {k: p.clone().requires_grad_() for k, p in weights.items()}
    probe = torch.randn(5, 16, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad((outputs(leaves) * probe).sum(), list(leaves.values()))
    inner = sum((g * direction[k]).sum() for g, k in zip(gradients, leaves, strict=True))
    assert torch.allclose((tangent * probe).sum(), inner, rtol=1e-8)
