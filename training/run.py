"""The life of a run: where it goes on, when it logs, saves and stops. One integer, the step, is all its progress."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from configs.errors import UsageError
from training import checkpoint
from training.checkpoint import Stateful
from training.descent import Descent
from training.folder import ROWS, RunFolder
from training.interrupt import Interrupt
from training.logbook import History, Logbook, rows
from training.origin import Origin
from training.ranks import Ranks
from training.stopwatch import Stopwatch

MAX_SKIPPED = 20
"""Steps in a row without a finite gradient, after which a run stops rather than goes on learning nothing."""
UNSAVED = 300.0
"""Seconds of work that a crash may cost; the next log point then saves. (Not sooner: what was noted since the last one
would be missing from the curves of the run that goes on.)"""


class Run:
    """Steps through a run: resumes it, logs, saves, and ends it cleanly.

    Args:
        folder: The run's open folder.
        parts: Everything that a step changes, by name, and what must not change (`Origin`); resumed at once if the
            folder holds a checkpoint.
        tags: The curves that may be noted.
        steps: Steps in all.
        log_every: Steps between points of the curves.
        save_every: Steps between checkpoints; where these take more than `UNSAVED` seconds, log points save, too.
        show: What the progress bar shows besides steps and time: short names by tag.
        stride: How far one turn of the loop goes: more than 1 where several steps belong together.
        max_minutes: Ends the run after so much time, earlier starts included; 0: no limit.
        device: Where the steps run.
        check: Looks at each point of the curves (its step's means by tag, and the step); returns what to tell the user.
        ranks: The processes that run together. All step, stop and resume alike; only rank 0 logs, saves and prints.

    Attributes:
        step: Steps done.
        seconds: Time spent in steps, earlier starts included.
        watch: Stopwatch for the parts of a step.
        logbook: The curves; of rank 0's part of each batch, where several train together.
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
        check: Callable[[dict[str, float], int], Iterable[str]] = lambda means, step: (),
        ranks: Ranks | None = None,
    ) -> None:
        self._check = check
        self.folder, self.parts, self.watch = folder, parts, Stopwatch(device)
        self.ranks = ranks or Ranks.single()
        self.step, self.seconds, self._saved, self._saved_at = 0, 0.0, 0, 0.0
        self._steps, self._log_every, self._save_every, self._stride = steps, log_every, save_every, stride
        self.show, self._limit = show, max_minutes * 60 or math.inf
        saved = self._newest()
        if saved:
            self._resume(saved)
        else:
            logged = max((row["step"] for row in rows(folder.path / ROWS)), default=0)
            folder.require_nothing_lost(is_long=logged > save_every)
        self._require_equal_replicas(self._state())
        folder.accept()
        if saved:
            folder.note_saved()
        self._logged = self._saved = self.step
        self._saved_at = self.seconds
        self._started = time.monotonic() - self.seconds
        first_step = self.step + 1 if saved else 0
        self.logbook = Logbook(folder.path, tags, first_step) if self.ranks.first else _NoLogbook()
        self._shown: dict[str, str] = {}

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]: of the steps, or of the minutes where they are fewer."""
        return min(1.0, max(self.step / self._steps, self.seconds / self._limit))

    def steps(self) -> Iterator[int]:
        """Yield the number of each step (the first of each stride); after it, log, save and stop where due.

        Raises:
            UsageError: If the user asked to stop (any of the ranks); everything is saved before.
        """
        name, hidden = self.folder.path.name, not self.ranks.first
        bar = tqdm(total=self._steps, initial=self.step, unit="step", desc=name, mininterval=0.5, disable=hidden)
        self._started = time.monotonic() - self.seconds
        with Interrupt() as interrupt, bar:
            stopped = self.ranks.any(interrupt.requested)
            while self.step < self._steps and self.seconds < self._limit and not stopped:
                yield self.step
                self.step += self._stride
                self.seconds = self.ranks.first_says(time.monotonic() - self._started)
                if self._limit < math.inf:  # the bar counts to the step at which the minutes will be over
                    bar.total = min(self._steps, max(self.step, round(self.step / self.progress)))
                bar.update(self._stride)
                logged = self.step % self._log_every == 0 or self.step >= self._steps
                if logged:
                    self._log()
                    bar.set_postfix(self._shown, refresh=False)
                overdue = logged and self.seconds - self._saved_at > UNSAVED
                if self.step % self._save_every == 0 or overdue:
                    self.save()
                stopped = self.ranks.any(interrupt.requested)
            if self.step > self._logged:  # stopped between two points
                self._log()
            if self.step > self._saved:  # before the handlers go: a second SIGTERM must not cost what the first granted
                self.save()
                stopped = self.ranks.any(interrupt.requested)
        if stopped and self.step < self._steps:
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
        """Write a checkpoint, of replicas that are equal.

        Raises:
            UsageError: If the replicas have drifted apart, or the file system refuses.
        """
        state = self._state()
        self._require_equal_replicas(state)
        if self.ranks.first:
            checkpoint.save(self.folder.checkpoints, self.step, {"parts": state, "seconds": self.seconds})
            self.folder.note_saved()
        self._saved, self._saved_at = self.step, self.seconds

    def _state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def _require_equal_replicas(self, state: Mapping[str, Any]) -> None:
        if self.ranks.same(state):
            return
        unequal = [name for name, part in state.items() if not self.ranks.same(part)]
        raise UsageError(
            f"the {self.ranks.world} replicas of {', '.join(unequal)} are not equal at step {self.step}, so their mean "
            f"gradient trains none of them; nothing was saved since step {max(self._saved, 0)}. Start all processes "
            "with the same code, settings and kind of device; the same command goes on from the last checkpoint"
        )

    def _newest(self) -> checkpoint.Checkpoint | None:
        """The checkpoint to go on from: on all ranks the one that rank 0 finds."""

        def tell(message: str) -> None:
            if self.ranks.first:
                print(message, file=sys.stderr)

        with self.ranks.in_turn():
            saved = checkpoint.newest_valid(self.folder.checkpoints, tell)
        own = saved.step if saved else 0
        wanted = self.ranks.first_says(own)
        if own != wanted:
            raise UsageError(
                f"rank 0 goes on at step {wanted:.0f}, rank {self.ranks.rank} would at step {own}: all processes must "
                f"see the same checkpoints in {self.folder.checkpoints}"
            )
        return saved

    def _resume(self, saved: checkpoint.Checkpoint) -> None:
        kept = saved.state["parts"]
        # An origin only guards: a run that began before there was one may go on without.
        missing = {name for name, part in self.parts.items() if name not in kept and not isinstance(part, Origin)}
        if missing:
            raise UsageError(
                f"{saved.path} holds no {', '.join(sorted(missing))}: another version of this project saved it. Go on "
                "with that version, or begin a new run under another name"
            )
        self.step, self.seconds = saved.step, saved.state["seconds"]
        for name, part in self.parts.items():
            if isinstance(part, nn.Module):
                checkpoint.load_into(part, kept[name], f"{saved.path}: {name}")
            elif name in kept:
                part.load_state_dict(kept[name])
        if self.ranks.first:
            print(f"resuming {self.folder.path} at step {self.step} of {self._steps}")

    def _log(self) -> None:
        """The one moment in `log_every` steps at which the host waits for the device."""
        for watched, seconds in self.watch.read().items():
            self.note({f"time/{watched}": seconds / (self.step - self._logged)})
        self._logged = self.step
        means = self.logbook.flush(self.step)
        self._shown |= {name: f"{means[tag]:.3g}" for tag, name in self.show.items() if tag in means}
        for message in self._check(means, self.step):
            tqdm.write(message, file=sys.stderr)
        for name, part in self.parts.items():
            if isinstance(part, Descent) and part.in_a_row > MAX_SKIPPED:
                raise UsageError(
                    f"{name}: {int(part.in_a_row)} steps in a row had no finite gradient and were left out; stopped at "
                    f"step {self.step}. Its step size is the first suspect: start a new run with a lower "
                    f"learning-rate. The last checkpoints are in {self.folder.checkpoints}"
                )


class _NoLogbook(Logbook):
    """Where the other ranks note: nowhere."""

    def __init__(self) -> None:
        pass

    def note(self, values: Mapping[str, Tensor | float]) -> None:
        pass

    def flush(self, step: int) -> dict[str, float]:
        return {}

    def picture(self, tag: str, image: Tensor, step: int) -> None:
        pass

    def history(self) -> History:
        return {}

    def close(self) -> None:
        pass
