"""A run's folder belongs to one run, one configuration and one process at a time."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import UsageError
from configs.reading import read
from configs.run import RunConfig
from training.folder import RunFolder
from training.ranks import Ranks

CONFIG = RunConfig()
LONGER = replace(CONFIG, schedule=replace(CONFIG.schedule, steps=900))
MAY_DIFFER = frozenset({"schedule.steps"})


def stored(path: Path) -> RunConfig:
    return read(RunConfig, ["--config", str(path / "config.yaml")], prog="p", description="")


def reopen(path: Path, config: RunConfig = CONFIG) -> None:
    RunFolder.open(path, config, MAY_DIFFER).close()


def begin(path: Path) -> None:
    """Leave a run that has come to a first checkpoint."""
    reopen(path)
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "step_00000100.safetensors").touch()


def test_the_first_opening_stores_settings_and_its_run_the_origin(tmp_path):
    path = tmp_path / "runs" / "a"
    with RunFolder.open(path, CONFIG, MAY_DIFFER) as folder:
        assert stored(path) == CONFIG
        folder.accept()
        (start,) = json.loads((path / "provenance.json").read_text())["starts"]
        assert start == folder.provenance
        assert start["versions"]["torch"]
        assert "/" not in start["command"][0]
        assert folder.checkpoints.parent == path


def test_every_opening_is_recorded_once_the_run_goes_on(tmp_path):
    for _ in range(3):
        with RunFolder.open(tmp_path, CONFIG, MAY_DIFFER) as folder:
            folder.accept()
        reopen(tmp_path)  # and is refused before it goes on
    assert len(json.loads((tmp_path / "provenance.json").read_text())["starts"]) == 3


def test_settings_of_what_has_saved_stay_until_its_checkpoints_are_back(tmp_path):
    with RunFolder.open(tmp_path, CONFIG, MAY_DIFFER) as folder:
        folder.accept()
        folder.note_saved()
    with pytest.raises(UsageError, match="other settings"):
        reopen(tmp_path, replace(CONFIG, seed=5))
    assert stored(tmp_path) == CONFIG


def test_other_settings_are_refused_and_named_and_nothing_changes(tmp_path):
    begin(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises(UsageError) as caught:
        reopen(tmp_path, replace(LONGER, seed=5, policy=replace(CONFIG.policy, mask_ratio=0.4)))
    message = str(caught.value)
    assert "--seed: stored 0, now 5" in message
    assert "--policy.mask-ratio: stored 0.3, now 0.4" in message
    assert "--name OTHER" in message
    assert "schedule.steps" not in message
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_a_start_that_came_to_nothing_binds_nobody_and_a_summary_does(tmp_path):
    reopen(tmp_path)
    other = replace(CONFIG, seed=5)
    reopen(tmp_path, other)
    assert stored(tmp_path) == other
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UsageError, match="--seed: stored 5, now 0"):
        reopen(tmp_path)


def test_curves_are_worth_keeping_where_checkpoints_were_removed(tmp_path):
    begin(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n')
    with pytest.raises(UsageError, match="--seed: stored 0, now 5"):
        reopen(tmp_path, replace(CONFIG, seed=5))
    (tmp_path / "metrics.jsonl").write_text("")
    reopen(tmp_path, replace(CONFIG, seed=5))


def test_settings_that_may_differ_are_updated(tmp_path):
    reopen(tmp_path)
    reopen(tmp_path, LONGER)
    assert stored(tmp_path) == LONGER


def test_those_of_a_run_that_has_begun_only_once_it_goes_on(tmp_path):
    begin(tmp_path)
    reopen(tmp_path, LONGER)  # and is refused before it goes on
    assert stored(tmp_path) == CONFIG
    with RunFolder.open(tmp_path, LONGER, MAY_DIFFER) as folder:
        folder.accept()
        assert stored(tmp_path) == LONGER
    before = (tmp_path / "config.yaml").stat().st_mtime_ns
    with RunFolder.open(tmp_path, LONGER, MAY_DIFFER) as folder:
        folder.accept()  # nothing to store
    assert (tmp_path / "config.yaml").stat().st_mtime_ns == before


def test_a_second_opening_is_refused_until_the_first_closes(tmp_path):
    with (
        RunFolder.open(tmp_path, CONFIG, MAY_DIFFER),
        pytest.raises(UsageError, match="in use by another process"),
    ):
        reopen(tmp_path)
    reopen(tmp_path)


def test_a_refused_opening_gives_up_the_lock(tmp_path):
    begin(tmp_path)
    with pytest.raises(UsageError, match="other settings"):
        reopen(tmp_path, replace(CONFIG, seed=5))
    reopen(tmp_path)


def test_the_lock_dies_with_its_process(tmp_path):
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UsageError, match="in use"):
            reopen(tmp_path)
        holder.kill()
    reopen(tmp_path)


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match=r"thesis.tex .*not a run's folder"):
        reopen(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_crash_before_the_settings_were_stored_is_no_obstacle(tmp_path):
    (tmp_path / "run.lock").touch()
    (tmp_path / ".config.yaml.1.partial").write_text("se")
    reopen(tmp_path)
    assert stored(tmp_path) == CONFIG


@pytest.mark.parametrize("text", ["seed: [", "sed: 1", "seed: x", ""])
def test_damaged_settings_are_named(tmp_path, text):
    begin(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"config.yaml no longer holds valid settings"):
        reopen(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == text


def test_a_folder_that_cannot_be_made_is_named_with_the_flag(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(UsageError, match=rf"cannot write to the run folder {path}.*--runs"):
            reopen(path)


def test_json_files_are_whole(tmp_path):
    with RunFolder.open(tmp_path, CONFIG, MAY_DIFFER) as folder:
        folder.write_json("results.json", {"a": [1, None]})
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": [1, None]}


def test_a_rank_that_follows_opens_without_the_lock_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Ranks, "_reduce", lambda self, tensor, how=None: tensor)  # rank 0 has opened it
    with RunFolder.open(tmp_path, CONFIG, MAY_DIFFER, Ranks(0, 2)) as first:
        first.accept()
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        with RunFolder.open(tmp_path, CONFIG, MAY_DIFFER, Ranks(1, 2)) as follower:
            follower.write_json("results.json", {})
            follower.accept()
        assert follower.checkpoints == first.checkpoints
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
        with pytest.raises(UsageError, match="in use"):  # the follower's end has not given up the lock
            reopen(tmp_path)
    (start,) = json.loads((tmp_path / "provenance.json").read_text())["starts"]
    assert start["ranks"] == 2
