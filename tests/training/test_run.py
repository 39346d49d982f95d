"""A run logs, saves and stops when it should, and goes on where it was."""

import io
import json
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from configs.errors import UsageError
from training import checkpoint
from training import run as module
from training.descent import Descent
from training.folder import RunFolder
from training.origin import Origin, Source
from training.ranks import Ranks
from training.run import MAX_SKIPPED, Run


class Sum:
    """A part that every step changes: the sum of the steps' numbers."""

    def __init__(self):
        self.value = torch.zeros(())

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def start(path, parts=None, accept=None, **changes):
    """A run of 10 steps: a point every 3, a checkpoint every 4."""
    settings = {"steps": 10, "log_every": 3, "save_every": 4, "show": {"x": "x"}, "max_minutes": 0.0}
    path.mkdir(exist_ok=True)
    ranks = changes.get("ranks", Ranks.single())
    lock = io.StringIO() if ranks.first else None
    folder = RunFolder(path, lock, SimpleNamespace(name="", device="cpu"), ranks)
    if accept:
        folder.accept = accept
    device = torch.device("cpu")
    return Run(folder, parts or {}, frozenset({"x", "time/a"}), device=device, **settings | changes)


def go(run, part=None, at_step=lambda step: None):
    """Step through the run, noting each step's number; returns the numbers."""
    seen = []
    with run.logbook:
        for step in run.steps():
            seen.append(step)
            run.note({"x": step})
            if part is not None:
                part.value = part.value + step
            at_step(step)
    return seen


def rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def saved(path):
    return sorted(int(file.stem.removeprefix("step_")) for file in (path / "checkpoints").glob("*.safetensors"))


def test_slow_steps_are_saved_at_log_points(tmp_path, monkeypatch):
    go(start(tmp_path / "quick", save_every=1000))
    monkeypatch.setattr(module, "UNSAVED", 0.0)
    kept = []
    go(start(tmp_path / "slow", save_every=1000), at_step=lambda step: kept.extend(saved(tmp_path / "slow")))
    assert saved(tmp_path / "quick") == [10]
    assert sorted(set(kept)) == [3, 6, 9]


def stop_in(step):
    """Ask to stop, as kill does, while this step runs."""
    return lambda now: os.kill(os.getpid(), signal.SIGTERM) if now == step else None


def crash_in(step):
    def crash(now):
        if now == step:
            raise RuntimeError("planted")

    return crash


def test_points_are_means_at_the_intervals_and_at_the_end(tmp_path):
    assert go(start(tmp_path)) == list(range(10))
    assert [(row["step"], row["x"]) for row in rows(tmp_path)] == [(3, 1.0), (6, 4.0), (9, 7.0), (10, 9.0)]


def test_checkpoints_are_saved_at_the_intervals_and_at_the_end(tmp_path):
    seen = {}
    go(start(tmp_path), at_step=lambda step: seen.update({step: saved(tmp_path)}))
    assert (seen[3], seen[4], seen[7], seen[8]) == ([], [4], [4], [4, 8])
    assert saved(tmp_path) == [8, 10]  # the two newest are kept


def test_a_stop_between_two_points_flushes_what_was_noted_and_saves(tmp_path):
    with pytest.raises(UsageError, match=r"stopped at step 5 of 10; all is saved"):
        go(start(tmp_path), at_step=stop_in(4))
    assert [(row["step"], row["x"]) for row in rows(tmp_path)] == [(3, 1.0), (5, 3.5)]
    assert saved(tmp_path) == [4, 5]


def test_a_stop_in_the_last_step_is_a_finished_run(tmp_path):
    assert go(start(tmp_path), at_step=stop_in(9)) == list(range(10))


@pytest.mark.parametrize("how", [stop_in(4), crash_in(6)])
def test_a_run_goes_on_at_the_saved_step_with_its_parts_restored(tmp_path, capsys, how):
    part = Sum()
    with pytest.raises((UsageError, RuntimeError)):
        go(start(tmp_path, {"part": part}), part, how)
    begin = max(saved(tmp_path))
    fresh = Sum()
    run = start(tmp_path, {"part": fresh})
    assert fresh.value == sum(range(begin))
    assert run.step == begin
    assert f"resuming {tmp_path} at step {begin} of 10\n" in capsys.readouterr().out
    assert go(run, fresh) == list(range(begin, 10))
    assert fresh.value == sum(range(10))
    steps = [row["step"] for row in rows(tmp_path)]
    assert steps == sorted(set(steps))  # a point past the checkpoint was dropped, not doubled


def test_a_finished_run_has_no_steps_left_until_more_are_asked_for(tmp_path):
    go(start(tmp_path))
    before = rows(tmp_path)
    assert go(start(tmp_path)) == []
    assert rows(tmp_path) == before
    assert go(start(tmp_path, steps=12)) == [10, 11]


def test_a_module_that_does_not_fit_is_named_and_left_as_it_was(tmp_path):
    go(start(tmp_path, {"learner": nn.Linear(2, 2)}))
    other = nn.Linear(3, 2)
    before = other.weight.clone()
    with pytest.raises(UsageError, match=r"learner does not fit .*weight has shape \(2, 2\), expected \(2, 3\)"):
        start(tmp_path, {"learner": other})
    assert torch.equal(other.weight, before)


def test_a_checkpoint_without_a_part_is_of_another_version(tmp_path):
    go(start(tmp_path, {"part": Sum()}))
    with pytest.raises(UsageError, match=r"step_00000010\.safetensors holds no alarms, origin: another version"):
        start(tmp_path, {"part": Sum(), "origin": Sum(), "alarms": Sum()})


def made_of(content):
    return Origin({"images": Source(content, "put them back")}, "--name OTHER")


def test_a_run_goes_on_with_what_it_was_made_of_and_only_then_accepts_its_settings(tmp_path):
    part, accepted = Sum(), []
    go(start(tmp_path, {"origin": made_of("a"), "part": part}, lambda: accepted.append("fresh")), part)
    assert accepted == ["fresh"]
    fresh = Sum()
    with pytest.raises(UsageError, match=r"other images: put them back, or choose --name OTHER"):
        start(tmp_path, {"origin": made_of("b"), "part": fresh}, lambda: pytest.fail("accepted"))
    assert fresh.value == 0
    start(tmp_path, {"origin": made_of("a"), "part": fresh}, lambda: accepted.append("resumed"))
    assert (accepted, fresh.value) == (["fresh", "resumed"], part.value)


def test_a_checkpoint_from_before_there_was_an_origin_goes_on_without(tmp_path):
    go(start(tmp_path, {"part": Sum()}))
    assert start(tmp_path, {"origin": made_of("a"), "part": Sum()}).step == 10


def damage(path, count):
    for step in saved(path)[-count:]:
        file = path / "checkpoints" / f"step_{step:08d}.safetensors"
        file.write_bytes(file.read_bytes()[:-1])


def test_a_damaged_newest_checkpoint_falls_back_to_an_older_one(tmp_path, capsys):
    part = Sum()
    go(start(tmp_path, {"part": part}), part)
    damage(tmp_path, 1)
    fresh = Sum()
    run = start(tmp_path, {"part": fresh})
    (message,) = [line for line in capsys.readouterr().err.splitlines() if "skipped the checkpoint" in line]
    assert "step_00000010.safetensors, which is damaged" in message
    assert (run.step, fresh.value) == (8, sum(range(8)))
    assert go(run, fresh) == [8, 9]
    assert fresh.value == sum(range(10))
    assert [row["step"] for row in rows(tmp_path)] == [3, 6, 9, 10]


def removed(path):
    shutil.rmtree(path / "checkpoints")


@pytest.mark.parametrize("lose", [removed, lambda path: damage(path, 9)], ids=["removed", "damaged"])
def test_a_run_without_a_checkpoint_to_go_on_from_is_not_overwritten(tmp_path, lose):
    go(start(tmp_path))
    before = rows(tmp_path)
    lose(tmp_path)
    with pytest.raises(UsageError, match=r"no whole checkpoint to go on from.* choose --name OTHER .* or delete"):
        start(tmp_path)
    assert rows(tmp_path) == before


def test_a_run_that_has_ended_is_not_overwritten(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UsageError, match="no whole checkpoint to go on from"):
        start(tmp_path)


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(tmp_path):
    with pytest.raises(ZeroDivisionError):
        go(start(tmp_path), at_step=lambda step: step == 3 and 1 / 0)
    assert [row["step"] for row in rows(tmp_path)] == [3]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".step_00000004.safetensors.17.partial").touch()  # killed while it was written
    assert go(start(tmp_path)) == list(range(10))


def test_a_run_that_was_stopped_before_its_first_interval_is_not_overwritten(tmp_path):
    with pytest.raises(UsageError, match="stopped at step 2 of 10"):
        go(start(tmp_path), at_step=stop_in(1))
    removed(tmp_path)
    with pytest.raises(UsageError, match="no whole checkpoint to go on from"):
        start(tmp_path)


def test_a_run_of_an_older_version_is_not_overwritten_either(tmp_path):
    go(start(tmp_path))
    origin = tmp_path / "provenance.json"
    kept = json.loads(origin.read_text())
    assert kept.pop("saved") is True
    origin.write_text(json.dumps(kept))
    start(tmp_path)  # goes on, and notes it
    assert json.loads(origin.read_text())["saved"] is True
    origin.write_text(json.dumps(kept))
    removed(tmp_path)
    with pytest.raises(UsageError, match="no whole checkpoint to go on from"):
        start(tmp_path)


def test_a_signal_during_the_last_save_ends_a_run_whose_time_is_over(tmp_path, monkeypatch):
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *given: os.kill(os.getpid(), signal.SIGTERM) or save(*given))
    with pytest.raises(UsageError, match="stopped at step 1 of 10"):
        go(start(tmp_path, max_minutes=1e-9))
    assert saved(tmp_path) == [1]


def test_a_signal_during_the_last_save_costs_nothing(tmp_path, monkeypatch):
    part, save = Sum(), checkpoint.save

    def signalled(folder, step, state):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        save(folder, step, state)

    monkeypatch.setattr(checkpoint, "save", signalled)
    with pytest.raises(UsageError, match="stopped at step 6 of 10; all is saved"):
        go(start(tmp_path, {"part": part}), part, stop_in(5))
    assert saved(tmp_path)[-1] == 6


class Clock:
    """Stands in for the module `time`."""

    now = 0.0

    def monotonic(self):
        return self.now

    def second(self, step):
        self.now += 1


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_minutes_end_a_run_without_an_error_and_count_over_all_starts(tmp_path, clock):
    run = start(tmp_path, max_minutes=5 / 60)
    clock.now += 1000  # getting ready is no step
    assert go(run, at_step=clock.second) == [0, 1, 2, 3, 4]
    assert (run.seconds, run.progress) == (5, 1.0)
    assert [row["step"] for row in rows(tmp_path)] == [3, 5]
    assert saved(tmp_path) == [4, 5]
    clock.now += 1000
    assert go(start(tmp_path, max_minutes=5 / 60)) == []
    run = start(tmp_path, max_minutes=7 / 60)
    assert go(run, at_step=clock.second) == [5, 6]
    assert run.seconds == 7


def test_progress_is_the_share_of_steps_or_of_minutes_whichever_is_larger(tmp_path, clock):
    run = start(tmp_path, max_minutes=40 / 60)
    shares = []
    go(run, at_step=lambda step: shares.append(run.progress))
    assert shares == [step / 10 for step in range(10)]
    run = start(tmp_path, steps=30, max_minutes=8 / 60)
    shares.clear()
    go(run, at_step=lambda step: (shares.append(run.progress), clock.second(step)))
    assert shares == [pytest.approx(max(step / 30, (step - 10) / 8)) for step in range(10, 18)]


def test_a_stride_is_one_turn_of_the_loop(tmp_path):
    assert go(start(tmp_path, stride=2, log_every=4)) == [0, 2, 4, 6, 8]
    assert [row["step"] for row in rows(tmp_path)] == [4, 8, 10]
    assert saved(tmp_path) == [8, 10]


def test_the_last_stride_is_taken_whole(tmp_path):
    run = start(tmp_path, stride=4, log_every=4)
    assert go(run) == [0, 4, 8]
    assert (run.step, run.progress) == (12, 1.0)
    assert [row["step"] for row in rows(tmp_path)] == [4, 8, 12]
    assert saved(tmp_path) == [8, 12]


def test_due_at_the_first_step_the_last_and_each_interval(tmp_path):
    run = start(tmp_path)
    due = []
    go(run, at_step=lambda step: due.append(step) if run.due(4) else None)
    assert due == [0, 3, 7, 9]


def test_watched_time_is_told_by_the_step(tmp_path, monkeypatch):
    run = start(tmp_path)
    monkeypatch.setattr(run, "watch", SimpleNamespace(read=lambda: {"a": 6.0}))
    go(run)
    assert [row["time/a"] for row in rows(tmp_path)] == [2.0, 2.0, 2.0, 6.0]


@pytest.mark.parametrize("allowed", [True, False])
def test_too_many_skipped_steps_end_a_run_and_name_the_settings(tmp_path, allowed):
    weights = nn.Linear(1, 1)
    descent = Descent(weights, 0.1)
    run = start(tmp_path, {"learner's descent": descent}, steps=40, log_every=1)
    stray = MAX_SKIPPED + 1 if allowed else 40  # one good step after so many keeps the run going

    def step(number):
        descent.step(weights(torch.ones(1)).sum() * (1.0 if number % stray == stray - 1 else float("nan")))

    if allowed:
        go(run, at_step=step)
        assert descent.skipped > MAX_SKIPPED
        return
    with pytest.raises(UsageError) as caught:
        go(run, at_step=step)
    assert run.step == MAX_SKIPPED + 1
    for words in ("learner's descent: 21 steps", "stopped at step 21", "learning-rate", str(run.folder.checkpoints)):
        assert words in str(caught.value)
    assert max(saved(tmp_path)) <= MAX_SKIPPED  # what is resumed is still within the bound


def test_a_rank_that_follows_steps_and_writes_and_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Ranks, "_reduce", lambda self, tensor, how=None: tensor)  # the others have nothing to add
    part = Sum()
    run = start(tmp_path, {"part": part}, ranks=Ranks(1, 2))
    assert go(run, part) == list(range(10))
    run.logbook.picture("views", torch.zeros(3, 2, 2), 0)
    assert run.logbook.history() == {}
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_rank_that_sees_other_checkpoints_than_rank_0_is_refused(tmp_path, monkeypatch):
    go(start(tmp_path))
    monkeypatch.setattr(Ranks, "_reduce", lambda self, tensor, how=None: tensor)  # rank 0 finds nothing: step 0
    with pytest.raises(UsageError, match=r"rank 0 goes on at step 0, rank 1 would at step 10: .*checkpoints"):
        start(tmp_path, ranks=Ranks(1, 2))
