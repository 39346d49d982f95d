"""Halving and doubling: what PyTorch's own operations give, whichever way it is computed."""

import pytest
import torch
import torch.nn.functional as F

from env import resize

OWN = {
    "halved": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "smallest": lambda x: -F.max_pool2d(-x, 2),
    "repeated": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "enlarged": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
}


@pytest.fixture(params=[0, 10**9], ids=["slices", "kernels"])
def way(request, monkeypatch):
    """Images of any size sliced, or none."""
    monkeypatch.setattr(resize, "FEW_PIXELS", request.param)
    return request.param


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 2, 8, 8), (2, 3, 6, 10), (1, 1, 2, 2)])
@pytest.mark.parametrize("name", OWN)
def test_they_are_what_pytorch_computes(way, name, shape, layout):
    x = images(*shape).contiguous(memory_format=layout)
    assert torch.allclose(getattr(resize, name)(x), OWN[name](x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_so_are_their_gradients(way, name):
    gradients = []
    for function in (getattr(resize, name), OWN[name]):
        x = images(2, 3, 8, 8).requires_grad_()
        (function(x) * images(*function(x).shape)).sum().backward()
        gradients.append(x.grad)
    assert torch.allclose(*gradients, rtol=0, atol=1e-6)
    assert gradients[0].abs().sum() > 1


def test_the_last_of_an_odd_number_is_averaged_alone(way):
    x = images(2, 3, 7, 5)
    found = resize.halved(x)
    assert found.shape == (2, 3, 4, 3)
    assert torch.allclose(found, OWN["halved"](x), rtol=0, atol=1e-6)
    assert torch.equal(found[..., -1, -1], x[..., -1, -1])


def test_what_is_alike_stays_as_it_is(way):
    """Means that were put back must be found again bit for bit."""
    x = images(4, 3, 16, 16)
    assert torch.equal(resize.halved(resize.repeated(x)), x)
    assert torch.equal(resize.smallest(resize.repeated(x)), x)


@pytest.mark.parametrize(("side", "size"), [(32, 32), (32, 4), (96, 6), (96, 32), (24, 1), (9, 3)])
def test_averages_of_whole_squares(way, side, size):
    x = images(2, 3, side, side)
    assert torch.allclose(resize.pooled(x, size), F.avg_pool2d(x, side // size), rtol=0, atol=1e-6)


def test_what_lies_channels_last_stays_so(way):
    x = images(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    for name in ("halved", "smallest"):
        assert getattr(resize, name)(x).is_contiguous(memory_format=torch.channels_last)


def test_large_images_are_sliced_on_a_cpu_and_small_ones_are_not(monkeypatch):
    called = []
    for name in ("avg_pool2d", "max_pool2d", "interpolate"):
        own = getattr(F, name)
        monkeypatch.setattr(F, name, lambda *a, own=own, name=name, **k: called.append(name) or own(*a, **k))
    for x in (images(8, 3, 64, 64), images(1, 3, 8, 8)):
        called.clear()
        for name in OWN:
            getattr(resize, name)(x)
        assert len(called) == (0 if len(x) == 8 else 4)
