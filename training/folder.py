"""The folder of one run: its lock, its settings, its origin. A run is never overwritten."""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from configs.errors import UsageError
from configs.reading import differences, read, write
from training.atomic import TEMPORARY, write_atomically, write_json
from training.provenance import provenance
from training.ranks import Ranks

LOCK = "run.lock"
SETTINGS, CHECKPOINTS = "config.yaml", "checkpoints"
ORIGIN, SUMMARY, ROWS = "provenance.json", "summary.json", "metrics.jsonl"
SAVED = "saved"
"""In provenance.json: whether the run has saved a checkpoint."""


class RunFolder:
    """An open run folder, locked against other processes until closed; `open` makes one.

    Attributes:
        path: The folder.
        checkpoints: Its subfolder for checkpoints.
        provenance: Code, versions, machine and command of this opening; `ranks`, where several train together.
    """

    def __init__(self, path: Path, lock: IO[str] | None, config: Any, ranks: Ranks) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINTS
        self.provenance = provenance(getattr(config, "device", "auto"))
        if ranks.world > 1:
            self.provenance["ranks"] = ranks.world
        self._lock, self._elsewhere, self._is_noted = lock, _elsewhere(config), False
        self._unsettled: Any = None  # settings that differ from the stored ones, until the run goes on with them

    @classmethod
    def open(cls, path: Path, config: Any, may_differ: frozenset[str], ranks: Ranks | None = None) -> "RunFolder":
        """Make a run's folder, or go on in it with the same settings.

        Args:
            path: The folder, made if need be.
            config: The configuration; compared with what is stored as config.yaml, or stored there. Of a run that is
                there already it takes the place of the stored one only once that goes on (`accept`).
            may_differ: Dotted flag names (`schedule.steps`) whose values may change within a run.
            ranks: The processes that run together: rank 0 opens, locks and writes; the others follow, write
                nothing, and must see the same folder.

        Returns:
            The open folder.

        Raises:
            UsageError: If the folder cannot be written, holds something else, is in use by another process,
                or belongs to a run with other settings.
        """
        ranks = ranks or Ranks.single()
        with ranks.in_turn():
            return cls._opened(path, config, may_differ, ranks) if ranks.first else cls(path, None, config, ranks)

    @classmethod
    def _opened(cls, path: Path, config: Any, may_differ: frozenset[str], ranks: Ranks) -> "RunFolder":
        _refuse_foreign(path, config)
        run = cls(path, _locked(path, config), config, ranks)
        try:
            run._settle(config, may_differ)
        except BaseException:
            run.close()
            raise
        return run

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file into the folder, whole or not at all; only rank 0 does.

        Args:
            name: The file's name, ending included.
            data: What `json.dumps` takes.

        Raises:
            UsageError: If the file system refuses.
        """
        if self._lock is not None:
            write_json(self.path / name, data)

    def require_nothing_lost(self, is_long: bool) -> None:
        """Refuse to begin anew what came to something and has no checkpoint left to go on from.

        Args:
            is_long: Whether its curves go on past its first checkpoint: older versions noted nothing else of that.

        Raises:
            UsageError: If it has ended, has saved (`note_saved`), or has checkpoints of which none is whole.
        """
        if is_long or self._has_saved() or (self.path / SUMMARY).exists() or self._has_checkpoints():
            raise UsageError(
                f"{self.path} holds a run, and no whole checkpoint to go on from: beginning anew would overwrite its "
                f"curves and results. Put the checkpoints back, choose {self._elsewhere} for a new run, or delete the "
                "folder"
            )

    def has_made(self, provenance: object) -> bool:
        """Whether something was made by this run, by the provenance that it tells; None: if there are checkpoints."""
        starts = self._origin().get("starts")
        return self._has_checkpoints() if provenance is None else isinstance(starts, list) and provenance in starts

    def accept(self) -> None:
        """Note that the run begins or goes on: in provenance.json, under `starts`, and settings that now differ.

        Raises:
            UsageError: If the file system refuses.
        """
        if self._lock is not None:
            self._store()
            self._record_start()

    def note_saved(self) -> None:
        """Note, once, that the run has saved a checkpoint: what is left of it without is not to be overwritten.

        Raises:
            UsageError: If the file system refuses.
        """
        if self._lock is not None and not self._is_noted:
            self.write_json(ORIGIN, self._origin() | {SAVED: True})
            self._is_noted = True

    def close(self) -> None:
        """Give up the lock."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _settle(self, config: Any, may_differ: frozenset[str]) -> None:
        file = self.path / SETTINGS
        stored = _stored(file, config) if file.exists() and self._worth_keeping() else None
        changed = {} if stored is None else differences(stored, config)
        refused = {flag: values for flag, values in changed.items() if flag not in may_differ}
        if refused:
            lines = "\n".join(f"  --{flag}: stored {old!r}, now {new!r}" for flag, (old, new) in refused.items())
            raise UsageError(
                f"{self.path} holds a run with other settings:\n{lines}\n"
                f"Give the stored settings to go on with it, or {_elsewhere(config)} for a new run"
            )
        self._unsettled = config if stored is None or changed else None
        if stored is None:
            self._store()

    def _store(self) -> None:
        if self._unsettled is not None:
            write_atomically(self.path / SETTINGS, write(self._unsettled).encode())
            self._unsettled = None

    def _worth_keeping(self) -> bool:
        """Whether the run has come to anything; a start that failed before binds nobody to its settings."""
        rows = self.path / ROWS  # the curves outlive checkpoints that were removed for their size
        logged = rows.exists() and rows.stat().st_size > 0
        return self._has_checkpoints() or self._has_saved() or (self.path / SUMMARY).exists() or logged

    def _has_saved(self) -> bool:
        return bool(self._origin().get(SAVED))

    def _has_checkpoints(self) -> bool:
        """Whole or not; what a kill left of the writing of one is called otherwise."""
        return any(self.checkpoints.glob("step_*"))

    def _record_start(self) -> None:
        origin = self._origin()
        starts = origin.get("starts")
        before = starts if isinstance(starts, list) else []
        self.write_json(ORIGIN, origin | {"starts": [*before, self.provenance]})

    def _origin(self) -> dict[str, Any]:
        """What provenance.json says; nothing where it is lost: no reason to refuse a run that can go on."""
        try:
            found = json.loads((self.path / ORIGIN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _refuse_foreign(path: Path, config: Any) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise UsageError(_unusable(path, config, error)) from error
    # A crash between taking the lock and storing the settings leaves only these two.
    foreign = {name for name in names if name != LOCK and not name.endswith(TEMPORARY)}
    if foreign and SETTINGS not in names:
        raise UsageError(
            f"{path} exists, holds {min(foreign)} and no {SETTINGS}: it is not a run's folder. "
            f"It stays as it is; choose {_elsewhere(config)}"
        )


def _locked(path: Path, config: Any) -> IO[str]:
    try:
        lock = open(path / LOCK, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run is: that is the lock)
    except OSError as error:
        raise UsageError(_unusable(path, config, error)) from error
    try:
        # The kernel drops the lock with the process, so a kill leaves nothing to clean up.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UsageError(
            f"{path} is in use by another process. Wait until it has ended, or choose {_elsewhere(config)}"
        ) from error
    except OSError as error:
        lock.close()
        raise UsageError(_unusable(path, config, error)) from error
    return lock


def _stored(file: Path, config: Any) -> Any:
    try:
        return read(type(config), ["--config", os.fspath(file)], prog="run", description="")
    except (UsageError, SystemExit) as error:
        raise UsageError(
            f"{file} no longer holds valid settings ({error}). Restore it, or choose {_elsewhere(config)} for a new run"
        ) from error


def _unusable(path: Path, config: Any, error: OSError) -> str:
    remedy = "choose another place with --runs" if hasattr(config, "runs") else "start where you may write"
    return f"cannot write to the run folder {path}: {error.strerror or error}. Make it writable, or {remedy}"


def _elsewhere(config: Any) -> str:
    return "--name OTHER" if hasattr(config, "name") else "an --out of another name"
