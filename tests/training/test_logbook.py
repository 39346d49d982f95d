"""Curves are means between flushes, of announced names alone, and go on seamlessly after a resume."""

import json
import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.errors import UsageError
from training.folder import ROWS
from training.logbook import Logbook, history

TAGS = frozenset({"a", "b", "picture"})


def test_a_flush_writes_the_mean_since_the_last(tmp_path):
    with Logbook(tmp_path, TAGS, 0) as logbook:
        logbook.note({"a": torch.tensor(1.0), "b": 4})
        logbook.note({"a": torch.tensor(2.0)})
        logbook.note({"a": 6.0})
        assert logbook.flush(3) == {"a": 3.0, "b": 4.0}
        assert logbook.flush(4) == {}
        logbook.note({"a": 7.0})
        assert logbook.flush(5) == {"a": 7.0}
        assert logbook.history() == {"a": ([3, 5], [3.0, 7.0]), "b": ([3], [4.0])}


def test_noting_copies_and_keeps_no_graph(tmp_path):
    with Logbook(tmp_path, TAGS, 0) as logbook:
        average = torch.tensor(1.0)
        weight = torch.tensor(2.0, requires_grad=True)
        logbook.note({"a": average, "b": weight * 1})
        average.add_(10)
        assert logbook.flush(0) == {"a": 1.0, "b": 2.0}


def no_space(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_a_sentence_and_hides_nothing_that_went_wrong_before(tmp_path, monkeypatch):
    logbook = Logbook(tmp_path, TAGS, 0)
    monkeypatch.setattr(logbook._writer, "close", no_space)
    with pytest.raises(UsageError, match="No space left"), logbook:
        logbook.note({"a": 1.0})
    with pytest.raises(ZeroDivisionError), logbook:
        raise ZeroDivisionError


def test_an_unannounced_name_is_refused(tmp_path):
    with Logbook(tmp_path, TAGS, 0) as logbook:
        with pytest.raises(ValueError, match="'c' is not among"):
            logbook.note({"c": 1.0})
        with pytest.raises(ValueError, match="'c' is not among"):
            logbook.picture("c", torch.rand(3, 4, 4), 0)
        with pytest.raises(ValueError, match="scalar"):
            logbook.note({"a": torch.rand(2)})
        with pytest.raises(ValueError, match=r"\(3, h, w\)"):
            logbook.picture("picture", torch.rand(4, 4), 0)


def test_nan_is_a_value_like_any_other(tmp_path):
    with Logbook(tmp_path, TAGS, 0) as logbook:
        logbook.note({"a": torch.tensor(float("nan")), "b": math.inf})
        logbook.flush(1)
        curves = logbook.history()
    assert math.isnan(curves["a"][1][0])
    assert curves["b"][1] == [math.inf]


def test_a_resumed_run_overwrites_what_lies_past_its_checkpoint(tmp_path):
    with Logbook(tmp_path, TAGS, 0) as logbook:
        for step in range(6):
            logbook.note({"a": float(step)})
            logbook.flush(step)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "a": 9')  # a kill in the middle of a line
    with Logbook(tmp_path, TAGS, 3) as logbook:
        assert logbook.history() == {"a": ([0, 1, 2], [0.0, 1.0, 2.0])}
        logbook.note({"a": 30.0})
        logbook.flush(3)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["a"]) for row in rows] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(0, 0), (1, 1), (2, 2), (3, 30)]


def test_curves_are_read_without_what_a_crash_cut_and_none_where_there_are_none(tmp_path):
    assert history(tmp_path / ROWS) == {}
    (tmp_path / ROWS).write_text('{"step": 10, "a": 0.5, "b": 1}\n{"step": 20, "a": 0.25}\n{"step": 30, "a')
    assert history(tmp_path / ROWS) == {"a": ([10, 20], [0.5, 0.25]), "b": ([10], [1])}


def test_a_picture_reaches_tensorboard(tmp_path):
    with Logbook(tmp_path, TAGS, 0) as logbook:
        logbook.picture("picture", torch.rand(3, 5, 7), 2)
    (image,) = EventAccumulator(str(tmp_path)).Reload().Images("picture")
    assert (image.step, image.height, image.width) == (2, 5, 7)
