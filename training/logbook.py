"""Curves: collected on the device, averaged and written at intervals, to TensorBoard and to metrics.jsonl."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from configs.errors import UsageError
from training.atomic import explained, write_atomically
from training.folder import ROWS

History = dict[str, tuple[list[int], list[float]]]
"""Steps and values of each curve, by tag."""


class Logbook:
    """Writes the curves of one run, and only those that were announced.

    Args:
        folder: The run's folder; gets TensorBoard's event files and metrics.jsonl, one row per flush.
        tags: The names that may be logged. A name outside is a mistake, not a new curve.
        first_step: Where the run goes on. What was logged from there on is dropped, as it lay past the
            checkpoint.

    Raises:
        UsageError: If the folder cannot be written.
    """

    def __init__(self, folder: Path, tags: frozenset[str], first_step: int) -> None:
        self._path = folder / ROWS
        self._tags = tags
        self._tensors: dict[str, list[Tensor]] = {}
        self._numbers: dict[str, list[float]] = {}
        kept = [row for row in rows(self._path) if row["step"] < first_step]
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in kept).encode())
            self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def note(self, values: Mapping[str, Tensor | float]) -> None:
        """Collect values for the next flush without waiting for the device.

        Args:
            values: Scalars by tag; tensors of shape () stay where they are.

        Raises:
            ValueError: If a tag was not announced or a tensor is not a scalar.
        """
        for tag, value in values.items():
            self._require(tag)
            if not isinstance(value, Tensor):
                self._numbers.setdefault(tag, []).append(float(value))
            elif value.dim():
                raise ValueError(f"{tag} must be a scalar, got a tensor of shape {tuple(value.shape)}")
            else:
                # Copied, since the caller may go on to change a running average in place.
                self._tensors.setdefault(tag, []).append(value.detach().to(torch.float32, copy=True))

    def flush(self, step: int) -> dict[str, float]:
        """Write the mean of each tag since the last flush.

        Args:
            step: Where the points stand on the curves.

        Returns:
            The means by tag; empty if nothing was noted.

        Raises:
            UsageError: If the file system refuses.
        """
        means = self._means()
        if not means:
            return {}
        with explained(self._path):
            for tag, value in means.items():
                self._writer.add_scalar(tag, value, step)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **means}) + "\n")
        return means

    def picture(self, tag: str, image: Tensor, step: int) -> None:
        """Write an image to TensorBoard.

        Args:
            tag: Its announced name.
            image: Shape (3, h, w), values in [0, 1].
            step: Where it stands.

        Raises:
            ValueError: If the tag was not announced or the shape is another.
        """
        self._require(tag)
        if image.dim() != 3 or image.shape[0] != 3:
            raise ValueError(f"{tag} must be an image of shape (3, h, w), got {tuple(image.shape)}")
        with explained(self._path.parent):
            self._writer.add_image(tag, image.detach().float().clamp(0, 1).cpu(), step)

    def history(self) -> History:
        """Return each curve as its steps and its values, from the run's first step on."""
        return history(self._path)

    def close(self) -> None:
        """Write out what TensorBoard still holds and close its files.

        Raises:
            UsageError: If the file system refuses.
        """
        with explained(self._path.parent):
            self._writer.close()

    def __enter__(self) -> "Logbook":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(*([UsageError] if error else [])):  # what went wrong first is what is to be said
            self.close()

    def _require(self, tag: str) -> None:
        if tag not in self._tags:
            raise ValueError(f"{tag!r} is not among the announced tags {sorted(self._tags)}")

    def _means(self) -> dict[str, float]:
        """Empty both collections into means; the one transfer from the device is here."""
        sums: list[float] = []
        if self._tensors:
            sums = torch.stack([torch.stack(values).sum() for values in self._tensors.values()]).tolist()
        totals = dict(zip(self._tensors, sums, strict=True))
        counts = {tag: len(values) for tag, values in self._tensors.items()}
        for tag, numbers in self._numbers.items():
            totals[tag] = totals.get(tag, 0.0) + sum(numbers)
            counts[tag] = counts.get(tag, 0) + len(numbers)
        self._tensors, self._numbers = {}, {}
        return {tag: total / counts[tag] for tag, total in totals.items()}


def history(path: Path) -> History:
    """Read each curve as its steps and its values; none where the file is missing.

    Args:
        path: A file of curves, `ROWS` in a run's folder.
    """
    curves: History = {}
    for row in rows(path):
        for tag, value in row.items():
            if tag != "step":
                steps, values = curves.setdefault(tag, ([], []))
                steps.append(row["step"])
                values.append(value)
    return curves


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole rows of a file of curves; a crash may have cut the last one short."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row
