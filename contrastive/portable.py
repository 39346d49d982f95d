"""A backbone as an ONNX model: images in [0, 1] in, features out, normalization inside."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.errors import UsageError
from training.onnx import BATCHES, TRACED, UntraceableError, onnx_bytes, run_onnx, trace_batches

TOLERANCE = 1e-4
"""Largest difference of a feature, as a share of the largest feature: float32, summed in another order."""
OUTPUT = "features"
"""Name of the model's output."""

Program = Callable[[Tensor], Tensor]
"""Images in [0, 1] to features."""


class Portable(nn.Module):
    """A backbone with the learner's normalization before it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
        """Features of images in [0, 1]."""
        return self.backbone(2 * images - 1)


def as_onnx(backbone: nn.Module, image_size: int) -> bytes:
    """Write a backbone as one ONNX file: weights inside, batch size `n` free.

    Args:
        backbone: On the CPU, in evaluation mode.
        image_size: Pixels a side.

    Raises:
        UsageError: If the backbone cannot be traced, or a package is missing.
    """
    try:
        program = trace_batches(Portable(backbone), random_images(image_size, TRACED))
    except UntraceableError as reason:
        raise UsageError(
            f"this backbone cannot be traced ({reason}); leave the ONNX file out with --onnx False"
        ) from reason
    return onnx_bytes(program, [OUTPUT])


def read_onnx(content: bytes) -> Program:
    """Load what `as_onnx` wrote into onnxruntime, on the CPU."""
    run = run_onnx(content)
    return lambda images: run(images)[OUTPUT]


def parity(backbone: nn.Module, image_size: int, program: Program) -> dict[str, float]:
    """Compare a program with the backbone that it was made from.

    Args:
        backbone: On the CPU, in evaluation mode.
        image_size: Pixels a side.
        program: What was read back.

    Returns:
        The largest difference of a feature, as a share of the largest feature, by batch size.

    Raises:
        RuntimeError: If one is above `TOLERANCE` or not a number.
    """
    differences = {}
    for n in BATCHES:
        images = random_images(image_size, n)
        with torch.no_grad():
            expected = Portable(backbone)(images)
        worst = ((program(images) - expected).abs().amax() / expected.abs().amax()).item()
        if not worst <= TOLERANCE:
            raise RuntimeError(f"the program differs from the backbone by {worst:.1e} at batch {n} (limit {TOLERANCE})")
        differences[str(n)] = worst
    return differences


def random_images(image_size: int, n: int) -> Float[Tensor, "n 3 h w"]:
    """Noise in [0, 1]; always the same."""
    return torch.rand(n, 3, image_size, image_size, generator=torch.Generator().manual_seed(n))
