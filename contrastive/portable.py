"""A backbone as an ONNX model: images in [0, 1] in, features out, normalization inside."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.errors import UsageError

TOLERANCE = 1e-4
"""Largest difference of a feature, as a share of the largest feature: float32, summed in another order."""
BATCHES = (1, 5, 64)
"""Batch sizes that are compared; none is the one that is traced."""
TRACED = 3
"""Images in the traced batch. Neither 0 nor 1, which a trace takes for constants."""
INPUT, OUTPUT = "images", "features"
"""Names of the model's input and output."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""The extra `export`; imported where they are needed, and only there."""

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
    require_onnx()
    images, batch = random_images(image_size, TRACED), torch.export.Dim("n", min=1)
    try:
        with torch.no_grad():
            program = torch.export.export(Portable(backbone), (images,), dynamic_shapes={INPUT: {0: batch}})
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"this backbone cannot be traced ({reason}); leave the ONNX file out with --onnx False"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the file would tell where on this machine the code lies
    with TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.onnx"
        torch.onnx.export(
            program,
            (),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: "n"}},  # the program knows; this names the axis
            dynamo=True,
            external_data=False,  # or the weights would lie in a second file
            verbose=False,
        )
        return path.read_bytes()


def require_onnx() -> None:
    """Check, before any work, that ONNX files can be written and run.

    Raises:
        UsageError: If a package is missing.
    """
    try:
        for name in ONNX_PACKAGES:
            import_module(name)
    except ImportError as error:
        raise UsageError(
            f"--onnx True needs packages that are not installed ({error}): pip install -e '.[export]', "
            "or leave the ONNX file out with --onnx False"
        ) from error


def run_onnx(content: bytes) -> Program:
    """Load an ONNX model from its file's bytes into onnxruntime, on the CPU."""
    session = import_module("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


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
