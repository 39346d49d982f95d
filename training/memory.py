"""A device whose memory does not suffice, as something that the user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from configs.errors import UsageError


@contextmanager
def within_memory(remedy: str) -> Iterator[None]:
    """Turn a GPU's running out of memory inside the scope (or the function, as a decorator) into a sentence.

    Args:
        remedy: The settings that take less.

    Raises:
        UsageError: If it did; names the remedy.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UsageError(f"{str(error).partition('. ')[0]}: {remedy}") from error
