"""Randomness as a pure function of (seed, step, stream): a resumed run draws what an uncut one draws."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator_at(seed: int, step: int, stream: str, device: torch.device) -> torch.Generator:
    """Return the random generator of one stream at one step.

    Nothing needs to be stored between steps, and streams are independent: drawing more from one leaves the
    others as they were.

    Args:
        seed: The run's seed.
        step: The step whose numbers are drawn.
        stream: What is drawn, for example "batch" or "codes".
        device: Where the numbers are needed; equal seeds give different numbers on CPU and GPU.

    Returns:
        A freshly seeded generator on that device.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    generator = torch.Generator(device=device)
    return generator.manual_seed(int.from_bytes(digest, "little") >> 1)


@contextmanager
def seeded(seed: int, stream: str, step: int = 0) -> Iterator[None]:
    """Seed the global random numbers inside the scope, for code that draws from nothing else: modules being built.

    Equal seeds give equal weights whatever else a run builds, and building them again gives them again. Afterwards the
    random numbers of the CPU and of the GPU in use go on as if nothing had been drawn (but of a GPU that is first used
    inside).

    Args:
        seed: The run's seed.
        stream: What is built, for example "learner".
        step: The step at which it is done.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # asking would initialize it
    with torch.random.fork_rng(devices):
        torch.manual_seed(generator_at(seed, step, stream, torch.device("cpu")).initial_seed())
        yield
