"""How the painter learns: conditional IMLE on holes alone, the rest being given.

Of m styles the one is kept whose painting is nearest to the truth, and the network regresses to the truth with it. All
happens in images that have lost nothing but cells, so that the cascade need not run.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from camnet.bilinear import Schemes, colors
from camnet.distance import Distance
from camnet.imle import nearest_of
from camnet.painter import Painter, Sketch, in_holes
from env.resize import pooled

SEARCHED = 4
"""The images are so many times smaller where candidates are compared."""
LEARNED = (1, 2, 4)
"""And where paintings are learned."""


def painting_loss(
    painter: Painter,
    distance: Distance,
    sketch: Sketch,
    x: Float[Tensor, "n 3 h h"],
    hidden: Float[Tensor, "n 1 h h"],
    styles: Float[Tensor, "n m z"],
) -> Float[Tensor, " n"]:
    """The losses of each image under the nearest of its styles.

    Args:
        painter: Learns.
        distance: The training distance.
        sketch: What the painter sees in x without what is hidden.
        x: The truth.
        hidden: 1 = hidden.
        styles: The candidates.

    Returns:
        The distance to the truth, at the resolutions of `LEARNED`, summed.
    """
    schemes = painter.schemes(sketch.whole, styles)
    with torch.no_grad():
        choice = nearest_painting(distance, sketch, schemes, x, hidden)
    winner = schemes[torch.arange(len(x), device=x.device), choice, None]
    made = in_holes(sketch.painted(winner).squeeze(1), x, hidden)
    losses = [distance(pooled(made, x.shape[-1] // by), pooled(x, x.shape[-1] // by)) for by in LEARNED]
    return torch.stack(losses).sum(dim=0)


def nearest_painting(
    distance: Distance,
    sketch: Sketch,
    schemes: Schemes,
    x: Float[Tensor, "n 3 h h"],
    hidden: Float[Tensor, "n 1 h h"],
) -> Tensor:
    """Which of the schemes brings each image (n) nearest to the truth, at a quarter of its resolution.

    Paintings are linear in their maps, so these are made small, and not the paintings.
    """
    side = x.shape[-1] // SEARCHED
    truth, likely = pooled(x, side), pooled(in_holes(sketch.likely, x, hidden), side)
    maps = pooled(sketch.maps * hidden, side)

    def made(rows: slice) -> Tensor:
        return (likely[rows, None] + colors(maps[rows], schemes[rows])).flatten(0, 1)

    return nearest_of(distance, truth, schemes.shape[1], made)
