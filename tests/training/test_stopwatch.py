"""The stopwatch adds up the time of named parts; reading it starts anew."""

import pytest
import torch

from training import stopwatch
from training.stopwatch import Stopwatch


class Clock:
    """Stands in for the module `time`."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def test_times_of_a_part_add_up_and_parts_stay_apart(clock):
    watch = Stopwatch(torch.device("cpu"))
    for seconds in (1.0, 2.5):
        with watch("data"):
            clock.now += seconds
        clock.now += 50  # outside of any part
        with watch("learner"):
            clock.now += 10 * seconds
    assert watch.read() == {"data": 3.5, "learner": 35.0}


def test_reading_resets(clock):
    watch = Stopwatch(torch.device("cpu"))
    with watch("data"):
        clock.now += 1
    first = watch.read()
    assert watch.read() == {}
    with watch("data"):
        clock.now += 2
    assert watch.read() == {"data": 2.0}
    assert first == {"data": 1.0}  # what was read does not change afterwards
