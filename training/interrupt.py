"""Ctrl-C and SIGTERM as a wish to stop, granted at the end of a step."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

TOLD = b"\nstopping after the work in hand, then saving; Ctrl-C again ends at once and loses what is not saved\n"
SAME_PRESS = 1.0
"""Seconds within which a repeated signal is taken for the same wish."""


class Interrupt:
    """Context manager that notes SIGINT and SIGTERM instead of dying of them.

    A second SIGINT raises KeyboardInterrupt, for when the step does not end; not within the first second, since
    wrappers such as `timeout` deliver one press of Ctrl-C twice. Outside the main thread, where
    Python allows no signal handlers, it changes nothing and `requested` stays False.

    Attributes:
        requested: Whether a signal has asked the loop to stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interrupted_at: float | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            # None stands for a handler that was not installed from Python and so cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted_at is not None and now - self._interrupted_at > SAME_PRESS:
                raise KeyboardInterrupt
            self._interrupted_at = self._interrupted_at or now
        is_first, self.requested = not self.requested, True
        if is_first and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody may be there to be told
                os.write(sys.stderr.fileno(), TOLD)  # not `print`, which the signal may have interrupted
