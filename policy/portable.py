"""A policy as a program that runs without this project: bytes of images in, probabilities out.

Two forms of one trace: a PyTorch program (torch.export) and an ONNX model. The law that draws masks stays behind: a
program says how likely things are, and whoever runs it draws (docs/export.md).
"""

import io
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from configs.errors import UsageError
from env.distribution import CorruptionDistribution
from policy.build import LearnedPolicy

TOLERANCE = 1e-5
"""Largest difference between a program's probabilities and the network's: float32, summed in another order."""
BATCHES = (1, 5, 64)
"""Batch sizes that programs are compared at; none is the one that they are traced with."""
TRACED = 3
"""Images in the traced batch. Neither 0 nor 1, which a trace takes for constants."""
INPUT = "images"
"""Name of the programs' one input."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""The extra `export`; imported where they are needed, and only there."""

Program = Callable[[Tensor], Mapping[str, Tensor]]
"""Images as bytes to named outputs."""


class Portable(nn.Module):
    """A policy with its preprocessing inside: RGB bytes in, plain tensors out."""

    def __init__(self, network: LearnedPolicy) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """What the policy says of each image; `outputs`."""
        return outputs(self.network(images.float() / 255))


def outputs(pi: CorruptionDistribution) -> dict[str, Tensor]:
    """All that a distribution says: its rates, and `code` (n, 2, c), the means of proposed codes, where it has any."""
    return pi.probabilities() | ({} if pi.code is None else {"code": pi.code.mean})


def shapes(network: LearnedPolicy) -> dict[str, list[str | int]]:
    """The shape of each output, with `n` for the batch."""
    return {name: ["n", *value.shape[1:]] for name, value in _run(network, random_images(network, 1)).items()}


def trace(network: LearnedPolicy) -> torch.export.ExportedProgram:
    """Trace a policy for batches of any size, on the CPU and in evaluation mode.

    Args:
        network: The policy, on the CPU.

    Raises:
        UsageError: If its probabilities are computed in a way that cannot be traced.
    """
    images, batch = random_images(network, TRACED), torch.export.Dim("n", min=1)
    try:
        with torch.no_grad():
            # strict, or every len(x) of a tensor would pin the batch to the traced size.
            program = torch.export.export(
                Portable(network).eval(), (images,), dynamic_shapes={INPUT: {0: batch}}, strict=True
            )
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"this policy ({network.config.name}, mask {network.config.mask}) cannot be traced into a program "
            f"({reason}). Use policy.safetensors alone: --program False --onnx False"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the files would tell where on this machine the code lies
    return program


def as_pt2(program: torch.export.ExportedProgram) -> bytes:
    """The program as torch.export stores it (`torch.export.load` reads it back)."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def as_onnx(program: torch.export.ExportedProgram, names: Sequence[str]) -> bytes:
    """The program as one ONNX file: weights inside, batch size `n` free.

    Args:
        program: What `trace` returned.
        names: Of its outputs, in their order.

    Raises:
        UsageError: If onnx, onnxscript or onnxruntime is not installed.
    """
    require_onnx()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policy.onnx"
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


def run_pt2(content: bytes) -> Program:
    """Load a PyTorch program from its file's bytes; only from one that was just written (it may unpickle)."""
    return torch.export.load(io.BytesIO(content)).module()


def run_onnx(content: bytes) -> Program:
    """Load an ONNX model from its file's bytes into onnxruntime, on the CPU."""
    session = import_module("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        values = session.run(names, {INPUT: images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return run


def parity(network: LearnedPolicy, program: Program) -> dict[str, float]:
    """Compare a program with the network that it was made from.

    Args:
        network: The policy, on the CPU.
        program: What was read back.

    Returns:
        The largest absolute difference over all outputs, by batch size.

    Raises:
        RuntimeError: If one is above `TOLERANCE` or not a number, or an output is missing.
    """
    differences = {}
    for n in BATCHES:
        images = random_images(network, n)
        expected, found = _run(network, images), program(images)
        if found.keys() != expected.keys():
            raise RuntimeError(f"the program's outputs are {sorted(found)}, not {sorted(expected)}")
        worst = torch.stack([(found[name] - value).abs().amax() for name, value in expected.items()]).amax().item()
        if not worst <= TOLERANCE:
            raise RuntimeError(f"the program differs from the policy by {worst:.1e} at batch {n} (limit {TOLERANCE})")
        differences[str(n)] = worst
    return differences


def random_images(network: LearnedPolicy, n: int) -> UInt8[Tensor, "n 3 h w"]:
    """Noise of the size that the policy takes; always the same."""
    shape = (n, 3, network.image_size, network.image_size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def _run(network: LearnedPolicy, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return Portable(network)(images)
