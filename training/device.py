"""Where everything lives."""

from typing import Literal

import torch

from configs.errors import UsageError


def resolve(name: Literal["auto", "cpu", "cuda"], process: int | None = None) -> torch.device:
    """Turn `--device` into a device.

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
