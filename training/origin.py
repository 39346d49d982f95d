"""What a run was made of and does not keep itself: it can only go on with the same."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from configs.errors import UsageError


@dataclass(frozen=True)
class Source:
    """One thing that a run is made of.

    Attributes:
        digest: Of its content.
        remedy: What to do where a run began with another.
    """

    digest: str
    remedy: str


class Origin:
    """Keeps the digests of a run's sources in its checkpoints, and refuses to go on with others.

    Args:
        sources: By name, as messages say it ("images").
    """

    def __init__(self, sources: dict[str, Source]) -> None:
        self.sources = sources

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: source.digest for name, source in self.sources.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare with what the run began with.

        Raises:
            UsageError: If a source is another one; names it and the remedy.
        """
        for name, source in self.sources.items():
            if state.get(name) != source.digest:
                raise UsageError(
                    f"this run began with other {name}: {source.remedy}, or choose --name OTHER for a new run"
                )


def digest(tensors: Iterable[Tensor]) -> str:
    """BLAKE2b of shapes, types and bytes; each tensor is copied to the host for it."""
    found = hashlib.blake2b(digest_size=32)
    for tensor in tensors:
        found.update(f"{tuple(tensor.shape)} {tensor.dtype} ".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
