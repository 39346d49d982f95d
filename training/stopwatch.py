"""How long each part of a step takes, on the device's own clock where it has one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the time of named parts.

    On a GPU it records events and reads them when asked, so that no part is waited for while the step runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time what happens inside."""
        if not self._cuda:
            start = time.perf_counter()
            yield
            self._add(part, time.perf_counter() - start)
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        yield
        last.record()
        self._events.append((part, first, last))

    def read(self) -> dict[str, float]:
        """Seconds of each part since the last reading."""
        for part, first, last in self._events:
            last.synchronize()
            self._add(part, first.elapsed_time(last) / 1000)
        seconds, self._seconds, self._events = self._seconds, {}, []
        return seconds

    def _add(self, part: str, seconds: float) -> None:
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds
