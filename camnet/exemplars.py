"""Exemplars: what stands in holes is put together anew from pieces of what is visible in the same image.

A painter knows what should be in a hole and draws it softly: sharp would be wrong more often than soft. What is visible
is sharp. So every window of a painting is exchanged for the visible one that looks most like it, and where windows
overlap they vote. A code draws which windows are at hand, so the restorations of an image are made of different pieces.

Source: Wexler, Shechtman and Irani, "Space-Time Completion of Video" (PAMI 2007): nearest windows by what is known of
them best, votes, in turns. Departures: it begins with a painting and stays near it, as do Yang et al. (arXiv
1611.09969); a few windows are compared, all with all, and few vote, so pieces stay sharp.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from camnet.parts import in_parts

SIDE = 5
"""Of a window, in pixels."""
AT_HAND = 16
"""One of so many windows of an image is at hand, if it is visible."""
VOTING = 4
"""One of so many windows votes, those that touch holes before the others."""
TRUST = 10
"""A visible pixel counts so many times as much as a painted one in how near a window is."""
STEPS = 127
"""Colors are compared in so many steps. Products and sums of such whole numbers are exact in float32, in whatever
order (TRUST times the largest squares of a window, added up, stay below 2^24): of windows that look the same the same
one is taken in all company."""
POWER, SURE = 3, 1e-4
"""A vote counts (d + SURE)^-POWER, where d is the mean over pixels of the squared difference of colors, summed over
red, green and blue, between a window and its exemplar."""
FAR = 0.015
"""The painting has a say, too: it counts as much as windows would whose exemplars were that different. So where nothing
visible looks like what was painted, the painting stays."""


def completed(
    painted: Float[Tensor, "n 3 h h"],
    hidden: Float[Tensor, "n 1 h h"],
    luck: Float[Tensor, "n 2 h h"],
    turns: int,
) -> Float[Tensor, "n 3 h h"]:
    """Put together what stands in holes from visible windows.

    Args:
        painted: Images whose holes are filled, in [0, 1]; h at least `SIDE`.
        hidden: 1 = hidden.
        luck: Continuous and random: which windows are at hand (first plane) and which vote (second), by their centers.
        turns: How many times windows are compared and vote.

    Returns:
        In [0, 1]; what is visible stays. So does an image without a visible window.
    """
    row = painted.element_size() * (painted.shape[-1] ** 2) ** 2 // (AT_HAND * VOTING)  # voting windows x those at hand

    def work(rows: slice) -> Tensor:
        return _completed(painted[rows], hidden[rows], luck[rows].flatten(2), turns)

    return torch.cat(in_parts(work, len(painted), row, painted.device))


def _completed(
    painted: Float[Tensor, "n 3 h h"], hidden: Float[Tensor, "n 1 h h"], luck: Float[Tensor, "n 2 hh"], turns: int
) -> Float[Tensor, "n 3 h h"]:
    """`completed`, of some images at once."""
    pixels = painted.shape[-1] ** 2
    whole = F.max_pool2d(F.pad(hidden, [SIDE // 2] * 4, value=1.0), SIDE, 1).flatten(1) == 0
    of_hole = F.max_pool2d(hidden, SIDE, 1, SIDE // 2).flatten(1) > 0
    at_hand = luck[:, 0].masked_fill(~whole, -torch.inf).topk(pixels // AT_HAND)
    voting = luck[:, 1].masked_fill(~of_hole, -torch.inf).topk(pixels // VOTING).indices
    exemplars, barred = _windows(painted, at_hand.indices), at_hand.values.isinf()
    looks, weights = _in_steps(exemplars), _windows(hidden + TRUST * (1 - hidden), voting)

    made, own = painted, SIDE**2 / VOTING * (FAR + SURE) ** -POWER
    for _ in range(turns):
        windows = _in_steps(_windows(made, voting))
        nearest = _nearest(windows, weights, looks, barred)
        apart = _apart(windows, _columns(looks, nearest), weights) / STEPS**2
        said, votes = _said(_columns(exemplars, nearest), (apart + SURE) ** -POWER, voting, painted.shape[-1])
        average = (said + own * painted) / (votes + own)
        made = torch.where(hidden.bool(), average, painted)
    return torch.where(barred.all(dim=1)[:, None, None, None], painted, made)


def _windows(x: Float[Tensor, "n c h h"], centers: Int[Tensor, "n w"]) -> Float[Tensor, "n d w"]:
    """The windows around some pixels, one a column; beyond the image's edge with its last pixel.

    As `F.unfold` has them, which would make those around all pixels.
    """
    side = x.shape[-1]
    edge, row = SIDE // 2, side + 2 * (SIDE // 2)
    padded = F.pad(x, [edge] * 4, mode="replicate").flatten(2)
    step = torch.arange(SIDE, device=x.device)
    corner = centers // side * row + centers % side
    index = ((row * step[:, None] + step).flatten()[:, None] + corner[:, None]).flatten(1)
    return padded.gather(2, index[:, None].expand(-1, x.shape[1], -1)).unflatten(2, (SIDE**2, -1)).flatten(1, 2)


def _in_steps(windows: Float[Tensor, "n d w"]) -> Float[Tensor, "n d w"]:
    """Colors in whole steps from middle gray."""
    return (windows * STEPS).round() - STEPS // 2


def _columns(x: Float[Tensor, "n d p"], index: Int[Tensor, "n w"]) -> Float[Tensor, "n d w"]:
    """The columns at an index of each image's own."""
    return x.gather(2, index[:, None].expand(-1, x.shape[1], -1))


def _nearest(
    windows: Float[Tensor, "n d w"],
    weights: Float[Tensor, "n s w"],
    exemplars: Float[Tensor, "n d e"],
    barred: Bool[Tensor, "n e"],
) -> Int[Tensor, "n w"]:
    """Which exemplar e is nearest to each window x, by w (e^2 - 2 x e) summed over pixels: x^2 is the same for all."""
    weighted = _in_colors(windows) * weights[:, None]
    seen = torch.cat([-2 * weighted.flatten(1, 2), weights], dim=1)
    held = torch.cat([exemplars, _in_colors(exemplars.square()).sum(dim=1)], dim=1)
    bar = torch.zeros_like(barred, dtype=held.dtype).masked_fill(barred, torch.inf)
    return torch.baddbmm(bar[:, None], seen.transpose(1, 2), held).argmin(dim=2)


def _apart(
    a: Float[Tensor, "n d w"], b: Float[Tensor, "n d w"], weights: Float[Tensor, "n s w"]
) -> Float[Tensor, "n w"]:
    """How different two windows are: the mean over pixels of their squared difference, summed over its colors."""
    return (weights * _in_colors((a - b).square()).sum(dim=1)).sum(dim=1) / weights.sum(dim=1)


def _in_colors(windows: Float[Tensor, "n d w"]) -> Float[Tensor, "n 3 s w"]:
    """Windows with red, green and blue apart."""
    return windows.unflatten(1, (3, -1))


def _said(
    windows: Float[Tensor, "n d w"], votes: Float[Tensor, "n w"], centers: Int[Tensor, "n w"], side: int
) -> tuple[Float[Tensor, "n 3 h h"], Float[Tensor, "n 1 h h"]]:
    """What windows say of every pixel that they cover, summed by their votes, and the sum of these.

    Args:
        windows: What stands in them.
        votes: How much each counts.
        centers: The pixels around which they lie.
        side: Of the image, in pixels.
    """
    n, colors = windows.shape[:2]
    index, edge = centers[:, None].expand(-1, colors, -1), SIDE // 2
    everywhere = windows.new_zeros(n, colors, side**2).scatter(2, index, windows * votes[:, None])
    said = F.fold(everywhere, side + 2 * edge, SIDE)[:, :, edge:-edge, edge:-edge]
    by_center = votes.new_zeros(n, side**2).scatter(1, centers, votes).unflatten(1, (1, side, side))
    return said, F.avg_pool2d(by_center, SIDE, 1, edge, divisor_override=1)
