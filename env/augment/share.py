"""A share of a batch's images, of a size that the host knows: so that only they are computed."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Share(NamedTuple):
    """Some of a batch's images, in random order.

    Attributes:
        rows: Where they lie in the batch; all different.
        last: Whether the last of them is chosen; the others are.
    """

    rows: Int[Tensor, " k"]
    last: Bool[Tensor, ""]


def share(m: int, p: float, random: torch.Generator) -> Share:
    """Choose each of m images with probability p, and as nearly as possible p m of them.

    A coin for each image would leave the number of heads on the device, and the host would have to wait for it or to
    compute all images. Here k = ⌈p m⌉ images are drawn without replacement, and one coin says whether the last of them
    counts. Any one image is chosen with probability p exactly; their number is p m, rounded up or down.

    Args:
        m: Images of the batch, at least 1.
        p: Probability, in (0, 1].
        random: Draws; its device is that of the result.
    """
    k = math.ceil(p * m)
    rows = torch.randperm(m, generator=random, device=random.device)[:k]
    coin = torch.rand((), generator=random, device=random.device)
    return Share(rows, coin <= p * m - (k - 1))


def replace_share(
    x: Float[Tensor, "m 3 h w"],
    p: float,
    operation: Callable[[Float[Tensor, "k 3 h w"], torch.Generator], Float[Tensor, "k 3 h w"]],
    random: torch.Generator,
) -> None:
    """Put the operation's results in place of a `share` of the images; draw nothing where p is 0.

    Args:
        x: Images; changed in place.
        p: Probability of each to be replaced.
        operation: Takes images in random order and draws their parameters.
        random: Draws.
    """
    if p == 0:
        return
    rows, last = share(len(x), p, random)
    before = x[rows]
    after = operation(before, random)
    x[rows] = after
    x[rows[-1:]] = torch.where(last, after[-1:], before[-1:])
