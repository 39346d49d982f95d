"""docs/metrics.md explains every curve that is logged, and no other."""

import json
import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import run_rl
from camnet import train
from env import reference
from training import tags

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "metrics.md"


def documented() -> set[str]:
    """Every name between backticks in the first column of the page's tables."""
    cells = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.lstrip().startswith("|")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with all its curves."""
    runs = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "DRAWS", 1)
        patch.setattr(run_rl.pictures, "draw", lambda sheets, path: None)
        patch.setattr(run_rl.curves, "draw", lambda history, panels, path: None)
        smoke = ["--config", str(ROOT / "configs" / "smoke.yaml"), "--device", "cpu", "--name", "run"]
        run_rl.main([*smoke, "--runs", str(runs), "--schedule.batch", "16", "--reward.reference.batch", "16"])
    torch.set_num_threads(threads)
    return runs / "run"


def test_the_page_explains_all_and_nothing_else():
    assert documented() == tags.RUN | tags.CAMNET


def test_a_run_logs_all_that_is_announced(folder):
    events = EventAccumulator(str(folder)).Reload().Tags()
    assert set(events["scalars"]) | set(events["images"]) == tags.RUN
    assert events["images"] == ["views"]


def test_the_rows_hold_the_same_curves(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert set().union(*rows) == (tags.RUN - {"views"}) | {"step"}
    events = EventAccumulator(str(folder)).Reload()
    for tag in ("learner/loss", "evaluate/knn_top1", "reward/average"):
        written = [(row["step"], row[tag]) for row in rows if tag in row]
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in shown] == [step for step, _ in written]
        assert [value for _, value in shown] == pytest.approx([value for _, value in written], rel=1e-6)


def test_a_training_of_camnet_logs_all_that_is_announced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "WATCHED", 2)
    sizes = ["--generator.widths", *"888", "--generator.blocks", "1", "--candidates", *"222", "--generator.prior", "2"]
    sizes += [
        "--generator.painter",
        *"888",
        "--generator.colorist",
        *"888",
        "--generator.schemes",
        "2",
        "--paintings",
        "2",
    ]
    tasks = ["--generator.tasks", "mix", "decompression", "layout", "--picture-every", "1", "--log-every", "1"]
    length = ["--steps", "2", "--group", "1", "--batch", "2", "--measured", "2"]
    train.main([*sizes, *tasks, *length, "--adversarial-weight", "1", "--device", "cpu", "--out", "w.safetensors"])
    folder = tmp_path / "runs" / "camnet-w"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    pictures = {tag for tag in tags.CAMNET if tag.startswith("samples/")}
    assert set().union(*rows) == tags.CAMNET - pictures | {"step"}
    logged = EventAccumulator(str(folder)).Reload().Tags()
    assert set(logged["scalars"]) == tags.CAMNET - pictures
    assert set(logged["images"]) == pictures


def test_pictures_and_progress_show_known_curves():
    assert {tag for panel in tags.PANELS.values() for tag in panel} <= tags.RUN
    assert tags.SHOWN.keys() <= tags.RUN
