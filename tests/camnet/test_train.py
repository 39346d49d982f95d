"""A training of CAMNet that was cut and resumed equals an uncut one bit for bit."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from camnet import frozen, tasks, train, trainer
from camnet.generator import Generator
from camnet.layout import Palette, labels_of
from configs.camnet import CamnetConfig
from configs.data import DataConfig
from configs.errors import UsageError
from configs.reading import read
from env.images import ImageSet, load
from training import checkpoint
from training.logbook import history
from training.run import Run

TINY = shlex.split(
    "--steps 16 --group 2 --reuse 2 --adaptive 0.5 --batch 2 --candidates 3 2 2 --recolor True --flip True "
    "--grids 2 4 --pure 0.3 --picture-every 1 --ema 0.5 --device cpu --out tiny.safetensors "
    "--generator.widths 8 8 8 --generator.blocks 1 --generator.global-code 4 --generator.factors 5 "
    "--generator.tasks mix layout decompression --generator.layout-classes 3 --measured 3"
)


DIGITS = load(DataConfig(), torch.device("cpu"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One thread, and three images behind the curves."""
    monkeypatch.setattr(train, "WATCHED", 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for each training; runs/ and the weights lie below it."""

    def enter(name):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        return tmp_path / name

    return enter


def cut_after(monkeypatch, rounds, how):
    """Let the training be interrupted in the round after `rounds`."""
    original, done = train.Trainer.round, []

    def round_until_cut(self, step, progress):
        done.append(step)
        if len(done) > rounds:
            how()
        yield from original(self, step, progress)

    monkeypatch.setattr(train.Trainer, "round", round_until_cut)


def crash():
    raise RuntimeError("planted")


def signalled():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("rounds", [0, 2])
def test_interrupted_and_resumed_equals_uncut(place, monkeypatch, capsys, rounds):
    uncut = place("uncut")
    train.main(TINY)
    cut = place("cut")
    with monkeypatch.context() as patch:
        cut_after(patch, rounds, signalled)
        with pytest.raises(UsageError, match=rf"stopped at step {4 * rounds + 4} of 16; all is saved"):
            train.main(TINY)
    assert not (cut / "tiny.safetensors").exists()
    train.main(TINY)
    assert f"resuming runs/camnet-tiny at step {4 * rounds + 4} of 16\n" in capsys.readouterr().out
    assert (cut / "tiny.safetensors").read_bytes() == (uncut / "tiny.safetensors").read_bytes()
    cards = [json.loads((folder / "tiny.json").read_text()) for folder in (cut, uncut)]
    assert cards[0]["validation"] == cards[1]["validation"]
    assert cards[0]["steps"] == cards[1]["steps"] == 16


def test_a_crash_loses_no_more_than_the_last_checkpoint(place, monkeypatch):
    uncut = place("uncut")
    train.main(TINY)
    cut = place("cut")
    for rounds, how, error in ((1, signalled, UsageError), (1, crash, RuntimeError)):
        with monkeypatch.context() as patch:
            cut_after(patch, rounds, how)
            with pytest.raises(error):
                train.main(TINY)
    train.main(TINY)
    assert (cut / "tiny.safetensors").read_bytes() == (uncut / "tiny.safetensors").read_bytes()


def test_weights_are_exported_before_they_are_measured(place, monkeypatch, capsys):
    folder = place("a")
    flags = [*TINY, "--steps", "8", "--generator.tasks", "mix"]
    with monkeypatch.context() as patch:
        patch.setattr(train, "figures", lambda *_: crash())
        with pytest.raises(RuntimeError, match="planted"):
            train.main(flags)
    assert "tiny.safetensors: the weights are written, their figures are yet to be" in capsys.readouterr().out
    assert frozen.load(str(folder / "tiny.safetensors"), torch.device("cpu")).card["validation"] is None
    weights = (folder / "tiny.safetensors").read_bytes()
    train.main(flags)
    assert (folder / "tiny.safetensors").read_bytes() == weights
    card = frozen.load(str(folder / "tiny.safetensors"), torch.device("cpu")).card
    assert card["validation"]["images"] == 3
    assert {values.keys() >= set(train.SHOWN) for values in card["validation"]["cases"].values()} == {True}
    assert re.search(r"8 steps in \d+ s; distance random-relu16\+l1\n", capsys.readouterr().out)


def test_a_training_that_ends_by_the_clock_exports_its_weights(place):
    folder = place("a")
    train.main([*TINY, "--steps", "100000", "--max-minutes", "1e-6", "--generator.tasks", "mix"])
    operator = frozen.load(str(folder / "tiny.safetensors"), torch.device("cpu"))
    assert operator.card["steps"] == 4  # one round takes longer than that
    assert operator.card["validation"]["cases"]


@pytest.mark.parametrize("every", [1, 5])
def test_the_final_weights_are_watched_once(place, monkeypatch, every):
    """Of two rounds the first and, whatever the interval, the last."""
    folder, seen = place("a"), []

    def watch(trainer, images):
        seen.append({name: value.clone() for name, value in trainer.averaged.state_dict().items()})
        return {"camnet/diversity": torch.tensor(float(len(seen)))}, {}

    monkeypatch.setattr(train, "watch", watch)
    monkeypatch.setattr(train, "measure", lambda *_: {"cases": {}})
    flags = [*TINY, "--steps", "8", "--picture-every", str(every), "--log-every", "1", "--generator.tasks", "mix"]
    for _ in range(2):  # the second time there is nothing to do
        train.main(flags)
        assert len(seen) == 2
    exported = load_file(folder / "tiny.safetensors")
    assert all(torch.equal(value, exported[name]) for name, value in seen[-1].items())
    steps, values = history(folder / "runs" / "camnet-tiny" / "metrics.jsonl")["camnet/diversity"]
    assert (steps, values) == ([4, 8], [1, 2])


def test_a_card_tells_the_settings_and_the_time_of_all_trainings():
    config = read(CamnetConfig, [*TINY, "--start", "unopened"], prog="", description="")
    t = trainer.Trainer(config, DIGITS.train, torch.device("cpu"))
    t.origin.before = {"seconds": 7.5, "before": {"steps": 3, "before": {"seconds": 20.0, "before": None}}}
    run = object.__new__(Run)
    run.step, run.seconds = 16, 2.04
    card = train.card_of(t, run, TINY, {})
    assert (card["seconds"], card["seconds_total"]) == (2.0, 29.5)
    rebuilt = CamnetConfig(generator=config.generator, data=config.data, **card["settings"])
    assert replace(rebuilt, out=config.out) == config


def test_the_result_loads_is_averaged_and_differs_by_seed(place):
    folder = place("a")
    train.main(TINY)
    operator = frozen.load(str(folder / "tiny.safetensors"), torch.device("cpu"))
    assert operator.card["command"] == "python -m camnet.train " + " ".join(TINY)
    assert operator.card["class_names"] == [str(digit) for digit in range(10)]
    saved = checkpoint.newest_valid(folder / "runs" / "camnet-tiny" / "checkpoints", pytest.fail)
    for name, value in load_file(folder / "tiny.safetensors").items():
        assert torch.equal(value, saved.state["parts"]["averaged"][name]), name
        assert not torch.equal(value, saved.state["parts"]["generator"][name]), name
    other = place("b")
    train.main([*TINY, "--seed", "1"])
    assert (other / "tiny.safetensors").read_bytes() != (folder / "tiny.safetensors").read_bytes()


def test_recoloring_keeps_the_shapes_and_changes_the_colors():
    x = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    y = trainer.recolor(x, torch.Generator().manual_seed(1))
    upright = torch.isclose(y.mean(dim=1), x.mean(dim=1), atol=1e-6).all(dim=(1, 2))
    inverted = torch.isclose(y.mean(dim=1), 1 - x.mean(dim=1), atol=1e-6).all(dim=(1, 2))
    assert (upright | inverted).all()
    assert 0.35 < inverted.float().mean() < 0.65
    assert not torch.allclose(y[upright], x[upright])
    values = torch.where(inverted.view(-1, 1, 1, 1), 1 - y, y)
    assert torch.allclose(values.sort(dim=1).values, x.sort(dim=1).values, atol=1e-6)


MAPS = [
    *TINY,
    *("--data", "imagefolder", "--data.size", "16", "--data.root", "photos"),
    *("--generator.tasks", "layout", "--layouts", "maps", "--steps", "8"),
]


def photos(folder, classes=3):
    """Pictures of two halves, and maps that say which; the first row is void."""
    draws = np.random.default_rng(0)
    (folder / "all").mkdir(parents=True)
    for number in range(60):
        values = np.repeat(draws.integers(0, classes, 2), 8)[:, None].repeat(16, axis=1).astype(np.uint8)
        Image.fromarray(values * 80).convert("RGB").save(folder / "all" / f"{number}.png")
        values[0] = 255
        Image.fromarray(values).save(folder / "all" / f"{number}_mask.png")


def test_maps_beside_the_images_are_trained_and_measured_on(place, monkeypatch, capsys):
    folder = place("a")
    photos(folder / "photos")
    drawn = []
    monkeypatch.setattr(tasks, "labels_of", lambda maps: drawn.append(maps) or labels_of(maps))
    monkeypatch.setattr(Palette, "fit", lambda *_: pytest.fail("asks for a palette"))
    train.main(MAPS)
    assert all((maps[:, 0] == 255).all() and set(maps[:, 1:].unique().tolist()) <= {0, 1, 2} for maps in drawn)
    card = json.loads((folder / "tiny.json").read_text())
    assert (card["layouts"], card["palette"]) == ("maps", None)
    assert "layout" in card["validation"]["cases"]
    assert {len(maps) for maps in drawn} == {4, 3}  # rounds, and both kinds of measurements


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: photos(folder, 5), r"layout-classes 3: .* need --generator\.layout-classes 5"),
        (lambda folder: (photos(folder), (folder / "all/9_mask.png").unlink()), r"1 of 60 images have no map"),
    ],
)
def test_maps_that_do_not_fit_are_refused(place, capsys, spoil, message):
    folder = place("a")
    spoil(folder / "photos")
    with pytest.raises(UsageError, match=message):
        train.main(MAPS)


@pytest.mark.parametrize("asked", [True, False])
def test_unlabelled_images_are_trained_on_where_asked_for(place, monkeypatch, asked):
    place("a")
    known = load(DataConfig(), torch.device("cpu"))
    more = ImageSet(known.train.pixels.repeat(2, 1, 1, 1), known.train.labels.repeat(2))
    monkeypatch.setattr(train, "load", lambda *_: known)
    monkeypatch.setattr(train, "with_unlabeled", lambda images, config: more)
    monkeypatch.setattr(train, "Trainer", lambda config, images, *_: pytest.fail(f"{len(images)} images"))
    with pytest.raises(pytest.fail.Exception, match=str(len(more if asked else known.train))):
        train.main([*TINY, "--data", "stl10", "--data.size", "16", "--unlabeled", str(asked)])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--layouts maps", "only the images of --data imagefolder can have maps, not digits"),
        ("--layouts maps --data imagefolder --generator.tasks mix", "add layout to --generator.tasks"),
        ("--unlabeled True", "only --data stl10 has unlabelled images, not digits"),
        ("--unlabeled True --data stl10 --data.classes cat", "nobody knows which .* --data.classes"),
        ("--unlabeled True --data stl10 --features classifier", "--features classifier learns from labels"),
    ],
)
def test_images_that_cannot_have_what_is_asked_for_are_refused(place, flags, message):
    place("a")
    with pytest.raises(UsageError, match=message):
        train.main([*TINY, "--data.size", "16", *flags.split()])


def test_a_bad_setting_is_refused_before_any_work(place):
    folder = place("a")
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        train.main([*TINY, "--out", "weights.pt"])
    assert not list(folder.iterdir())


def test_a_resumed_training_may_write_elsewhere(place, monkeypatch):
    place("a")
    for out, steps in (("tiny.safetensors", 4), ("made/tiny.safetensors", 8)):
        with monkeypatch.context() as patch:
            cut_after(patch, 0, signalled)
            with pytest.raises(UsageError, match=f"stopped at step {steps} of 16"):
                train.main([*TINY, "--out", out])


def test_a_resumed_training_names_the_weights_that_it_began_with_and_keeps_its_images(place, monkeypatch):
    folder = place("a")
    generator = read(CamnetConfig, TINY, prog="", description="").generator
    donor = {"generator": asdict(generator), "data": {"name": "digits", "size": 16, "seed": 0}, "steps": 7}
    frozen.save(Generator(generator), folder / "donor.safetensors", donor)
    flags = [*TINY, "--start", "donor.safetensors", "--steps", "8"]
    with monkeypatch.context() as patch:
        cut_after(patch, 0, signalled)
        with pytest.raises(UsageError, match="stopped at step 4 of 8"):
            train.main(flags)
    (folder / "donor.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("env.images.MIN_CONTRAST", 0.5)  # other colors
        with pytest.raises(UsageError, match=r"other source images: .*--data\.root.* choose an --out of another name"):
            train.main(flags)
    train.main(flags)
    assert json.loads((folder / "tiny.json").read_text())["before"]["steps"] == 7


def test_a_resumed_training_keeps_its_weights_of_lpips(place, monkeypatch):
    folder = place("a")
    (folder / "vgg").write_bytes(b"some")
    flags = [*TINY, "--steps", "8", "--features", "lpips", "--lpips", "vgg"]
    monkeypatch.setattr("camnet.trainer.added", lambda *_: [])
    with monkeypatch.context() as patch:
        cut_after(patch, 0, signalled)
        with pytest.raises(UsageError, match="stopped at step 4 of 8"):
            train.main(flags)
    (folder / "vgg").write_bytes(b"others")
    with pytest.raises(UsageError, match=r"other LPIPS weights: put the former file back as vgg, or choose an"):
        train.main(flags)
    (folder / "vgg").write_bytes(b"some")
    train.main(flags)


def test_weights_of_another_training_are_not_replaced(place):
    folder = place("a")
    (folder / "tiny.safetensors").write_bytes(b"another's")
    with pytest.raises(UsageError, match=r"--out tiny\.safetensors: weights of another training are there; remove"):
        train.main(TINY)
    assert (folder / "tiny.safetensors").read_bytes() == b"another's"
    (folder / "tiny.safetensors").unlink()
    train.main([*TINY, "--steps", "4"])
    (folder / "b").mkdir()  # the same name elsewhere: it goes on in the same run
    for made, name in ((json.loads((folder / "tiny.json").read_text()), "own"), ({"provenance": {}}, "another's")):
        (folder / "b" / "tiny.safetensors").write_bytes(name.encode())
        (folder / "b" / "tiny.json").write_text(json.dumps(made))
        with contextlib.nullcontext() if name == "own" else pytest.raises(UsageError, match="of another training"):
            train.main([*TINY, "--steps", "4", "--out", "b/tiny.safetensors"])
    assert (folder / "b" / "tiny.safetensors").read_bytes() == b"another's"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(place):
    folder = place("a")
    (folder / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write file/tiny\.safetensors"):
        train.main([*TINY, "--out", "file/tiny.safetensors"])
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_few_images_are_restored_at_once_for_the_curves(monkeypatch):
    config = read(CamnetConfig, TINY, prog="", description="")
    t, images = trainer.Trainer(config, DIGITS.train, torch.device("cpu")), DIGITS.validation.thinned(20)
    views, sizes = frozen.FrozenGenerator.views, []
    monkeypatch.setattr(
        frozen.FrozenGenerator, "views", lambda own, some, *rest: sizes.append(len(some)) or views(own, some, *rest)
    )
    curves, sheets = train.watch(t, images, k=2)
    assert sizes == 3 * [8, 8, 4]
    assert all(value.isfinite() for value in curves.values())
    assert list(sheets) == ["mix", "layout", "decompression"]


def test_two_processes_train_one_generator(place):
    """As a user would start them; tests/training/test_ranks.py has the rest."""
    folder = place("two")
    flags = [*TINY, "--steps", "8", "--picture-every", "100", "--generator.tasks", "mix", "--adversarial-weight", "1"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "camnet.train",
    ]
    paths = {"PYTHONPATH": str(Path(train.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([*command, *flags], env=os.environ | paths, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("tiny.safetensors: 8 steps in") == 1
    card = json.loads((folder / "tiny.json").read_text())
    assert card["provenance"]["ranks"] == 2
    alone = place("one")
    train.main(flags)
    assert (alone / "tiny.safetensors").read_bytes() != (folder / "tiny.safetensors").read_bytes()  # half of the images
