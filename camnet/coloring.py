"""How the colorist learns: conditional IMLE on colors alone, lightness being given.

Of m styles the one is kept whose colors are nearest to the truth; the network regresses to the truth with it, and taste
learns which one it was. All happens on the truth's own lightness, so that the cascade need not run.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from camnet.bilinear import Schemes, colors
from camnet.colorist import Colorist, Seen, with_lightness
from camnet.distance import Distance
from camnet.imle import nearest_of
from env.resize import pooled

SEARCHED, COMPARED = 4, 2
"""The images are so many times smaller where candidates are compared, and where colors are learned."""


def coloring_loss(
    colorist: Colorist, distance: Distance, seen: Seen, x: Float[Tensor, "n 3 h h"], styles: Float[Tensor, "n m z"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The losses of each image under the nearest of its styles.

    Args:
        colorist: Learns.
        distance: The training distance.
        seen: What the colorist sees in the lightness of x.
        x: The truth.
        styles: The candidates.

    Returns:
        The distance to the truth, at half resolution and at a quarter, summed; and the cross-entropy, in nats, of
        taste's guess at the nearest candidate, whose gradient reaches taste alone.
    """
    schemes = colorist.schemes(seen.whole, styles)
    choice = nearest_scheme(distance, seen, schemes, x)
    winner = schemes[torch.arange(len(x), device=x.device), choice, None]
    colored, loss = colors(seen.maps, winner).squeeze(1), torch.zeros_like(x[:, 0, 0, 0])
    for factor in (COMPARED, SEARCHED):
        truth = pooled(x, x.shape[-1] // factor)
        made = with_lightness(truth.mean(dim=1, keepdim=True), pooled(colored, truth.shape[-1]))
        loss = loss + distance(made, truth)
    unknowing = Seen(*(part.detach() for part in (seen.whole, seen.places, seen.maps)))
    return loss, F.cross_entropy(colorist.scores(unknowing, schemes.detach()), choice, reduction="none")


@torch.no_grad()
def nearest_scheme(distance: Distance, seen: Seen, schemes: Schemes, x: Float[Tensor, "n 3 h h"]) -> Int[Tensor, " n"]:
    """Which of the schemes brings each image nearest to the truth, at a quarter of its resolution."""
    small = pooled(x, x.shape[-1] // SEARCHED)
    lightness, maps = small.mean(dim=1, keepdim=True), pooled(seen.maps, small.shape[-1])

    def made(rows: slice) -> Tensor:
        tried = colors(maps[rows], schemes[rows]).flatten(0, 1)
        return with_lightness(lightness[rows].repeat_interleave(schemes.shape[1], dim=0), tried)

    return nearest_of(distance, small, schemes.shape[1], made).flatten()
