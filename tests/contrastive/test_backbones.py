"""Backbones come from torchvision and timm by name, give flat features, and refuse what cannot work."""

import sys

import pytest
import torch
from torch import nn
from torchvision import models

from configs.errors import UsageError
from contrastive import backbones
from contrastive.backbones import build, feature_length


def images(n, size):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_the_small_one_is_as_it_always_was():
    """Checkpoints and tables depend on its weights, its names and its sums."""
    torch.manual_seed(3)
    before = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Flatten(),
    )
    torch.manual_seed(3)
    now = build("small", 8, 16)
    assert list(now.state_dict()) == list(before.state_dict())
    assert torch.equal(now(images(4, 16)), before(images(4, 16)))


@pytest.mark.parametrize("size", [16, 24, 32])
def test_the_small_one_takes_a_half_and_a_quarter_of_the_side(size):
    torch.manual_seed(0)
    net = build("small", 8, size).eval()
    full = net(torch.full((1, 3, size, size), 0.3))
    for side in (size // 2, size // 4):
        h = net(torch.full((1, 3, side, side), 0.3))
        assert h.shape == full.shape
    corner = images(1, size // 2).clone()
    corner[..., 2:, :] = 0
    repeated = net[:9](corner).repeat_interleave(2, -1).repeat_interleave(2, -2)
    if size % 8 == 0:
        assert torch.equal(net(corner), repeated.flatten(1))
    with pytest.raises(ValueError, match="larger images"):
        net(images(1, 2 * size))


@pytest.mark.parametrize(("size", "cifar"), [(32, True), (64, True), (72, False)])
def test_a_resnet_gets_the_cifar_stem_for_small_images_alone(size, cifar):
    net = build("resnet18", 0, size)
    assert backbones.has_cifar_stem(net) == cifar
    assert net.layer1(net.maxpool(net.conv1(images(1, size)))).shape[-1] == (size if cifar else size // 4)
    assert feature_length(net, "resnet18", size) == 512
    deviation = net.conv1.weight.std().item()
    assert deviation == pytest.approx((2 / (64 * net.conv1.kernel_size[0] ** 2)) ** 0.5, rel=0.05)


def test_state_dict_is_torchvisions_without_the_classifier():
    plain = models.resnet18(num_classes=2).state_dict()
    assert list(build("resnet18", 0, 32).state_dict()) == [name for name in plain if not name.startswith("fc.")]


@pytest.mark.parametrize(
    ("name", "features", "size"),
    [("mobilenet_v3_small", 1024, 32), ("squeezenet1_1", 512, 32), ("efficientnet_b0", 1280, 32), ("vgg11", 4096, 32)],
)
def test_the_classifier_of_other_models_is_found(name, features, size):
    net = build(name, 0, size)
    assert feature_length(net, name, size) == features
    assert not any(isinstance(part, nn.Linear) and part.out_features == 1000 for part in net.modules())
    assert net.training


@pytest.mark.parametrize("name", ["efficientnet_b0", "timm:swin_tiny_patch4_window7_224", "timm:ghostnet_050"])
def test_nothing_in_a_backbone_draws_random_numbers(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    net = build(name, 0, 32)
    assert "ghost" in name or any(type(part).__name__ in ("StochasticDepth", "DropPath") for part in net.modules())
    state, x = torch.get_rng_state(), images(2, 32)
    assert torch.equal(net(x), net(x))
    feature_length(net, name, 32)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_dry_run_moves_no_statistics():
    net = build("resnet18", 0, 32)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    feature_length(net, "resnet18", 32)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_vision_transformer_is_made_for_the_images():
    timm = pytest.importorskip("timm")
    net = build("timm:vit_tiny_patch16_224", 0, 32)
    assert isinstance(net, timm.models.VisionTransformer)
    assert feature_length(net, "timm:vit_tiny_patch16_224", 32) == 192
    assert backbones.takes_one_size(net)
    assert not backbones.takes_one_size(build("timm:resnet18", 0, 32))
    assert backbones.options("vit_b_16", 32) == {"weights": None, "image_size": 32}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt18", r"did you mean resnet18\?"),
        ("http://somewhere", "there is no such encoder"),
        ("timm:resnt18", r"did you mean timm:\w*resnet18"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, message):
    with pytest.raises(UsageError, match=message):
        build(name, 0, 32)


def test_images_that_a_model_cannot_take_are_refused():
    with pytest.raises(UsageError, match="vit_b_16 cannot take images of 40 x 40 pixels"):
        build("vit_b_16", 0, 40)
    with pytest.raises(UsageError, match=r"alexnet cannot take images of 32 x 32 pixels.*--data.size"):
        feature_length(build("alexnet", 0, 32), "alexnet", 32)


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="pip install timm"):
        build("timm:resnet18", 0, 32)
