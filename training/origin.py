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
        digest: Of its content; equal on every machine.
        remedy: What to do where a run began with another.
    """

    digest: str
    remedy: str


class Origin:
    """Keeps the digests of a run's sources in its checkpoints, and refuses to go on with others.

    It only guards: what a checkpoint does not keep, because an older version wrote it, is not held against the run.

    Args:
        sources: By name, as messages say it ("source images").
        elsewhere: How to begin a new run instead, for messages: "--name OTHER".
    """

    def __init__(self, sources: dict[str, Source], elsewhere: str) -> None:
        self.sources, self.elsewhere = sources, elsewhere

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: source.digest for name, source in self.sources.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare with what the run began with.

        Raises:
            UsageError: If a source is another one; names it and the remedy.
        """
        for name, source in self.sources.items():
            if state.get(name, source.digest) != source.digest:
                raise UsageError(
                    f"this run began with other {name}: {source.remedy}, or choose {self.elsewhere} for a new run"
                )


def digest(contents: Iterable[Tensor | str]) -> str:
    """BLAKE2b of texts, and of shapes, types and bytes of tensors; each tensor is copied to the host for it."""
    found = hashlib.blake2b(digest_size=32)
    for content in contents:
        if isinstance(content, str):
            text = content.encode("utf-8", "surrogateescape")  # names of files need not be valid UTF-8
            found.update(f"text {len(text)} ".encode() + text)
        else:
            found.update(f"{tuple(content.shape)} {content.dtype} ".encode())
            found.update(content.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
