"""Files that are either whole or absent, whatever interrupts the writing."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import UsageError

TEMPORARY = ".partial"
"""Ending of a file that is being written; one that is left over comes from an interrupted write."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new one, never a part.

    Args:
        path: The file; its folder must exist.
        data: Its new content.

    Raises:
        UsageError: If the file system refuses (full, read-only, missing folder).
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    with explained(path):
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all: indented, since people read these files, too.

    Args:
        path: The file; its folder must exist.
        value: What `json.dumps` takes.

    Raises:
        UsageError: If the file system refuses.
    """
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a refusal by the file system into an error that names the path and the remedy.

    Args:
        path: What is being written.

    Raises:
        UsageError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}. Free space or make its folder writable, "
            "then give the same command again"
        ) from error


def _sync_folder(folder: Path) -> None:
    # The new name itself lives in the folder; without this a power cut could undo the rename.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
