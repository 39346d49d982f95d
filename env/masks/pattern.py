"""AutoDropout's structured pattern: squares in rows and columns, rotated and sheared; one learned law for all images.

Source: Pham and Le 2021, "AutoDropout: Learning Dropout Patterns to Regularize Deep Networks" (arXiv 2101.01761).
Departures: it hides pixels of the input, not activations inside the network; its six choices are independent of one
another, where the paper's controller makes them one after the other; and the plane is filled with copies of the
pattern, one image apart, so that every pixel is hidden equally often and the expected share has a closed form.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from env.masks.gumbel import perturbed
from env.masks.law import MaskDraw


@dataclass(frozen=True)
class Choice:
    """Equally spaced values that a parameter can take.

    Attributes:
        first: The value of index 0.
        step: From one value to the next.
        count: How many there are.
    """

    first: float
    step: float
    count: int

    def value(self, index: Int[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The values of the given indices: computed on their device, where a table would have to be copied to it."""
        return self.first + self.step * index.float()

    def values(self, device: torch.device) -> Float[Tensor, " k"]:
        """All of them."""
        return self.value(torch.arange(self.count, device=device))


PARAMETERS = (
    Choice(1 / 8, 1 / 8, 4),  # size: side of a square, as a share of the image's
    Choice(1 / 8, 1 / 8, 4),  # stride: from the end of a square to the next one, as a share of the image's side
    Choice(1.0, 1.0, 4),  # repeat: squares along each of the two axes
    Choice(0.0, math.pi / 12, 4),  # rotation: radians
    Choice(0.0, 1 / 4, 3),  # shear_x: how far a row moves along, for each row below the middle
    Choice(0.0, 1 / 4, 3),  # shear_y: how far a column moves down, for each column right of the middle
)
"""The six parameters of a pattern, in the order of `Pattern.logits` and of what is drawn."""


@dataclass(frozen=True)
class Pattern:
    """Six independent categories and a random offset.

    The offset is drawn for each image and belongs to the environment's noise: it is in no log-probability.

    Attributes:
        logits: Unnormalized log-probabilities, one tensor for each of `PARAMETERS`; the same for all images.
        n: Images.
        size: Side of the masks in pixels.
    """

    logits: tuple[Float[Tensor, " _"], ...]
    n: int
    size: int

    def sample(self, generator: torch.Generator) -> MaskDraw:
        """Draw each image's six parameters and its offset."""
        picks = [perturbed(part.detach().expand(self.n, -1), generator).argmax(dim=1) for part in self.logits]
        drawn = torch.stack(picks, dim=1)
        offset = torch.rand((self.n, 2), generator=generator, device=drawn.device)
        return MaskDraw(render(drawn, offset, self.size), drawn)

    def mode(self) -> MaskDraw:
        """The most probable value of each parameter, without offset."""
        drawn = torch.stack([part.argmax() for part in self.logits]).expand(self.n, -1)
        return MaskDraw(render(drawn, torch.zeros((self.n, 2), device=drawn.device), self.size), drawn)

    def log_prob(self, draw: MaskDraw) -> Float[Tensor, " n"]:
        """Log-probability of the six parameters of each image."""
        assert draw.drawn is not None, "a pattern is scored by the parameters that it was made from"
        parts = [F.log_softmax(part, dim=0)[draw.drawn[:, j]] for j, part in enumerate(self.logits)]
        return torch.stack(parts).sum(dim=0)

    def entropy(self) -> Float[Tensor, " n"]:
        """Sum over the six parameters."""
        parts = [torch.special.entr(part.softmax(dim=0)).sum() for part in self.logits]
        return torch.stack(parts).sum().expand(self.n)

    def ratio(self) -> Float[Tensor, " n"]:
        """Expected share of hidden pixels, exactly: the mean of `area` over sizes, strides and repeats.

        Rotation and shear leave areas as they are, and the offset makes each pixel fall anywhere in the pattern
        equally often.
        """
        size, stride, repeat = (part.softmax(dim=0) for part in self.logits[:3])
        device = size.device
        areas = area(
            PARAMETERS[0].values(device)[:, None, None],
            PARAMETERS[1].values(device)[:, None],
            PARAMETERS[2].values(device),
        )
        return torch.einsum("i,j,k,ijk->", size, stride, repeat, areas.to(size.dtype)).expand(self.n)

    def probabilities(self) -> Float[Tensor, "n s s"]:
        """The expected share at every pixel, exactly, by the same reasons."""
        return self.ratio()[:, None, None].expand(-1, self.size, self.size)


def render(drawn: Int[Tensor, "n 6"], offset: Float[Tensor, "n 2"], size: int) -> Bool[Tensor, "n s s"]:
    """Draw the patterns: each pixel is carried back to where it lies in the plain rows and columns of squares.

    Args:
        drawn: Indices into `PARAMETERS`.
        offset: Where the pattern begins, down and along, as shares of the image's side; counted from its upper left
            corner before rotation and shear about its middle.
        size: Side of the masks in pixels.
    """
    side, stride, repeat, angle, shear_x, shear_y = (
        choice.value(drawn[:, j])[:, None, None] for j, choice in enumerate(PARAMETERS)
    )
    middle = (torch.arange(size, device=drawn.device) + 0.5) / size - 0.5
    y, x = middle[:, None], middle
    y = y - shear_y * x
    x = x - shear_x * y
    along = angle.cos() * x + angle.sin() * y
    down = angle.cos() * y - angle.sin() * x

    def in_square(place: Float[Tensor, "n s s"], start: Float[Tensor, " n"]) -> Bool[Tensor, "n s s"]:
        """Whether a place on one axis lies in one of the repeats; what is over an image's length is cut off."""
        place = (place + 0.5 - start[:, None, None]) % 1
        number = (place / (side + stride)).floor()
        return (number < repeat) & (place - number * (side + stride) < side)

    return in_square(down, offset[:, 0]) & in_square(along, offset[:, 1])


def area(
    size: Float[Tensor, "*#s"], stride: Float[Tensor, "*#s"], repeat: Float[Tensor, "*#s"]
) -> Float[Tensor, "..."]:
    """Area of a pattern as a share of the image's: the square of what its squares cover on one axis.

        (Σ_j<repeat min(size, 1 - j (size + stride)))², terms below 0 left out

    Args:
        size: Side of a square.
        stride: From the end of a square to the next one.
        repeat: Squares on the axis.
    """
    number = torch.arange(PARAMETERS[2].count, device=size.device)
    size, stride, repeat = size[..., None], stride[..., None], repeat[..., None]
    room = 1 - number * (size + stride)
    covered = torch.where(number < repeat, torch.minimum(room, size).clamp(min=0), 0.0)
    return covered.sum(dim=-1).square()
