"""A policy as a program that runs without this project: bytes of images in, probabilities out.

Two forms of one trace: a PyTorch program (torch.export) and an ONNX model. The law that draws masks stays behind: a
program says how likely things are, and whoever runs it draws (docs/export.md).
"""

import io
from collections.abc import Callable, Mapping

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from configs.errors import UsageError
from env.distribution import CorruptionDistribution
from policy.build import LearnedPolicy
from training.onnx import BATCHES, TRACED, UntraceableError, trace_batches

TOLERANCE = 1e-5
"""Largest difference between a program's probabilities and the network's: float32, summed in another order."""

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
    try:
        # strict, or every len(x) of a tensor would pin the batch to the traced size.
        return trace_batches(Portable(network).eval(), random_images(network, TRACED), strict=True)
    except UntraceableError as reason:
        raise UsageError(
            f"this policy ({network.config.name}, mask {network.config.mask}) cannot be traced into a program "
            f"({reason}). Use policy.safetensors alone: --program False --onnx False"
        ) from reason


def as_pt2(program: torch.export.ExportedProgram) -> bytes:
    """The program as torch.export stores it (`torch.export.load` reads it back)."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def run_pt2(content: bytes) -> Program:
    """Load a PyTorch program from its file's bytes; only from one that was just written (it may unpickle)."""
    return torch.export.load(io.BytesIO(content)).module()


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
