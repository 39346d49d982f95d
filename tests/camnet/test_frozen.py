"""The frozen decorruptor: shipped weights load and stay as they are; anything else is refused by name."""

import hashlib
import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch

from camnet import frozen
from camnet.evaluate import figures, hue_share
from camnet.generator import Generator
from camnet.imle import training_actions
from configs.camnet import GeneratorConfig
from configs.data import DataConfig
from configs.errors import UsageError
from env.corruption import Action, corrupt
from env.images import load as load_images

CPU = torch.device("cpu")
WEIGHTS = frozen.SHIPPED / "digits.safetensors"
SMALL = GeneratorConfig(resolutions=(4, 8, 16), widths=(8, 8, 8), blocks=1, global_code=4, spatial_code=1)


@pytest.fixture(scope="module")
def operator():
    return frozen.load("digits", CPU)


@pytest.fixture(scope="module")
def digits():
    return load_images(DataConfig(), CPU).validation.images()


@pytest.fixture
def copied(tmp_path):
    for path in (WEIGHTS, WEIGHTS.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / WEIGHTS.name


def action(n, gray=False, factor=0):
    return Action(torch.zeros(n, 4, 4, dtype=torch.bool), torch.full((n,), factor), torch.full((n,), gray))


def test_the_shipped_weights_are_small_and_those_of_their_card():
    card = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert WEIGHTS.stat().st_size <= 4e6
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == card["file_sha256"]
    assert card["mask_polarity"] == "1 = hidden"
    assert card["command"].startswith("python -m camnet.train")


def test_it_is_frozen(operator, digits):
    assert operator.size == 16
    assert not operator._generator.training
    assert not any(p.requires_grad for p in operator._generator.parameters())
    before = operator.sha256()
    x = digits[:4].clone().requires_grad_()
    views = operator.two_views(corrupt(x, action(4, gray=True)), torch.Generator().manual_seed(0))
    assert not any(view.requires_grad for view in views)
    assert operator.sha256() == before == frozen.load("digits", CPU).sha256()


def test_the_hash_notices_a_single_weight():
    operator = frozen.load("digits", CPU)
    before = operator.sha256()
    with torch.no_grad():
        next(operator._generator.parameters()).view(-1)[0] += 1e-6
    assert operator.sha256() != before


def test_what_was_kept_is_kept_on_real_digits(operator, digits):
    random = torch.Generator().manual_seed(0)
    a = training_actions(len(digits), 4, random)
    corrupted = corrupt(digits, a)
    for view in operator.two_views(corrupted, random):
        assert (corrupt(view, a).kept - corrupted.kept).abs().max() <= 1e-6
        assert view.min() >= 0
        assert view.max() <= 1


def test_it_restores_better_than_leaving_the_image_as_it_is(operator, digits):
    """Trained weights, not any: nearer to the truth than the corrupted image itself."""
    x = digits[:100]
    mask = torch.rand(100, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.3
    corrupted = corrupt(x, Action(mask, torch.zeros(100, dtype=torch.long), torch.zeros(100) > 0))
    view, _ = operator.two_views(corrupted, torch.Generator().manual_seed(0))
    filled = torch.where(corrupted.hidden.bool(), torch.tensor(0.5), x)
    error, gray_error = ((image - x).square().mean(dim=(1, 2, 3)) for image in (view, filled))
    assert error.mean() < 0.5 * gray_error.mean()


def test_views_of_a_decolorized_digit_differ_clearly_and_in_chroma_alone(operator, digits):
    x = digits[:100]
    v1, v2 = operator.two_views(corrupt(x, action(100, gray=True)), torch.Generator().manual_seed(0))
    assert (v1.mean(dim=1) - v2.mean(dim=1)).abs().max() <= 1e-6
    rms = (v1 - v2).square().mean(dim=(1, 2, 3)).sqrt()
    assert rms.mean() > 0.05
    assert rms.median() > 0.03
    assert hue_share(v1, v2) > 0.3


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize("part", ["everywhere", "here"])
def test_every_part_of_the_code_acts(operator, digits, level, part):
    x = digits[:50]
    mask = torch.rand(50, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    gray = torch.arange(50) % 2 == 0
    corrupted = corrupt(x, Action(mask, torch.zeros(50, dtype=torch.long), gray))
    codes, other = (operator.codes(50, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    swapped = list(codes)
    swapped[level] = replace(codes[level], **{part: getattr(other[level], part)})
    change = operator.restore(corrupted, codes) - operator.restore(corrupted, swapped)
    assert change.square().mean().sqrt() > 1e-3


def test_the_two_views_are_those_of_independent_codes(operator, digits):
    corrupted = corrupt(digits[:3], action(3, gray=True, factor=2))
    views = operator.two_views(corrupted, torch.Generator().manual_seed(5))
    codes = operator.codes(6, torch.Generator().manual_seed(5))
    for k, view in enumerate(views):
        rows = torch.arange(3) + 3 * k
        assert torch.allclose(operator.restore(corrupted, [c.select(rows) for c in codes]), view, rtol=0, atol=1e-5)


def test_measuring_tells_what_the_card_tells(operator, digits):
    from camnet.distance import Distance

    x = digits[:20]
    random = torch.Generator().manual_seed(0)
    measured = figures(operator, Distance(x, 1.0), x, training_actions(20, 4, random), 3, random)
    assert measured.keys() == operator.card["validation"].keys()
    assert measured["best_distance"] <= measured["mean_distance"]
    assert measured["best_psnr"] >= measured["mean_psnr"]
    assert measured["kept_error"] <= 1e-6
    assert operator.card["validation"]["kept_error"] <= 1e-6


def test_saved_weights_come_back_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    generator = Generator(SMALL)
    path = tmp_path / "made" / "small.safetensors"
    frozen.save(generator, path, {"generator": SMALL.__dict__})
    again = frozen.load(str(path), CPU)
    assert again.sha256() == frozen.FrozenGenerator(generator, {}).sha256()


def refused(path):
    with pytest.raises(UsageError) as caught:
        frozen.load(str(path), CPU)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("format", ["torch", "pickle"])
def test_a_pickle_is_refused_unopened(copied, tmp_path, format):
    with open(copied, "wb") as file:
        (torch.save if format == "torch" else pickle.dump)(Planted(tmp_path / "ran"), file)
    refused(copied)
    # Nor where its card vouches for it.
    card = json.loads(copied.with_suffix(".json").read_text())
    card["file_sha256"] = hashlib.sha256(copied.read_bytes()).hexdigest()
    copied.with_suffix(".json").write_text(json.dumps(card))
    assert "does not hold these weights" in refused(copied)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pkl", ".zip"])
def test_a_path_that_is_no_safetensors_file_is_refused(tmp_path, ending):
    path = tmp_path / f"weights{ending}"
    torch.save({}, path)
    assert ".safetensors file" in refused(path)


@pytest.mark.parametrize("vouched", [False, True])
@pytest.mark.parametrize("left", [0, 4, 5000])
def test_a_truncated_file_is_refused(copied, left, vouched):
    copied.write_bytes(copied.read_bytes()[:left])
    if vouched:
        card = json.loads(copied.with_suffix(".json").read_text())
        card["file_sha256"] = hashlib.sha256(copied.read_bytes()).hexdigest()
        copied.with_suffix(".json").write_text(json.dumps(card))
    assert ("does not hold these weights" if vouched else "does not match the hash") in refused(copied)


def test_a_changed_byte_is_noticed(copied):
    blob = bytearray(copied.read_bytes())
    blob[-3] ^= 1
    copied.write_bytes(blob)
    assert "damaged or exchanged" in refused(copied)


def test_an_exchanged_card_is_refused(copied, tmp_path):
    torch.manual_seed(0)
    frozen.save(Generator(SMALL), tmp_path / "other.safetensors", {"generator": SMALL.__dict__})
    shutil.copy(tmp_path / "other.json", copied.with_suffix(".json"))
    assert "does not match the hash in its card" in refused(copied)


def test_a_card_of_another_architecture_is_refused(copied):
    card = json.loads(copied.with_suffix(".json").read_text())
    card["generator"]["widths"] = [8, 8, 8]
    copied.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(UsageError, match="does not hold these weights"):
        frozen.load(str(copied), CPU)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"generator": {"sides": 3}}', '{"generator": 3}', None])
def test_a_missing_or_damaged_card_is_refused(copied, text):
    card = copied.with_suffix(".json")
    card.unlink() if text is None else card.write_text(text)
    assert "missing or damaged" in refused(copied)


def test_an_unknown_name_is_refused_and_the_shipped_ones_named():
    assert "digits" in refused("digit")
