"""How the painter learns: conditional IMLE on holes alone, the rest being given.

Of m styles the one is kept, region by region, whose painting is nearest to the truth, and the network regresses to the
truth with it. All happens in images that have lost nothing but cells, so that the cascade need not run.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    styles: Float[Tensor, "n m z g g"],
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
    choice = nearest_painting(painter, distance, sketch, x, hidden, styles)
    winner = styles.gather(1, choice[:, None, None].expand(-1, -1, *styles.shape[2:]))
    made = in_holes(sketch.painted(painter.fields(sketch, winner)).squeeze(1), x, hidden)
    losses = [distance(pooled(made, x.shape[-1] // by), pooled(x, x.shape[-1] // by)) for by in LEARNED]
    return torch.stack(losses).sum(dim=0)


@torch.no_grad()
def nearest_painting(
    painter: Painter,
    distance: Distance,
    sketch: Sketch,
    x: Float[Tensor, "n 3 h h"],
    hidden: Float[Tensor, "n 1 h h"],
    styles: Float[Tensor, "n m z g g"],
) -> Int[Tensor, "n g g"]:
    """Which of the styles brings each region nearest to the truth, at a quarter of the resolution.

    Paintings are sums of maps, so these are made small, and not the paintings: exact for one region, and nearly so for
    several, whose schemes change little within four pixels. With several, each is judged as if its neighbors had taken
    the same style.
    """
    side = x.shape[-1] // SEARCHED
    likely, maps = pooled(in_holes(sketch.likely, x, hidden), side), pooled(sketch.maps * hidden, side)
    small = Sketch(sketch.coarse, likely, maps)

    def made(rows: slice) -> Tensor:
        return small.select(rows).painted(painter.fields(small.select(rows), styles[rows])).flatten(0, 1)

    return nearest_of(distance, pooled(x, side), styles.shape[1], made, styles.shape[-1])
