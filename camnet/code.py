"""What goes through the cascade: the code of a module, and the stage that it leaves to the next. One row per image."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from env.rows import Rows


@dataclass(frozen=True)
class Code(Rows):
    """The latent code of one module.

    Attributes:
        style: One vector for each of g x g regions, standard normal; one region is the whole image.
        noise: One vector for each place of the module's features, standard normal (zero channels where off).
    """

    style: Float[Tensor, "n zg g g"]
    noise: Float[Tensor, "n zs _ _"]

    def __len__(self) -> int:
        return len(self.style)

    def patchwork(self, choice: Int[Tensor, "k g g"]) -> "Code":
        """Put together one code per image from the regions of its candidates.

        The regions of standard normal codes are independent, so what is put together is such a code, too.

        Args:
            choice: For each of k images, of whose m = n / k candidates (image by image) each region is taken.

        Returns:
            k codes.
        """

        def pick(parts: Tensor) -> Tensor:
            candidates = parts.unflatten(0, (len(choice), -1))
            times = parts.shape[-1] // choice.shape[-1]
            index = choice.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
            return candidates.gather(1, index[:, None, None].expand(-1, -1, parts.shape[1], -1, -1)).squeeze(1)

        return Code(pick(self.style), pick(self.noise))


@dataclass(frozen=True)
class Candidates(Rows):
    """A code whose style is yet to be chosen by a learned prior, from m of them, and the luck that decides.

    Attributes:
        styles: As in `Code`, m for each.
        noise: As in `Code`.
        luck: Standard Gumbel: the largest of score + luck is a draw in proportion to exp(score).
    """

    styles: Float[Tensor, "n m zg g g"]
    noise: Float[Tensor, "n zs _ _"]
    luck: Float[Tensor, "n m g g"]

    def __len__(self) -> int:
        return len(self.noise)

    def drawn(self, scores: Float[Tensor, "n m g g"]) -> Code:
        """One code for each image, in proportion to the exponential of the scores, region by region."""
        choice = (scores + self.luck).argmax(dim=1)[:, None, None].expand(-1, -1, *self.styles.shape[2:])
        return Code(self.styles.gather(1, choice).squeeze(1), self.noise)


@dataclass(frozen=True)
class Stage(Rows):
    """What one module leaves to the next, or (`CascadeModule.enter`) what no code enters.

    Attributes:
        features: (n, c, r / patch, r / patch).
        image: (n, 3, r, r).
        for_color: What has entered the module's `Color`, where it has one and a code is yet to come.
    """

    features: Tensor
    image: Tensor
    for_color: Tensor | None = None


def luck_of(styles: Float[Tensor, "n m zg g g"], generator: torch.Generator) -> Float[Tensor, "n m g g"]:
    """Draw the luck of each candidate, region by region."""
    chance = torch.rand(styles[:, :, 0].shape, generator=generator, device=styles.device)
    return -(-chance.log()).log()
