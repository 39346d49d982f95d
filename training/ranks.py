"""Data-parallel training: what the processes of one run, started by torchrun, tell one another.

`torchrun --nproc-per-node 4 -m camnet.train …` starts four. Each draws images of its own; their gradients are
averaged, so their weights stay equal. What a host must know goes by CPU tensors (gloo), so that no host waits for its
GPU; gradients go from where they lie (nccl between GPUs).
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from configs.errors import UsageError
from training import device

TIMEOUT = timedelta(hours=2)
"""Longest wait for another process: more than rank 0 needs to download and decode the images, or to draw and save,
while the others wait. One that ends is noticed at once."""
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Ranks:
    """The processes that train one model together: this one alone, or those that `join` has brought together.

    All ranks must call the same methods in the same order. Alone, every method returns at once. What rank 0 does while
    the others wait must not use libraries that talk to other processes unasked, as torchmetrics does: `leave` first.

    Attributes:
        rank: Which of them this process is.
        world: How many they are; 1 again after `leave`.
        first: Whether this is rank 0, the one that logs, saves and prints.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world, self.first = rank, world, rank == 0

    @classmethod
    def single(cls) -> "Ranks":
        """One process alone."""
        return cls()

    @classmethod
    @contextlib.contextmanager
    def join(cls) -> Iterator["Ranks"]:
        """Meet the other processes that torchrun has started; without torchrun there are none.

        Until they leave, an error on any rank ends all: the first to fail raises it, the others end silently with
        status 1.

        Raises:
            UsageError: If the other processes cannot be met.
        """
        if os.environ.get("WORLD_SIZE", "1") == "1":
            yield cls.single()
            return
        store, rank, world = _meet()
        ranks = cls(rank, world)
        try:
            yield ranks
            ranks.leave()
        except SystemExit:
            raise  # explained already, and alike on all ranks: it comes from reading the flags
        except BaseException:
            if not _first_to_fail(store):
                raise SystemExit(1) from None
            raise
        finally:
            # Between GPUs this would wait for steps that the others never take: the end of the process does it there.
            if dist.is_initialized() and not torch.cuda.is_available():
                dist.destroy_process_group()

    def leave(self) -> None:
        """End what is done together, once all are here: rank 0 may finish alone, however long that takes."""
        if self.world > 1:
            self.barrier()
            dist.destroy_process_group()
            self.world = 1

    def device(self, name: Literal["auto", "cpu", "cuda"]) -> torch.device:
        """Turn `--device` into this rank's device: each rank of a machine has a GPU of its own.

        Raises:
            UsageError: If there is no GPU, or fewer than ranks.
        """
        return device.resolve(name, int(os.environ.get("LOCAL_RANK", self.rank)) if self.world > 1 else None)

    def stream(self, name: str) -> str:
        """The name of this rank's own random stream; rank 0 draws what a process alone draws."""
        return name if self.first else f"{name} {self.rank}"

    def average(self, gradients: Iterable[Tensor]) -> None:
        """Replace gradients by their means over the ranks, in one transfer; NaN on one rank is NaN on all.

        Args:
            gradients: Those of the same parameters on all ranks.
        """
        if self.world == 1:
            return
        kept = list(gradients)
        flat = self._reduce(torch.cat([gradient.reshape(-1) for gradient in kept])).div_(self.world)
        parts = flat.split([gradient.numel() for gradient in kept])
        torch._foreach_copy_(kept, [part.view(g.shape) for part, g in zip(parts, kept, strict=True)])

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag if self.world == 1 else bool(self._reduce(torch.tensor(float(flag))))

    def first_says(self, value: float) -> float:
        """Rank 0's value, on all ranks; whole numbers stay exact."""
        if self.world == 1:
            return value
        return self._reduce(torch.tensor(value if self.first else 0.0, dtype=torch.float64)).item()

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.any(False)

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let rank 0 do what is inside before the others do it: it may make files that they read."""
        if not self.first:
            self.barrier()
        yield
        if self.first:
            self.barrier()

    def same(self, state: Any) -> bool:
        """Whether the tensors in a nested state are bit for bit the same on all ranks; one transfer to the host."""
        if self.world == 1:
            return True
        own = _checksum(state)
        # The largest, and less the smallest, of all checksums.
        largest, smallest = self._reduce(torch.tensor([own, -own]), dist.ReduceOp.MAX).tolist()
        return largest == -smallest

    def _reduce(self, tensor: Tensor, how: Any = dist.ReduceOp.SUM) -> Tensor:
        try:
            dist.all_reduce(tensor, how)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UsageError(
                f"lost touch with another process of this run ({str(error).splitlines()[0]}). See what it printed; "
                "the same command goes on from the last checkpoint, if there is one"
            ) from error
        return tensor


def require_single(program: str) -> None:
    """Refuse to be one of several processes that torchrun has started.

    Raises:
        UsageError: If there are others.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError(f"{program} runs in one process; start it without torchrun (camnet.train knows it)")


def _meet() -> tuple[dist.Store, int, int]:
    """The store that all processes share, this one's rank, and how many they are."""
    try:
        store, rank, world = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
        between_gpus = torch.cuda.is_available() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if between_gpus else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but the other processes cannot be met ({error}). "
            "Start all of them with torchrun, or unset WORLD_SIZE to train in one"
        ) from error
    return store, rank, world


def _first_to_fail(store: dist.Store) -> bool:
    """Whether no other rank has failed before: one message is enough, and the first names the cause."""
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:  # whoever kept the store is gone, so nobody can tell
        return True


def _checksum(state: Any) -> int:
    """A number of 62 bits that depends on every bit of the tensors, summed up where they lie."""
    sums = [tensor.detach().view(_BITS[tensor.element_size()]).sum(dtype=torch.int64) for tensor in _tensors(state)]
    if not sums:
        return 0
    values = torch.stack([value.to(sums[0].device) for value in sums]).tolist()
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=8).digest(), "little") >> 2


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for item in state.values():
            yield from _tensors(item)
    elif isinstance(state, (list, tuple)):
        for item in state:
            yield from _tensors(item)
