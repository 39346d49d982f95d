"""Work on a batch in parts: as many rows at once as suit the device."""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch

BYTES_AT_ONCE = {"cpu": 2**23, "cuda": 2**28}
"""Size of the largest feature map of a part, by kind of device. On a CPU it should stay in the cache."""

Made = TypeVar("Made")


def in_parts(work: Callable[[slice], Made], rows: int, bytes_a_row: int, where: torch.device) -> list[Made]:
    """What `work` makes of all rows, a slice of them at a time, in their order; slices differ by little.

    Args:
        work: Computes on the rows of a slice what does not depend on the others.
        rows: How many there are.
        bytes_a_row: Size of a row's largest feature map.
        where: The device.
    """
    at_once = max(1, BYTES_AT_ONCE.get(where.type, 2**28) // bytes_a_row)
    parts = -(-rows // at_once)
    bounds = [rows * part // parts for part in range(parts + 1)]
    return [work(slice(*pair)) for pair in pairwise(bounds)]
