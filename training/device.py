"""Where everything lives."""

from typing import Literal

import torch

from configs.errors import UsageError


def resolve(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Turn `--device` into a device.

    Args:
        name: auto takes the GPU where there is one.

    Returns:
        The device.

    Raises:
        UsageError: If a GPU is asked for and PyTorch sees none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError(
            "--device cuda: PyTorch sees no GPU (none present, no driver, or a build for CPUs). "
            "Use --device cpu, or --device auto"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")
