"""The colorist's taste: which of many color schemes would the search take? Asked without the truth.

What `camnet.prior` is to the codes of a module, but that it looks at what a candidate would do and not at its code: at
its colors, place by place, beside features of what is there. That clouds are seldom orange need not be learned anew for
every code that would paint them so.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

HIDDEN = 64
STRENGTH = 8.0
"""What colors are multiplied by: their coordinates have a standard deviation of 0.11 in photographs."""


class Taste(nn.Module):
    """Scores colors of an image: log of how much more often than chance the search takes them, up to a constant."""

    def __init__(self, width: int) -> None:
        """Begin with equal scores.

        Args:
            width: Channels of the features.
        """
        super().__init__()
        self.look = nn.Conv2d(width, HIDDEN, 3, padding=1)
        self.color = nn.Conv2d(2, HIDDEN, 3, padding=1, bias=False)
        self.conv = nn.Conv2d(HIDDEN, HIDDEN, 1)
        self.mix, self.head = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, places: Float[Tensor, "n c q q"], colors: Float[Tensor, "n m 2 q q"]) -> Float[Tensor, "n m"]:
        """Score m candidates for each of n images.

        Args:
            places: Features of the images.
            colors: What the candidates would be there.
        """
        seen = self.look(F.silu(places))[:, None]
        h = seen + self.color(STRENGTH * colors.flatten(0, 1)).unflatten(0, colors.shape[:2])
        h = self.conv(F.silu(h.flatten(0, 1)))
        return self.head(F.silu(self.mix(F.silu(h).mean(dim=(2, 3))))).view(colors.shape[:2])
