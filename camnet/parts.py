"""Work on a batch in parts: as many rows at once as suit the device, and on a CPU a part to each thread.

Threads that share the small work of one part spend their time waiting for one another; with a part each they do not.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

BYTES_AT_ONCE = {"cpu": 2**22, "cuda": 2**28}
"""Size of the largest feature map of a part, by kind of device. On a CPU it should stay in the cache: 4 MiB is half as
fast again as what fills the memory."""

Made = TypeVar("Made")


def in_parts(work: Callable[[slice], Made], rows: int, bytes_a_row: int, where: torch.device) -> list[Made]:
    """What `work` makes of all rows, a slice of them at a time, in their order; without gradient.

    On a CPU of t threads the slices are t or a multiple of t, equally long, so that no thread waits for the last one.

    Args:
        work: Computes on the rows of a slice what does not depend on the others.
        rows: How many there are.
        bytes_a_row: Size of a row's largest feature map.
        where: The device.
    """
    at_once = max(1, BYTES_AT_ONCE.get(where.type, 2**28) // bytes_a_row)
    threads = torch.get_num_threads() if where.type == "cpu" else 1
    if threads > 1:
        rounds = -(-rows // (at_once * threads))
        at_once = -(-rows // (rounds * threads))
    slices = [slice(first, min(rows, first + at_once)) for first in range(0, rows, at_once)]

    @torch.no_grad()  # of the thread that runs it
    def run(part: slice) -> Made:
        return work(part)

    if threads == 1 or len(slices) == 1:
        return [run(part) for part in slices]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(run, slices))
    finally:
        torch.set_num_threads(threads)  # the initializers have changed what the process has
