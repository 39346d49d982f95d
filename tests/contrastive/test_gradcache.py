"""A batch in chunks gives the gradient of the whole batch, with less memory, and moves running statistics once."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from configs.contrastive import ContrastiveConfig
from contrastive.encoder import Learner
from contrastive.gradcache import embed_in_chunks


def images(m, seed=0):
    return torch.rand(m, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def network(*norms):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), *norms, nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)]
    return nn.Sequential(*layers).double()


def gradients(net, u):
    """Of a loss that compares all rows with one another."""
    loss = torch.log_softmax(u @ u.T, dim=1).diagonal().mean()
    return torch.autograd.grad(loss, list(net.parameters()))


def close(one, other):
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("chunks", [1, 2, 3, 5])
def test_without_batchnorm_the_gradient_is_that_of_the_whole_batch(chunks):
    net, x = network(), images(12).double()
    u = embed_in_chunks(net, x, chunks)
    assert torch.allclose(u, net(x), rtol=1e-12)
    assert close(gradients(net, u), gradients(net, net(x)))


def test_batchnorm_in_evaluation_mode_is_no_obstacle():
    net, x = network(nn.BatchNorm2d(4)), images(12).double()
    net(x)
    net.eval()
    assert close(gradients(net, embed_in_chunks(net, x, 3)), gradients(net, net(x)))


def test_running_statistics_move_once_a_chunk_and_views_of_an_image_share_theirs():
    net, by_hand, x = network(nn.BatchNorm2d(4)), network(nn.BatchNorm2d(4)), images(12).double()
    u = embed_in_chunks(net, x, 3)  # two views of six images: 0, 3 and their second views 6, 9 make the first chunk
    expected = torch.empty_like(u)
    for rows in ([0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]):
        expected[rows] = by_hand(x[rows])
    assert torch.allclose(u, expected, rtol=1e-12)
    assert close(gradients(net, u), gradients(by_hand, expected))
    for name, buffer in by_hand.named_buffers():
        assert torch.equal(dict(net.named_buffers())[name], buffer), name
    assert net[1].num_batches_tracked == 3


def test_without_gradients_the_statistics_are_the_same():
    net, measured, x = network(nn.BatchNorm2d(4)), network(nn.BatchNorm2d(4)), images(12).double()
    with torch.no_grad():
        u = embed_in_chunks(measured, x, 3)
    assert torch.equal(u, embed_in_chunks(net, x, 3))
    assert not u.requires_grad


def test_dropout_is_replayed():
    net, x = network(nn.Dropout(0.5)), images(12).double()
    torch.manual_seed(1)
    u = embed_in_chunks(net, x, 3)
    torch.manual_seed(1)
    by_hand = torch.empty_like(u)
    for c in range(3):
        by_hand[c::3] = net(x[c::3])
    expected = gradients(net, by_hand)
    torch.manual_seed(2)
    assert close(gradients(net, u), expected)


def test_swapped_weights_are_those_of_the_replay():
    net, x = network(nn.BatchNorm2d(4)), images(12).double()
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    weights = {name: (0.5 * p.detach()).requires_grad_() for name, p in net.named_parameters()}

    class Chunked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return embed_in_chunks(self.net, x, 3)

    prefixed = {f"net.{name}": value for name, value in (weights | buffers).items()}
    swapped = functional_call(Chunked(), prefixed, (x,))  # over before the backward pass begins
    halved = network(nn.BatchNorm2d(4))
    halved.load_state_dict({name: value.detach() for name, value in weights.items()}, strict=False)
    loss = torch.log_softmax(swapped @ swapped.T, dim=1).diagonal().mean()
    found = torch.autograd.grad(loss, list(weights.values()))
    assert close(found, gradients(halved, embed_in_chunks(halved, x, 3)))
    assert net[1].num_batches_tracked == 0
    assert buffers["1.num_batches_tracked"] == 3


def saved_bytes(learner, x):
    """What autograd keeps between the passes, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in learner.parameters()}
    kept = {}

    def pack(t):
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        u = learner(x)
    return sum(kept.values()), u


def test_memory_falls_and_one_chunk_is_replayed_at_a_time():
    x = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole, u = saved_bytes(Learner(ContrastiveConfig(width=8), 16), x)
    learner = Learner(ContrastiveConfig(width=8, chunk=4), 16)
    calls = []
    learner.encoder[0].register_forward_hook(lambda part, given, out: calls.append(len(given[0])))
    chunked, u = saved_bytes(learner, x)
    assert whole > 8 * x.nbytes
    assert chunked < 1.2 * x.nbytes  # the images, and next to nothing of what became of them
    assert calls == [8] * 8
    u.sum().backward()
    assert calls == [8] * 16
