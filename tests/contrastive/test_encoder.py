"""The learner gives unit vectors, whatever its backbone; looking at it leaves no trace."""

import pytest
import torch
from torch.func import functional_call, jvp

from configs.contrastive import ContrastiveConfig
from configs.errors import UsageError
from contrastive import backbones
from contrastive.encoder import Learner, simclr_projector
from contrastive.features import evaluating


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


def test_the_default_is_as_it_always_was():
    """Three convolutions, then two layers, drawn in this order; checkpoints and tables depend on it."""
    torch.manual_seed(5)
    learner = Learner(ContrastiveConfig(width=8, projection=16), 16)
    torch.manual_seed(5)
    encoder = backbones.small(8, 16)
    projector = torch.nn.Sequential(torch.nn.Linear(256, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
    parts = {"encoder": encoder.state_dict(), "projector": projector.state_dict()}
    expected = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
    assert list(learner.state_dict()) == list(expected)
    assert unchanged(learner, expected)
    x = (2 * images(6) - 1).contiguous(memory_format=torch.channels_last)
    assert torch.equal(learner(images(6)), torch.nn.functional.normalize(projector(encoder(x)), dim=-1))


def test_a_resnet_has_the_projector_of_simclr():
    learner = Learner(ContrastiveConfig(encoder="resnet18", projection=24), 32)
    first, norm, _, last = learner.projector
    assert [first.in_features, norm.num_features, last.out_features] == [512, 512, 24]
    assert first.bias is None
    assert last.bias is None
    assert learner.feature_length == 512
    u = learner(images(4, 32))
    assert u.shape == (4, 24)
    assert torch.allclose(u.norm(dim=1), torch.ones(4), atol=1e-6)


def test_the_hidden_layer_of_a_projector_is_bounded():
    assert simclr_projector(4096, 8)[0].out_features == 2048


@pytest.mark.parametrize("encoder", ["small", "resnet18"])
def test_smaller_images_are_judged_by_the_same_learner(encoder):
    learner = Learner(ContrastiveConfig(encoder=encoder, width=8, projection=12), 32).eval()
    with torch.no_grad():
        assert [learner(images(2, side)).shape for side in (16, 8)] == [(2, 12), (2, 12)]


def test_an_encoder_of_one_size_says_so():
    pytest.importorskip("timm")
    learner = Learner(ContrastiveConfig(encoder="timm:vit_tiny_patch16_224"), 32)
    with pytest.raises(ValueError, match="takes only images of 32 pixels a side, got 16"):
        learner(images(2, 16))


def test_an_encoder_that_cannot_take_the_images_is_refused_at_once():
    with pytest.raises(UsageError, match="alexnet cannot take images of 32"):
        Learner(ContrastiveConfig(encoder="alexnet"), 32)


def test_every_chunk_has_the_two_rows_that_batchnorm_needs():
    learner = Learner(ContrastiveConfig(encoder="resnet18", chunk=1), 16)
    assert learner(images(9)).isfinite().all()


@pytest.mark.parametrize(("rows", "sizes"), [(16, [16]), (17, [9, 8]), (40, [14, 13, 13])])
def test_chunks_hold_two_rows_for_each_image(rows, sizes):
    learner = Learner(ContrastiveConfig(width=8, chunk=8), 16)
    seen = []
    learner.encoder[0].register_forward_hook(lambda part, given, out: seen.append(len(given[0])))
    learner(images(rows)).sum().backward()
    replayed = sizes[::-1] if len(sizes) > 1 else []  # a batch that fits is not embedded again
    assert seen == sizes + replayed
    seen.clear()
    with torch.no_grad():
        learner(images(rows))
    assert seen == sizes


def test_in_evaluation_mode_the_batch_is_whole_so_that_a_later_mode_does_not_matter():
    learner, x = Learner(ContrastiveConfig(width=8, chunk=2), 16), images(12)
    learner(x)
    with evaluating(learner):
        u = learner(x)
    assert learner.training
    found = torch.autograd.grad((u * x[:, 0, 0, :1]).sum(), list(learner.parameters()))
    wanted = torch.autograd.grad((learner.eval()(x) * x[:, 0, 0, :1]).sum(), list(learner.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_chunked_and_whole_gradients_agree_where_batchnorm_is_still():
    torch.manual_seed(0)
    whole = Learner(ContrastiveConfig(width=8), 16).double()
    chunked = Learner(ContrastiveConfig(width=8, chunk=2), 16).double()
    chunked.load_state_dict(whole.state_dict())
    x = images(12).double()
    for learner in (whole, chunked):
        learner.encoder.eval()
        u1, u2 = learner(x).chunk(2)
        (u1 @ u2.T).logsumexp(dim=1).mean().backward()
    for a, b in zip(whole.parameters(), chunked.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-12)
