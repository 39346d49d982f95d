"""The program: from weights to figures, table and sheet."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest
import torch
from tqdm import tqdm

from camnet import evaluate, evaluation, features, frozen, unfinished
from camnet.evaluation import load_operators
from camnet.figures import figures
from camnet.table import COLUMNS
from configs.errors import UsageError
from configs.evaluation import EvaluationConfig

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    assert (found["images"], found["k"], found["split"], found["distance"]) == (20, 2, "test", "random-relu16+l1")
    assert found["frechet_features"] == "random-relu16 pooled"
    assert found["generators"]["all"]["trained_by"] == "made by hand"
    assert found["generators"]["all"]["settings"]["factors"] == 2  # what is not in the weights, but in the card
    assert found["generators"]["all"]["weights_sha256"] == frozen.load(name, CPU).sha256()
    assert found["command"].startswith("python -m camnet.evaluate --generator ")
    for case, rows in found["cases"].items():
        assert rows["all"].keys() == COLUMNS.keys() - {"frechet_distance", "power_ratio", "detail_ratio"}
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


def test_features_that_no_training_descended_are_named(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "LEAST_STEPS", 2)
    monkeypatch.setattr(features, "EPOCHS", 0)
    argv = ["--generator", weights("one"), "--cases", "colorization", "--images", "6", "--k", "2"]
    evaluate.main([*argv, "--out", str(tmp_path / "plain")])
    evaluate.main([*argv, "--features", "classifier", "--out", str(tmp_path / "more")])
    found, plain = (json.loads((tmp_path / name / "figures.json").read_text()) for name in ("more", "plain"))
    assert found["distance"] == "random-relu16+classifier-relu32+l1"
    assert found["frechet_features"] == "classifier-relu32 pooled"
    page = (tmp_path / "more" / "table.md").read_text()
    assert "d: `random-relu16+classifier-relu32+l1`. Fréchet features: classifier-relu32 pooled." in page
    figures, others = (rows["cases"]["colorization"]["one"] for rows in (found, plain))
    assert figures["best_distance"] > others["best_distance"]  # one term more
    assert figures["best_psnr"] == others["best_psnr"]


def test_a_fill_is_measured_beside_the_generator(weights, tmp_path):
    out = tmp_path / "out"
    argv = ["--generator", weights("one"), "--against", "mean", "--cases", "inpainting 50 %", "--images", "6"]
    evaluate.main([*argv, "--k", "2", "--out", str(out)])
    (rows,) = json.loads((out / "figures.json").read_text())["cases"].values()
    assert rows["mean"]["plain_distance"] == rows["one"]["plain_distance"]
    # K times as many images at once are added up in another order (env/resize.py).
    assert rows["mean"]["best_distance"] == pytest.approx(rows["mean"]["plain_distance"], rel=1e-6)
    assert rows["mean"]["diversity"] == rows["mean"]["feature_diversity"] == rows["mean"]["coverage"] == 0


def test_an_interrupted_evaluation_goes_on_by_the_same_command(weights, tmp_path, monkeypatch, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    argv = ["--generator", weights("one"), "--against", weights("other", seed=1), "--images", "6", "--k", "2"]
    argv += ["--cases", "colorization", "inpainting 50 %"]
    evaluate.main([*argv, "--out", str(whole)])
    measured = []

    def interrupted(*arguments, **settings):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(figures(*arguments, **settings))
        return measured[-1]

    monkeypatch.setattr(evaluation, "figures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main([*argv, "--out", str(out)])
    assert not (out / "figures.json").exists()
    rest = []
    monkeypatch.setattr(evaluation, "figures", lambda *a, **s: rest.append(1) or figures(*a, **s))
    done = []

    class Bar(tqdm):
        def close(self):
            done.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(evaluate, "tqdm", Bar)
    evaluate.main([*argv, "--out", str(out)])
    assert len(rest) == 1  # three of the four rows were there
    assert set(done) == {(24, 24)}  # images
    assert "goes on after 3 rows" in capsys.readouterr().out
    found, expected = (json.loads((folder / "figures.json").read_text())["cases"] for folder in (out, whole))
    assert found == expected
    assert [list(rows) for rows in found.values()] == [["one", "other"]] * 2
    assert sorted(path.name for path in out.iterdir()) == ["figures.json", "sheet.png", "table.md"]


@pytest.mark.parametrize("change", [["--seed", "1"], ["--k", "3"], ["--images", "5"], ["--against", "noise"]])
def test_rows_of_other_settings_are_measured_anew(weights, tmp_path, monkeypatch, capsys, change):
    argv = ["--generator", weights("one"), "--cases", "colorization", "--images", "6", "--k", "2"]
    argv += ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(unfinished, "clear", lambda folder: None)  # as if it had been interrupted at the very end
    evaluate.main(argv)
    evaluate.main([*argv, *change])
    said = capsys.readouterr()
    assert "goes on" not in said.out
    assert "had other settings, code or images: all anew" in said.err


@pytest.mark.parametrize("change", ["code", "images", "lpips"])
def test_rows_of_other_code_images_or_features_are_measured_anew(weights, tmp_path, monkeypatch, capsys, change):
    argv = ["--generator", weights("one"), "--cases", "colorization", "--images", "6", "--k", "2"]
    argv += ["--out", str(tmp_path / "out"), "--features", "lpips", "--lpips", str(tmp_path / "weights")]
    (tmp_path / "weights").write_bytes(b"some")
    monkeypatch.setattr(evaluation, "added", lambda *_: [])
    monkeypatch.setattr(unfinished, "clear", lambda folder: None)  # as if it had been interrupted at the very end
    code, images = evaluate.provenance("cpu"), evaluation.load
    evaluate.main(argv)
    evaluate.main(argv)
    assert "goes on after 1 rows" in capsys.readouterr().out
    if change == "code":
        monkeypatch.setattr(evaluate, "provenance", lambda device: code | {"changes": "others"})
    elif change == "images":
        monkeypatch.setattr(evaluation, "load", lambda *given: replace(images(*given), digest="others"))
    else:
        (tmp_path / "weights").write_bytes(b"others")
    evaluate.main(argv)
    assert "goes on" not in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": {}}', '{"made_by": {"seed": 0}}', "\x80"])
def test_damaged_rows_are_measured_anew(tmp_path, content):
    unfinished.keep(tmp_path, {"seed": 0}, {"a case": {"one": {"best_distance": 0.5}}})
    assert unfinished.kept(tmp_path, {"seed": 0}) == {"a case": {"one": {"best_distance": 0.5}}}
    unfinished.file_in(tmp_path).write_bytes(content.encode("latin-1"))
    assert unfinished.kept(tmp_path, {"seed": 0}) == {}


def test_the_folder_is_named_after_the_generator():
    assert str(EvaluationConfig().out) == "runs/evaluate-digits"
    assert str(EvaluationConfig(out=Path(".")).out) == "."
    assert str(EvaluationConfig(generator="made/v1.2.safetensors").out) == "runs/evaluate-v1.2"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cases", "colorisation"], r"'colorisation'.*did you mean colorization\?\). Valid are 'inpainting 50 %', "),
        (["--images", "-1"], r"--images must lie in \[0, "),
        (["--k", "1"], r"--k must lie in \[2, "),
        (["--batch", "0"], r"--batch must lie in \[1, "),
        (["--split", "train"], r"--split must be one of validation, test"),
        (["--against", "digit"], r"^--against digit: no such weights; .*blur"),
        (["--generator", "blur"], r"^--generator blur: .* --against blur beside them"),
        (["--generator", "digit"], r"^--generator digit: no such weights; [^:]*shipped ones \(cifar10, [^)]*\)$"),
        (["--against", "nowhere:make"], r"^--against nowhere:make: cannot import"),
        (["--features", "lpips"], r"--features lpips and --lpips FILE need one another"),
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


@pytest.mark.parametrize("data", [{"name": "letters"}, {"sides": 3}])
def test_a_card_that_names_no_images_is_refused(weights, data):
    odd = weights("odd", card={"data": data})
    with pytest.raises(UsageError, match=r"card does not say which images"):
        evaluate.main(["--generator", odd])
    load_operators(EvaluationConfig(generator=weights("one"), against=(odd,)), CPU)


def test_nothing_to_download_is_not_blamed_on_the_card(weights, tmp_path):
    folder = weights("folder", card={"data": {"name": "imagefolder", "size": 16, "seed": 0}})
    flags = ["--data-root", str(tmp_path), "--download", "True"]
    with pytest.raises(UsageError, match=r"^--data\.download True: there is nothing to download"):
        evaluate.main(["--generator", folder, *flags])


def test_a_folder_that_cannot_be_made_is_named(weights, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*taken"):
        evaluate.main(["--generator", weights("one"), "--images", "2", "--k", "2", "--out", str(tmp_path / "taken")])
