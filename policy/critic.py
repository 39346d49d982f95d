"""V(x): what reward an image's corruption will bring, guessed from the image alone."""

from jaxtyping import Float
from torch import Tensor, nn

from policy.trunk import Trunk


class Critic(nn.Module):
    """Image in, expected reward out.

    The policy's own kind of network: GroupNorm, so that a guess depends on its image alone. The last layer starts at
    zero: a new critic expects 0 for every image.

    Args:
        width: Channels of the first stage.
        image_size: Side of the square images it takes, in pixels.
    """

    def __init__(self, width: int, image_size: int) -> None:
        super().__init__()
        self.trunk = Trunk(width, image_size, _coarsest(image_size))
        self.norm = nn.LayerNorm(self.trunk.features, elementwise_affine=False)
        self.value = nn.Linear(self.trunk.features, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Guess for each image in [0, 1].

        Raises:
            ValueError: If the images are not of the size that the critic was made for.
        """
        _, whole = self.trunk(x)
        return self.value(self.norm(whole)).squeeze(1)


def _coarsest(size: int) -> int:
    """Halve a side as often as it is even and above four positions."""
    return size if size <= 4 or size % 2 else _coarsest(size // 2)
