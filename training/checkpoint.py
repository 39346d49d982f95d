"""Checkpoints: one safetensors file each, made whole by a single rename. Nothing is ever unpickled."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from configs.errors import UsageError
from training import structure
from training.atomic import TEMPORARY, explained, write_atomically

_NAME = re.compile(r"step_(\d{8,})\.safetensors")


class _DamageError(Exception):
    """Why a file is not a valid checkpoint."""


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can keep."""

    def state_dict(self) -> dict[str, Any]:
        """What to keep."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Take it up again."""


@dataclass(frozen=True)
class Checkpoint:
    """What was saved.

    Attributes:
        step: Steps done when it was saved.
        state: The nested dicts and lists of CPU tensors and scalars.
        path: The file it came from.
    """

    step: int
    state: dict[str, Any]
    path: Path


def save(folder: Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Save a checkpoint, then remove older ones and the leftovers of interrupted writes.

    Args:
        folder: Where the checkpoints of the run are; made if need be.
        step: Steps done; part of the file's name.
        state: Nested dicts (keys str or int), lists and tuples of tensors and of str, int, float, bool, None:
            what `state_dict()` of modules and optimizers returns.
        keep: How many checkpoints up to this step remain, at least 1. Files of later steps stay as they
            are: a run that had to fall back to an earlier checkpoint overwrites them as it gets there.

    Returns:
        The file's path.

    Raises:
        UsageError: If the file system refuses.
        TypeError: If the state holds anything else.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tensors, outline = structure.split(dict(state))
    body = json.dumps({"step": step, "state": outline})
    metadata = {"body": body, "blake2b": _digest(tensors, body)}
    path = folder / f"step_{step:08d}.safetensors"
    write_atomically(path, safetensors.torch.save(tensors, metadata))
    with explained(folder):
        known = [path for at, path in _steps(folder).items() if at <= step]
        for old in known[max(keep, 1) :]:
            old.unlink(missing_ok=True)
        for leftover in folder.glob(f".*{TEMPORARY}"):
            leftover.unlink(missing_ok=True)
    return path


def newest_valid(folder: Path, on_damage: Callable[[str], None]) -> Checkpoint | None:
    """Load the newest checkpoint that is whole.

    Args:
        folder: Where the checkpoints of the run are; need not exist.
        on_damage: Told, in one sentence, about each newer file that had to be skipped.

    Returns:
        The checkpoint, its tensors on the CPU; None if there is no valid one.
    """
    for step, path in _steps(folder).items():
        try:
            return Checkpoint(step, _load(path, step), path)
        except _DamageError as damage:
            on_damage(f"skipped the checkpoint {path}, which is damaged: {damage}")
    return None


def load_into(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load weights and name whatever does not fit.

    Args:
        module: Receives the weights.
        state: Tensors by name.
        what: What is being loaded, for the message: "the generator runs/x/generator.safetensors".

    Raises:
        UsageError: If a tensor is missing, unknown or has another shape than the module's. The module is
            unchanged then.
    """
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in expected]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UsageError(
            f"{what} does not fit the settings: {'; '.join(problems[:5])}{more}. "
            "Use the settings it was made with, or another file"
        )
    module.load_state_dict(dict(state))


def _steps(folder: Path) -> dict[int, Path]:
    """Return the checkpoints by step, newest first."""
    if not folder.is_dir():
        return {}
    found = {int(match[1]): path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items(), reverse=True))


def _load(path: Path, step: int) -> dict[str, Any]:
    try:
        # Read at once rather than mapped into memory: a mapped file that shrinks kills the process.
        data = path.read_bytes()
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except OSError as error:
        raise _DamageError(f"it cannot be read ({error.strerror})") from error
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        # The format starts with the header's length in 8 bytes, then the header, a JSON object.
        reason = "incomplete or altered" if data[8:9] == b"{" else "not a safetensors file"
        raise _DamageError(f"{reason} ({error})") from error
    metadata = header.get("__metadata__", {})
    if "body" not in metadata or "blake2b" not in metadata:
        raise _DamageError("a safetensors file, but not a checkpoint")
    if metadata["blake2b"] != _digest(tensors, metadata["body"]):
        raise _DamageError("its content does not match its digest")
    try:
        body = json.loads(metadata["body"])
        saved_step, state = body["step"], structure.join(tensors, body["state"])
    except (ValueError, LookupError, TypeError) as error:
        raise _DamageError(f"its outline is not a checkpoint's ({error})") from error
    if saved_step != step:
        raise _DamageError(f"it holds step {saved_step}")
    return state


def _digest(tensors: Mapping[str, Tensor], body: str) -> str:
    digest = hashlib.blake2b(body.encode(), digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
