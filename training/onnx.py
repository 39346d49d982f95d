"""A network that takes images as a program: its trace for batches of any size, and ONNX files made of that."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from configs.errors import UsageError

BATCHES = (1, 5, 64)
"""Batch sizes that programs are compared at; none is the one that they are traced with."""
TRACED = 3
"""Images in the traced batch. Neither 0 nor 1, which a trace takes for constants."""
INPUT = "images"
"""Name of the programs' one input, and of the argument of the traced `forward`."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""The extra `export`; imported where they are needed, and only there."""


class UntraceableError(Exception):
    """Why a network cannot be traced, in at most 300 characters; the caller knows the remedy."""


def require_onnx() -> None:
    """Check, before any work, that ONNX files can be written and run.

    Raises:
        UsageError: If a package is missing.
    """
    try:
        for name in PACKAGES:
            import_module(name)
    except ImportError as error:
        raise UsageError(
            f"--onnx True needs packages that are not installed ({error}): pip install -e '.[export]', "
            "or leave the ONNX file out with --onnx False"
        ) from error


def trace_batches(network: nn.Module, images: Tensor, strict: bool = False) -> torch.export.ExportedProgram:
    """Trace a network for batches of any size; the trace does not tell where on this machine the code lies.

    Args:
        network: On the CPU, in evaluation mode.
        images: A batch of `TRACED`.
        strict: Analyze the code rather than run it; slower, and needed where running it would fix the batch size.

    Raises:
        UntraceableError: If it computes in a way that cannot be traced.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(
                network, (images,), dynamic_shapes={INPUT: {0: torch.export.Dim("n", min=1)}}, strict=strict
            )
    except (RuntimeError, ValueError, TypeError) as error:
        raise UntraceableError(" ".join(str(error).split())[:300]) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def onnx_bytes(program: torch.export.ExportedProgram, names: Sequence[str]) -> bytes:
    """The program as one ONNX file: weights inside, batch size `n` free.

    Args:
        program: What `trace_batches` returned.
        names: Of its outputs, in their order.

    Raises:
        UsageError: If onnx, onnxscript or onnxruntime is not installed.
    """
    require_onnx()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "program.onnx"
        torch.onnx.export(
            program,
            (),
            path,
            input_names=[INPUT],
            output_names=list(names),
            dynamic_shapes={INPUT: {0: "n"}},  # the program knows; this names the axis
            dynamo=True,
            external_data=False,  # or the weights would lie in a second file
            verbose=False,
        )
        return path.read_bytes()


def run_onnx(content: bytes) -> Callable[[Tensor], dict[str, Tensor]]:
    """Load an ONNX file's bytes into onnxruntime, on the CPU: from images to outputs by name."""
    session = import_module("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        values = session.run(names, {INPUT: images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return run
