"""Measuring a generator: the figures of known operators, and the program from weights to table and sheet."""

import json

import matplotlib.image
import pytest
import torch

from camnet import evaluate, frozen, sheet
from camnet.decorruptor import Decorruptor
from camnet.distance import Distance
from camnet.evaluate import figures
from camnet.generator import Generator, each
from camnet.jpeg import compress
from camnet.layout import DISTINCT, synthesize_from
from camnet.metrics import hue_share, ssim
from camnet.table import COLUMNS
from configs.camnet import GeneratorConfig
from configs.data import DataConfig
from configs.errors import UsageError
from configs.evaluation import EvaluationConfig
from env.corruption import Action, corrupt
from env.images import load as load_images

CPU = torch.device("cpu")
TINY = {"resolutions": (4, 8, 16), "widths": (8, 8, 8), "blocks": 1, "global_code": 4}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits():
    return load_images(DataConfig(), CPU).test.images()


@pytest.fixture(scope="module")
def distance(digits):
    return Distance(digits, pixel_weight=1.0)


@pytest.fixture
def weights(tmp_path):
    """Write an untrained generator with a card."""

    def write(name, seed=0, card=None, **settings):
        torch.manual_seed(seed)
        config = GeneratorConfig(**(TINY | settings))
        card = {"data": {"name": "digits", "size": config.resolutions[-1], "seed": 0}, **(card or {})}
        frozen.save(Generator(config), tmp_path / f"{name}.safetensors", {"generator": config.__dict__, **card})
        return str(tmp_path / f"{name}.safetensors")

    return write


class Noisy(Decorruptor):
    """Adds noise of a given size to what was kept, or to the truth."""

    consistent = True

    def __init__(self, size, truth=None):
        self.noise, self.truth = size, truth

    def codes(self, n, random):
        return torch.randn(n, 3, 16, 16, generator=random)

    def restore(self, degraded, codes):
        middle = degraded.kept if self.truth is None else self.truth
        return (middle.repeat_interleave(len(codes) // len(middle), dim=0) + self.noise * codes).clamp(0, 1)

    def sha256(self):
        return ""


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def degrade(x, mask=False, factor=0, gray=False):
    n = len(x)
    return corrupt(x, Action(torch.full((n, 4, 4), mask), torch.full((n,), factor), torch.full((n,), gray)))


def test_a_perfect_operator_has_perfect_figures(digits, distance):
    x = digits[:12]
    found = figures(Noisy(0.0, truth=x), distance, x, degrade(x, gray=True), 3, random())
    for name in ("best_distance", "mean_distance", "diversity", "feature_diversity", "weighted_variance", "hue_share"):
        assert found[name] == pytest.approx(0, abs=1e-6), name
    assert found["best_psnr"] == pytest.approx(100)
    assert found["mean_ssim"] == pytest.approx(1, abs=1e-5)
    assert found["coverage"] == 1
    assert found["residual"] < 1e-6
    assert found["plain_distance"] > 0.1


def test_the_figures_are_what_they_say(digits, distance):
    """A transcription with plain loops."""
    x, k = digits[:5], 3
    degraded, operator = degrade(x, gray=True), Noisy(0.05)
    found = figures(operator, distance, x, degraded, k, random())
    samples = operator.views(degraded, k, random())
    d = torch.stack([distance(samples[:, j], x) for j in range(k)], dim=1)
    from_mean = torch.stack([distance(samples[:, j], samples.mean(dim=1)) for j in range(k)], dim=1)
    plain = distance(degraded.kept, x)
    sigma = 0.5 * plain.mean()
    assert found["best_distance"] == pytest.approx(d.amin(dim=1).mean().item(), rel=1e-4)
    assert found["mean_distance"] == pytest.approx(d.mean().item(), rel=1e-4)
    assert found["plain_distance"] == pytest.approx(plain.mean().item(), rel=1e-4)
    weight = (-(d**2) / (2 * sigma**2)).exp()
    assert found["weighted_variance"] == pytest.approx((weight * from_mean).mean().item(), rel=1e-4)
    error = (samples - x.unsqueeze(1)).square().mean(dim=(2, 3, 4))
    assert found["best_psnr"] == pytest.approx(-10 * error.amin(dim=1).log10().mean().item(), rel=1e-4)
    assert found["mean_psnr"] == pytest.approx(-10 * error.log10().mean().item(), rel=1e-4)
    assert found["diversity"] == pytest.approx(samples.var(dim=1).mean().sqrt().item(), rel=1e-4)
    likeness = ssim(samples, x)
    assert found["best_ssim"] == pytest.approx(likeness.amax(dim=1).mean().item(), rel=1e-4)
    assert found["mean_ssim"] == pytest.approx(likeness.mean().item(), rel=1e-4)
    apart = [distance(samples[:, a], samples[:, b]).mean().item() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found["feature_diversity"] == pytest.approx(sum(apart) / 3, rel=1e-4)
    assert found["hue_share"] == pytest.approx(hue_share(samples[:, 0], samples[:, 1]).item(), rel=1e-4)
    assert found["coverage"] == (d.amin(dim=1) < 0.5 * plain).float().mean().item()
    off = (samples.mean(dim=2) - x.mean(dim=1).unsqueeze(1)).abs().amax().item()
    assert found["residual"] == pytest.approx(off, rel=1e-3)


def test_a_worse_operator_has_worse_figures(digits, distance):
    x = digits[:10]
    good, bad = (figures(Noisy(s, truth=x), distance, x, degrade(x, gray=True), 3, random()) for s in (0.02, 0.3))
    assert good["best_distance"] < bad["best_distance"]
    assert good["best_psnr"] > bad["best_psnr"]
    assert good["best_ssim"] > bad["best_ssim"]
    assert good["coverage"] > bad["coverage"]
    assert good["residual"] < bad["residual"]
    assert good["diversity"] < bad["diversity"]


def test_the_batch_changes_nothing_but_the_codes(digits, distance):
    x = digits[:7]
    degraded, operator = degrade(x, factor=2), Noisy(0.0)
    whole, parts = (figures(operator, distance, x, degraded, 2, random(), batch=size) for size in (100, 3))
    assert whole == pytest.approx(parts, rel=1e-5, abs=1e-6)


def test_a_frechet_distance_needs_images_enough(digits, distance):
    x, operator = digits[:200], Noisy(0.0)
    assert "frechet_distance" not in figures(operator, distance, x[:199], degrade(x[:199]), 2, random())
    found = figures(operator, distance, x, degrade(x), 2, random())
    assert found.keys() == COLUMNS.keys()
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-5)
    gray = figures(operator, distance, x, degrade(x, gray=True), 2, random())
    assert gray["frechet_distance"] > 0.01


def test_the_program_measures_every_task(weights, tmp_path, capsys):
    card = {"grids": [2, 4], "palette": [[0.1, 0.1, 0.1], [0.9, 0.2, 0.1]], "command": "made by hand"}
    name = weights("all", card=card, tasks=("mix", "decompression", "layout"), layout_classes=2, factors=2)
    argv = ["--generator", name, "--images", "20", "--k", "2", "--batch", "7", "--out", str(tmp_path / "out")]
    evaluate.main(argv)
    found = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert list(found["cases"]) == [
        "inpainting 50 %",
        "colorization",
        "super-resolution x2",
        "inpainting 30 % + colorization",
        "decompression q5",
        "decompression q20",
        "layout",
    ]
    assert (found["images"], found["k"], found["split"], found["distance"]) == (20, 2, "test", "random-conv16+l1")
    assert found["frechet_features"] == "random-conv16 pooled"
    assert found["generators"]["all"]["trained_by"] == "made by hand"
    assert found["generators"]["all"]["weights_sha256"] == frozen.load(name, CPU).sha256()
    assert found["command"].startswith("python -m camnet.evaluate --generator ")
    for case, rows in found["cases"].items():
        assert rows["all"].keys() == COLUMNS.keys() - {"frechet_distance"}
        assert rows["all"]["residual"] <= (0.05 if case.startswith("decompression") else 1e-6), case
    page, shown = (tmp_path / "out" / "table.md").read_text(), capsys.readouterr().out
    for line in page.splitlines():
        assert not line.startswith("|") or line in shown
    assert sum(line.startswith("| ") for line in shown.splitlines()) == 2 + 7
    assert str(tmp_path / "out") in shown
    picture = matplotlib.image.imread(tmp_path / "out" / "sheet.png")
    assert picture[..., :3].std() > 0.1


def test_equal_weights_have_equal_rows_and_others_have_not(weights, tmp_path):
    one, same, other = weights("one"), weights("same"), weights("other", seed=1)
    out = tmp_path / "out"
    argv = ["--generator", one, "--against", same, other, "--cases", "colorization", "inpainting 50 %"]
    evaluate.main([*argv, "--images", "12", "--k", "2", "--out", str(out)])
    found = json.loads((out / "figures.json").read_text())["cases"]
    assert list(found) == ["colorization", "inpainting 50 %"]
    for rows in found.values():
        assert list(rows) == ["one", "same", "other"]
        assert rows["one"] == rows["same"] != rows["other"]
        assert rows["one"]["plain_distance"] == rows["other"]["plain_distance"]  # the same degraded images
    assert "| generator" in (out / "table.md").read_text()


def test_a_generator_is_left_out_of_cases_that_it_is_not_trained_for(weights, tmp_path):
    card = {"palette": [[0.1, 0.1, 0.1], [0.9, 0.2, 0.1]]}
    both = weights("both", card=card, tasks=("mix", "layout"), layout_classes=2)
    mix, others = weights("mix"), {"palette": [[0.2, 0.1, 0.1], [0.9, 0.2, 0.1]]}
    colors = weights("colors", card=others, tasks=("layout",), layout_classes=2)
    config = EvaluationConfig(generator=both, against=(mix, colors), images=4, out=tmp_path)
    cases = {name: able for name, (_, able) in evaluate.prepare(config, CPU).cases.items()}
    assert cases["colorization"] == ["both", "mix"]
    assert cases["layout"] == ["both"]  # other classes: not the same layouts


def test_a_fill_is_measured_beside_the_generator(weights, tmp_path):
    out = tmp_path / "out"
    argv = ["--generator", weights("one"), "--against", "mean", "--cases", "inpainting 50 %", "--images", "6"]
    evaluate.main([*argv, "--k", "2", "--out", str(out)])
    (rows,) = json.loads((out / "figures.json").read_text())["cases"].values()
    assert rows["mean"]["best_distance"] == rows["mean"]["plain_distance"] == rows["one"]["plain_distance"]
    assert rows["mean"]["diversity"] == rows["mean"]["feature_diversity"] == rows["mean"]["coverage"] == 0


def test_an_operator_of_ones_own_is_measured_on_its_tasks(digits):
    operator = Noisy(0.1)
    cases = evaluate.cases_of("digits", frozen.load("digits", CPU), CPU)
    first = frozen.load("digits", CPU)
    assert evaluate.restorable("own", operator, first, cases, digits[:1]) == list(cases)
    operator.tasks = ("layout",)
    assert evaluate.restorable("own", operator, first, cases, digits[:1]) == []


def test_the_images_are_those_of_the_card(weights, tmp_path):
    name = weights("seeded", card={"data": {"name": "digits", "size": 16, "seed": 3, "root": "elsewhere"}})
    evaluation = evaluate.prepare(EvaluationConfig(generator=name, images=0, split="validation"), CPU)
    assert torch.equal(evaluation.x, load_images(DataConfig(seed=3), CPU).validation.images())
    assert evaluation.data == DataConfig(seed=3)
    few = evaluate.prepare(EvaluationConfig(generator=name, images=2, split="validation"), CPU)
    assert torch.equal(few.x, evaluation.x[[0, -1]])


def test_the_folder_is_named_after_the_generator():
    assert str(EvaluationConfig().out) == "runs/evaluate-digits"
    assert str(EvaluationConfig(generator="made/v1.2.safetensors").out) == "runs/evaluate-v1.2"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cases", "colorisation"], r"'colorisation'.*did you mean colorization\?\). Valid are 'inpainting 50 %', "),
        (["--images", "-1"], r"--images must lie in \[0, "),
        (["--k", "1"], r"--k must lie in \[2, "),
        (["--batch", "0"], r"--batch must lie in \[1, "),
        (["--split", "train"], r"--split must be one of validation, test"),
        (["--against", "digit"], r"--generator digit: no such weights"),
        (["--against", "digits"], r"--against digits: given twice"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        evaluate.main(flags)
    assert not list(tmp_path.iterdir())


def test_generators_of_another_size_are_refused(weights):
    large = weights("large", resolutions=(8, 16, 32))
    with pytest.raises(UsageError, match=r"restores images of 32 pixels, small those of 16"):
        evaluate.main(["--generator", weights("small"), "--against", large])


def test_other_training_images_are_pointed_out(weights, capsys):
    other = weights("other", card={"data": {"name": "digits", "size": 16, "seed": 5}})
    evaluate.load_operators(EvaluationConfig(generator=weights("one"), against=(weights("same"),)), CPU)
    assert not capsys.readouterr().err
    evaluate.load_operators(EvaluationConfig(generator=weights("one"), against=(other,)), CPU)
    assert "trained on other images than one, perhaps on these" in capsys.readouterr().err


@pytest.mark.parametrize("data", [None, {"name": "letters"}, {"sides": 3}, 3])
def test_a_card_that_names_no_images_is_refused(weights, data):
    odd = weights("odd", card={"data": data})
    with pytest.raises(UsageError, match=r"card does not say which images"):
        evaluate.main(["--generator", odd])
    evaluate.load_operators(EvaluationConfig(generator=weights("one"), against=(odd,)), CPU)


def test_a_folder_that_cannot_be_made_is_named(weights, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*taken"):
        evaluate.main(["--generator", weights("one"), "--images", "2", "--k", "2", "--out", str(tmp_path / "taken")])


def test_the_small_sheet_has_a_row_for_each_restoration(digits):
    x, k = digits[:10], 3
    degraded = degrade(x, mask=True)
    samples = torch.rand(10, k, 3, 16, 16, generator=random())
    distances = torch.rand(10, k, generator=random())
    picture = sheet.sheet_grid(x, degraded, samples, distances)
    assert picture.shape == (3, (2 + k + 1) * 17 + 1, sheet.COLUMNS * 17 + 1)
    best = samples[torch.arange(10), distances.argmin(dim=1)]
    expected = [x, sheet.hatching(x), *samples.unbind(dim=1), best]
    for row, images in enumerate(expected):
        for column in range(sheet.COLUMNS):
            tile = picture[:, row * 17 + 1 : row * 17 + 17, column * 17 + 1 : column * 17 + 17]
            assert torch.equal(tile, images[column]), (row, column)


def test_what_was_degraded_is_drawn_as_it_is_known(digits):
    x = digits[:2]
    jpeg = compress(x, torch.tensor([5.0, 50.0]))
    assert torch.equal(sheet.drawn(jpeg), jpeg.kept)
    layout = synthesize_from(torch.ones(2, 16, 16, dtype=torch.long), 3)
    color = torch.tensor(DISTINCT[1]).view(1, 3, 1, 1) / 255
    assert torch.allclose(sheet.drawn(layout), color.expand_as(x))
    half = degrade(x)
    half.hidden[:, :, :8] = 1
    assert torch.equal(sheet.drawn(half)[:, :, 8:], x[:, :, 8:])
    assert set(sheet.drawn(half)[:, :, :8].flatten().tolist()) == {0.25, 0.75}


def test_the_png_grows_with_its_blocks(digits, tmp_path):
    x = digits[:8]
    degraded = degrade(x, gray=True)
    samples = each(degraded, 2).kept.unflatten(0, (8, 2))
    rows = sheet.rows_of(x, degraded, samples, torch.zeros(8, 2), shown=1)
    assert list(rows) == ["truth", "degraded", "sample 1", "best of 2"]
    block = sheet.Block("colorization", rows)
    sheet.draw([block], 1, tmp_path / "one.png")
    sheet.draw([block] * 3, 2, tmp_path / "three.png")
    one, three = (matplotlib.image.imread(tmp_path / name) for name in ("one.png", "three.png"))
    assert three.shape[0] == pytest.approx(2 * one.shape[0], abs=2)
    assert three.shape[1] == pytest.approx(2 * one.shape[1], abs=2)
    with pytest.raises(UsageError, match=r"cannot write .*missing/sheet\.png"):
        sheet.draw([block], 1, tmp_path / "missing" / "sheet.png")
