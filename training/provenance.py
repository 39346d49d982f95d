"""Where a run's figures come from: code, versions, machine, command."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent


def provenance(device: str = "auto") -> dict[str, Any]:
    """Describe the program, the machine and the command that are running now.

    Args:
        device: Where the work is done: `cpu`, `cuda`, or `auto`, the GPU where there is one.

    Returns:
        JSON-ready: `commit` and `dirty` (None outside a git checkout), `versions` (None for what is not
        installed), `device`, `cores`, `threads`, `started` (UTC, ISO 8601) and `command` (name and flags).
    """
    commit, dirty = _revision()
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit,
        "dirty": dirty,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: _version(name) for name in ("torchvision", "numpy", "learned-corruption")},
        },
        "device": torch.cuda.get_device_name() if device != "cpu" and torch.cuda.is_available() else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def command_of(program: str, argv: list[str]) -> str:
    """The command as it may be given to a shell again.

    Args:
        program: The module that was run, such as contrastive.evaluate.
        argv: The words after it.
    """
    return shlex.join(["python", "-m", program, *argv])


def _revision() -> tuple[str | None, bool | None]:
    # Only a checkout of this project counts, not a repository that a virtual environment happens to lie in.
    if _git("rev-parse", "--show-prefix") != "":
        return None, None
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return commit, None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()
