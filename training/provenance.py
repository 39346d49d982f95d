"""Where a run's figures come from: code, versions, machine, command."""

import hashlib
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
        JSON-ready: `commit`, `dirty` and `changes` (a hash of what `git diff HEAD` shows: two states of files that
        git knows are not taken for one; all None outside a git checkout), `versions` (None for what is not
        installed), `device`, `cores`, `threads`, `started` (UTC, ISO 8601) and `command` (name and flags).
    """
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **_revision(),
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


def _revision() -> dict[str, str | bool | None]:
    # Only a checkout of this project counts, not a repository that a virtual environment happens to lie in.
    if _git("rev-parse", "--show-prefix") != "":
        return {"commit": None, "dirty": None, "changes": None}
    status, changes = _git("status", "--porcelain"), _git("diff", "HEAD")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "changes": None if changes is None else hashlib.sha256(changes.encode()).hexdigest(),
    }


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
            errors="replace",  # a file that was changed may be in any encoding
            timeout=20,
            check=True,
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
