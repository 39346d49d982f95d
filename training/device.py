"""Where everything lives."""

import ctypes
import sys
from typing import Literal

import torch

from configs.errors import UsageError

KEPT_BYTES = 2**30
"""Freed memory that a process on a CPU keeps for what it allocates next."""
HEAP_BYTES = 2**25
"""Largest block that glibc takes from such memory; larger ones come from the system each time."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def resolve(name: Literal["auto", "cpu", "cuda"], process: int | None = None) -> torch.device:
    """Turn `--device` into a device, and make the process ready for it.

    Args:
        name: auto takes the GPU where there is one.
        process: Which of the machine's processes asks, where several train together; each gets a GPU of its own.

    Returns:
        The device.

    Raises:
        UsageError: If a GPU is asked for and PyTorch sees none, or fewer than processes.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError(
            "--device cuda: PyTorch sees no GPU (none present, no driver, or a build for CPUs). "
            "Use --device cpu, or --device auto"
        )
    if not available or name == "cpu":
        keep_freed_memory()
        return torch.device("cpu")
    if process is None:
        return torch.device("cuda")
    count = torch.cuda.device_count()
    if process >= count:
        raise UsageError(
            f"no GPU is left for process {process + 1}: PyTorch sees {count}. Start torchrun with --nproc-per-node "
            f"{count}, or use --device cpu"
        )
    # Kernels and streams that name no device go to the current one.
    torch.cuda.set_device(process)
    return torch.device("cuda", process)


def keep_freed_memory() -> None:
    """Let this process keep what its tensors free, instead of giving it back and taking it again page by page.

    By itself, glibc gives large blocks back at once. The system then clears every page anew when it is first touched,
    which took a quarter of the time of CAMNet's code search at 64 pixels (docs/log.md, "Freed memory"). Other
    allocators and systems are left as they are.
    """
    if sys.platform != "linux":
        return
    tune = getattr(ctypes.CDLL(None), "mallopt", None)  # none in musl
    if tune is not None:
        tune(_TRIM_THRESHOLD, KEPT_BYTES)
        tune(_MMAP_THRESHOLD, HEAP_BYTES)
