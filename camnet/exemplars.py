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
BAR = 2.0**30
"""Farther than any window can be: what keeps from exemplars that are not visible."""
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
    """Put together what stands in holes from visible windows; no gradient passes.

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
        with torch.autocast(painted.device.type, enabled=False):  # whoever calls: places and products are whole numbers
            return _completed(painted[rows], hidden[rows], luck[rows].flatten(2), turns)

    return torch.cat(in_parts(work, len(painted), row, painted.device))


def _completed(
    painted: Float[Tensor, "n 3 h h"], hidden: Float[Tensor, "n 1 h h"], luck: Float[Tensor, "n 2 hh"], turns: int
) -> Float[Tensor, "n 3 h h"]:
    """`completed`, of some images at once."""
    pixels, edge = painted.shape[-1] ** 2, SIDE // 2
    of_hole = F.max_pool2d(hidden, SIDE, 1, edge) > 0
    whole = F.pad(~of_hole[:, :, edge:-edge, edge:-edge], [edge] * 4)
    at_hand = luck[:, 0].masked_fill(~whole.flatten(1), -torch.inf).topk(pixels // AT_HAND)
    voting = luck[:, 1].masked_fill(~of_hole.flatten(1), -torch.inf).topk(pixels // VOTING).indices
    barred, exemplars = at_hand.values.isinf(), _windows(painted, at_hand.indices)
    held, weights = _held(_in_steps(exemplars), barred), _windows(hidden + TRUST * (1 - hidden), voting)

    made, own = painted, SIDE**2 / VOTING * (FAR + SURE) ** -POWER
    for _ in range(turns):
        nearest, apart = _nearest(_windows(_in_steps(made), voting), weights, held)
        votes = (apart / STEPS**2 + SURE) ** -POWER
        said, heard = _said(_columns(exemplars, nearest), votes, voting, painted.shape[-1])
        made = torch.where(hidden.bool(), (said + own * painted) / (heard + own), painted)
    return torch.where(barred.all(dim=1)[:, None, None, None], painted, made)


def _windows(x: Float[Tensor, "n c h h"], centers: Int[Tensor, "n w"]) -> Float[Tensor, "n d w"]:
    """The windows around some pixels, one a column; beyond the image's edge with its last pixel.

    As `F.unfold` has them, which would make those around all pixels.
    """
    padded = F.pad(x, [SIDE // 2] * 4, mode="replicate")
    index = _covered(centers, x.shape[-1]).flatten(1)
    return _columns(padded.flatten(2), index).unflatten(2, (SIDE**2, -1)).flatten(1, 2)


def _covered(centers: Int[Tensor, "n w"], side: int) -> Int[Tensor, "n s w"]:
    """The pixels of windows, by the centers of these: pixels of the image with an edge around it."""
    row, step = side + 2 * (SIDE // 2), torch.arange(SIDE, device=centers.device)
    corner = centers // side * row + centers % side
    return (row * step[:, None] + step).flatten()[:, None] + corner[:, None]


def _in_steps(colors: Tensor) -> Tensor:
    """Colors in whole steps from middle gray."""
    return (colors * STEPS).round() - STEPS // 2


def _columns(x: Float[Tensor, "n d p"], index: Int[Tensor, "n w"]) -> Float[Tensor, "n d w"]:
    """The columns at an index of each image's own."""
    return x.gather(2, index[:, None].expand(-1, x.shape[1], -1))


def _held(exemplars: Float[Tensor, "n d e"], barred: Bool[Tensor, "n e"]) -> Float[Tensor, "n k e"]:
    """What exemplars e hold against windows: -2 e, e^2 summed over colors, and `BAR` where they are not to be taken."""
    squares = _in_colors(exemplars.square()).sum(dim=1)
    return torch.cat([-2 * exemplars, squares, BAR * barred[:, None]], dim=1)


def _nearest(
    windows: Float[Tensor, "n d w"], weights: Float[Tensor, "n s w"], held: Float[Tensor, "n k e"]
) -> tuple[Int[Tensor, "n w"], Float[Tensor, "n w"]]:
    """Which exemplar e is nearest to each window x, and how far: the mean of w (x - e)^2, summed over colors.

    That is w (e^2 - 2 x e), one product of matrices for all pairs, and w x^2, which is the same for all exemplars.
    """
    weighted = (_in_colors(windows) * weights[:, None]).flatten(1, 2)
    seen = torch.cat([weighted, weights, torch.ones_like(weights[:, :1])], dim=1)
    apart = torch.bmm(seen.transpose(1, 2), held)
    least = apart.amin(dim=2)
    # The first of the nearest, without `argmin`, which on a CPU takes as long as the product: how much farther the
    # others are is a whole number, and times the number of places more than any place.
    place = torch.arange(apart.shape[2], device=apart.device, dtype=apart.dtype)
    first = apart.sub_(least[:, :, None]).mul_(len(place)).add_(place).amin(dim=2)
    nearest = first.long().clamp(0, len(place) - 1)  # where a NaN came in, there is no place: it is to be seen, no more
    return nearest, (least + (weighted * windows).sum(dim=1)) / weights.sum(dim=1)


def _in_colors(windows: Float[Tensor, "n d w"]) -> Float[Tensor, "n 3 s w"]:
    """Windows with red, green and blue apart."""
    return windows.unflatten(1, (3, -1))


def _said(
    windows: Float[Tensor, "n d w"], votes: Float[Tensor, "n w"], centers: Int[Tensor, "n w"], side: int
) -> tuple[Float[Tensor, "n 3 h h"], Float[Tensor, "n 1 h h"]]:
    """What windows say of every pixel that they cover, summed by their votes, and the sum of these.

    One pixel of all windows after the other: no two windows have it at the same place, so that nothing is added in an
    order of chance.

    Args:
        windows: What stands in them.
        votes: How much each counts.
        centers: The pixels around which they lie, each once.
        side: Of the image, in pixels.
    """
    edge = SIDE // 2
    heard = votes[:, None, None].expand(-1, 1, SIDE**2, -1)
    said = torch.cat([_in_colors(windows) * heard, heard], dim=1)
    result = said.new_zeros(len(said), 4, (side + 2 * edge) ** 2)
    for place, to in enumerate(_covered(centers, side).unbind(1)):
        result.scatter_add_(2, to[:, None].expand(-1, 4, -1), said[:, :, place])
    inside = result.unflatten(2, (side + 2 * edge, -1))[:, :, edge:-edge, edge:-edge]
    return inside[:, :3], inside[:, 3:]
