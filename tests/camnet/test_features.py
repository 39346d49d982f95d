"""Features that the distance can add: a classifier trained from a seed, and LPIPS from a local file; both frozen."""

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from camnet import features
from camnet.distance import Distance, Features
from camnet.features import ClassifierFeatures, LpipsFeatures, added, load_lpips, train_classifier
from configs.data import DataConfig
from configs.errors import UsageError
from env.images import ImageSet, load

CPU = torch.device("cpu")
WIDTHS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(), CPU).train


@pytest.fixture(scope="module")
def classifier(digits):
    return train_classifier(digits, 10, steps=60, seed=0)


def edges(n, size=16, seed=1):
    """Images full of edges, where a shift and a blur of equal squared difference look unlike."""
    coarse = torch.rand(n, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size, mode="nearest")


def vgg_weights():
    """Random weights under torchvision's names, sized so that features neither vanish nor grow."""
    random, tensors, before, position, taps = torch.Generator().manual_seed(0), {}, 3, 0, []
    for width in WIDTHS:
        if width == "pool":
            taps.append(before)
            position += 1
            continue
        weight = torch.randn(width, before, 3, 3, generator=random)
        tensors[f"features.{position}.weight"] = weight * (2 / (9 * before)) ** 0.5
        tensors[f"features.{position}.bias"] = 0.1 * torch.randn(width, generator=random)
        before, position = width, position + 2
    for k, width in enumerate([*taps, before]):
        tensors[f"lin{k}"] = torch.rand(width, generator=random)
    return tensors


@pytest.fixture(scope="module")
def weights():
    return vgg_weights()


def slow_lpips(tensors, a, b):
    """LPIPS as its paper and code have it, written out: scale, run the stages, normalize, weigh, average, sum."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def stages(x):
        h, position, result = ((2 * x - 1) - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1), 0, []
        for width in (*WIDTHS, "pool"):
            if width == "pool":
                result.append(h / (h.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10))
                h, position = F.max_pool2d(h, 2), position + 1
            else:
                weight, bias = (tensors[f"features.{position}.{part}"] for part in ("weight", "bias"))
                h, position = F.conv2d(h, weight, bias, padding=1).relu(), position + 2
        return result

    total = torch.zeros(len(a))
    for k, (p, q) in enumerate(zip(stages(a), stages(b), strict=True)):
        total += ((p - q).pow(2) * tensors[f"lin{k}"].view(1, -1, 1, 1)).sum(dim=1).mean(dim=(1, 2))
    return total


def compared(own, a, b):
    """The distance by these features alone."""
    return sum((p - q).square().sum(dim=1).mean(dim=(1, 2)) for p, q in zip(own(a), own(b), strict=True))


def test_the_classifier_beats_chance(classifier):
    assert classifier.accuracy > 0.4  # chance: 0.1
    assert 0 < classifier.seconds < 60


def test_accuracy_is_measured_a_batch_at_a_time(digits, monkeypatch):
    torch.manual_seed(0)
    net, seen = features.Classifier(10), []
    whole = (net.eval()(digits.images()).argmax(dim=1) == digits.labels).float().mean().item()
    net.register_forward_pre_hook(lambda net, given: seen.append(len(given[0])))
    assert features._accuracy(net.train(), digits) == pytest.approx(whole, abs=0.002)
    assert not net.training
    assert (max(seen), sum(seen)) == (features.BATCH, len(digits))


def test_the_classifier_is_a_function_of_its_seed(digits):
    some = ImageSet(digits.pixels[:200], digits.labels[:200])
    state = torch.get_rng_state()
    one, same, other = (train_classifier(some, 10, steps=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    x = digits.images(torch.arange(5))
    assert all(torch.equal(p, q) for p, q in zip(one(x), same(x), strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(one(x), other(x), strict=True))


def test_the_classifier_is_restored_bit_for_bit(classifier, digits):
    restored, x = ClassifierFeatures(), digits.images(torch.arange(5))
    restored.load_state_dict(classifier.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(restored(x), classifier(x), strict=True))


def test_folding_the_normalization_changes_nothing(digits):
    trained = features.Classifier(10)
    x = digits.images(torch.arange(64))
    trained(x)  # moves the running statistics away from 0 and 1
    trained.eval()
    first = trained.norms[0](trained.convs[0](x))
    assert torch.allclose(trained.folded().filters[0](x), first, atol=1e-5)


@pytest.mark.parametrize("size", [2, 4, 8, 16, 32])
def test_all_features_take_images_of_every_module(classifier, weights, size):
    for own, stages in ((classifier, 3), (LpipsFeatures(weights), min(5, size.bit_length()))):
        x = edges(2, 32)[:, :, :size, :size].requires_grad_()
        maps = own(x)
        assert len(maps) == stages
        assert all(len(part) == 2 and part.ndim == 4 for part in maps)
        compared(own, x, x.detach().flip(0)).sum().backward()
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0


def test_a_black_image_has_a_finite_gradient(weights):
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    compared(LpipsFeatures(weights), x, torch.rand(1, 3, 16, 16)).sum().backward()
    assert x.grad.isfinite().all()


def test_all_features_are_frozen(classifier, weights):
    for own in (classifier, LpipsFeatures(weights)):
        assert isinstance(own, nn.Module)
        assert isinstance(own, Features)
        assert not any(p.requires_grad for p in own.parameters())
        x = edges(2)
        before = own(x)
        own.train()
        assert all(torch.equal(p, q) for p, q in zip(before, own(x), strict=True))


def test_a_shift_is_nearer_than_a_blur_of_equal_squared_difference(classifier):
    x = edges(100)
    shifted = x.roll(1, dims=-1)
    blur = F.avg_pool2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), 7, stride=1) - x
    amount = ((shifted - x).square().mean(dim=(1, 2, 3)) / blur.square().mean(dim=(1, 2, 3))).sqrt()
    blurred = x + amount.view(-1, 1, 1, 1) * blur
    assert torch.allclose((blurred - x).square().mean(), (shifted - x).square().mean())
    nearer = compared(classifier, x, shifted) < compared(classifier, x, blurred)
    assert nearer.float().mean() > 0.8


def test_lpips_equals_a_slow_transcription(weights, tmp_path):
    save_file(weights, tmp_path / "lpips.safetensors")
    a, b = edges(3, 32, seed=1), edges(3, 32, seed=2)
    expected = slow_lpips(weights, a, b)
    assert expected.min() > 0.1
    assert torch.allclose(compared(load_lpips(tmp_path / "lpips.safetensors"), a, b), expected, rtol=1e-3)


def test_added_follows_the_settings(weights, tmp_path, monkeypatch, capsys, digits):
    save_file(weights, tmp_path / "lpips.safetensors")
    monkeypatch.setattr(features, "LEAST_STEPS", 2)
    monkeypatch.setattr(features, "EPOCHS", 0)
    assert added((), digits, 0, Path()) == []
    both = added(("lpips", "classifier", "classifier"), digits, 0, tmp_path / "lpips.safetensors")
    assert [own.name for own in both] == ["lpips-vgg16", "classifier-relu32"]
    told = capsys.readouterr().err
    assert "LPIPS is meant for images of 64 pixels and more, these have 16" in told
    assert "has seen their labels" in told
    x = digits.images(torch.arange(4))
    distance = Distance(x, 1.0, both)
    assert distance.name == "random-relu16+lpips-vgg16+classifier-relu32+l1"
    assert torch.allclose(
        distance(x, x.flip(0)),
        Distance(x, 1.0)(x, x.flip(0)) + sum(compared(own, x, x.flip(0)) for own in both),
        rtol=1e-4,
    )


def test_one_class_is_refused(digits):
    alone = ImageSet(digits.pixels[:8], torch.zeros(8, dtype=torch.long))
    with pytest.raises(UsageError, match="all of one class"):
        added(("classifier",), alone, 0, Path())


def bad_file(kind, path, tensors):
    if kind == "absent":
        return
    if kind == "pickle":
        path.write_bytes(pickle.dumps(tensors))
    elif kind == "torch":
        torch.save(tensors, path)
    elif kind == "cut":
        save_file(tensors, path)
        path.write_bytes(path.read_bytes()[:1000])
    else:
        changed = dict(tensors)
        if kind == "missing":
            del changed["lin3"], changed["features.28.bias"]
        elif kind == "shape":
            changed["lin2"] = torch.ones(255)
        else:
            changed["lin1"] = -changed["lin1"]
        save_file(changed, path)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("absent", "there is no such file"),
        ("pickle", "not a safetensors file"),
        ("torch", "not a safetensors file"),
        ("cut", "not a safetensors file"),
        ("missing", r"lacks features\.28\.bias, lin3"),
        ("shape", r"lin2 \(255,\) in place of \(256,\)"),
        ("negative", "negative as a linear weight: lin1"),
    ],
)
def test_a_bad_file_is_refused_by_name_with_the_recipe(kind, complaint, weights, tmp_path):
    path = tmp_path / "lpips.safetensors"
    bad_file(kind, path, weights)
    with pytest.raises(UsageError, match=complaint) as caught:
        load_lpips(path)
    assert f"--lpips {path}" in str(caught.value)
    assert "docs/camnet-distances.md" in str(caught.value)
