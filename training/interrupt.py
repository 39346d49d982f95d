"""Ctrl-C and SIGTERM as a wish to stop, granted at the end of a step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Context manager that notes SIGINT and SIGTERM instead of dying of them.

    A second SIGINT raises KeyboardInterrupt, for when the step does not end. Outside the main thread, where
    Python allows no signal handlers, it changes nothing and `requested` stays False.
    """

    def __init__(self) -> None:
        self._requested = False
        self._interrupted = False
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has asked the loop to stop."""
        return self._requested

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
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        self._requested = True
