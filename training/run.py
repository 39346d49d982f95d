"""The life of a run: where it goes on, when it logs, saves and stops. One integer, the step, is all its progress."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from configs.errors import UsageError
from training import checkpoint
from training.descent import Descent
from training.folder import RunFolder
from training.interrupt import Interrupt
from training.logbook import Logbook
from training.stopwatch import Stopwatch

MAX_SKIPPED = 20
"""Steps without a finite gradient, after which a run stops rather than goes on learning nothing."""


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can keep."""

    def state_dict(self) -> dict[str, Any]:
        """What to keep."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Take it up again."""


class Run:
    """Steps through a run: resumes it, logs, saves, and ends it cleanly.

    Args:
        folder: The run's open folder.
        parts: Everything that a step changes, by name; resumed at once if the folder holds a checkpoint.
        tags: The curves that may be noted.
        steps: Steps in all.
        log_every: Steps between points of the curves.
        save_every: Steps between checkpoints.
        show: What the progress bar shows besides steps and time: short names by tag.
        stride: How far one turn of the loop goes: more than 1 where several steps belong together.
        max_minutes: Ends the run after so much time, earlier starts included; 0: no limit.
        device: Where the steps run.

    Attributes:
        step: Steps done.
        watch: Stopwatch for the parts of a step.
        logbook: The curves.
    """

    def __init__(
        self,
        folder: RunFolder,
        parts: Mapping[str, Stateful],
        tags: frozenset[str],
        *,
        steps: int,
        log_every: int,
        save_every: int,
        show: Mapping[str, str],
        max_minutes: float,
        device: torch.device,
        stride: int = 1,
    ) -> None:
        self.folder, self.parts, self.watch = folder, parts, Stopwatch(device)
        self.step, self._seconds = 0, 0.0
        self._steps, self._log_every, self._save_every, self._stride = steps, log_every, save_every, stride
        self.show, self._limit = show, max_minutes * 60 or math.inf
        saved = checkpoint.newest_valid(folder.checkpoints, lambda message: print(message, file=sys.stderr))
        if saved:
            self._resume(saved)
        self._logged = self._saved = self.step
        self._started = time.monotonic() - self._seconds
        self.logbook = Logbook(folder.path, tags, first_step=self.step + 1 if saved else 0)
        self._shown: dict[str, str] = {}

    @property
    def seconds(self) -> float:
        """Time spent in steps, earlier starts included."""
        return self._seconds

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]: of the steps, or of the minutes where they are fewer."""
        return min(1.0, max(self.step / self._steps, self._seconds / self._limit))

    def steps(self) -> Iterator[int]:
        """Yield the number of each step (the first of each stride); after it, log, save and stop where due.

        Raises:
            UsageError: If the user asked to stop; everything is saved before.
        """
        bar = tqdm(total=self._steps, initial=self.step, unit="step", desc=self.folder.path.name, mininterval=0.5)
        self._started = time.monotonic() - self._seconds
        with Interrupt() as interrupt, bar:
            while self.step < self._steps and self._seconds < self._limit and not interrupt.requested:
                yield self.step
                self.step += self._stride
                self._seconds = time.monotonic() - self._started
                bar.update(self._stride)
                if self.step % self._log_every == 0 or self.step >= self._steps:
                    self._log()
                    bar.set_postfix(self._shown, refresh=False)
                if self.step % self._save_every == 0:
                    self.save()
            if self.step > self._logged:  # stopped between two points
                self._log()
        if self.step > self._saved:
            self.save()
        if interrupt.requested and self.step < self._steps:
            raise UsageError(
                f"stopped at step {self.step} of {self._steps}; all is saved in {self.folder.path}. "
                "The same command goes on from there"
            )

    def due(self, every: int) -> bool:
        """Whether the step in hand completes an interval (the first and the last step always do)."""
        return self.step == 0 or (self.step + 1) % every == 0 or self.step + 1 == self._steps

    def note(self, values: Mapping[str, Tensor | float]) -> None:
        """Note values for the curves, without waiting for the device."""
        self.logbook.note(values)

    def save(self) -> None:
        """Write a checkpoint."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        checkpoint.save(self.folder.checkpoints, self.step, {"parts": state, "seconds": self._seconds})
        self._saved = self.step

    def _resume(self, saved: checkpoint.Checkpoint) -> None:
        self.step, self._seconds = saved.step, saved.state["seconds"]
        for name, part in self.parts.items():
            if isinstance(part, nn.Module):
                checkpoint.load_into(part, saved.state["parts"][name], f"{saved.path}: {name}")
            else:
                part.load_state_dict(saved.state["parts"][name])
        print(f"resuming {self.folder.path} at step {self.step} of {self._steps}")

    def _log(self) -> None:
        """The one moment in `log_every` steps at which the host waits for the device."""
        for watched, seconds in self.watch.read().items():
            self.note({f"time/{watched}": seconds / (self.step - self._logged)})
        self._logged = self.step
        means = self.logbook.flush(self.step)
        self._shown |= {name: f"{means[tag]:.3g}" for tag, name in self.show.items() if tag in means}
        for name, part in self.parts.items():
            if isinstance(part, Descent) and part.skipped > MAX_SKIPPED:
                raise UsageError(
                    f"{name}: {int(part.skipped)} steps had no finite gradient and were left out; stopped at step "
                    f"{self.step}. Its step size is the first suspect: start a new run with a lower learning-rate. "
                    f"The last checkpoints are in {self.folder.checkpoints}"
                )
