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
    """m codes of one module, among which a learned prior is to choose, and the luck that decides between equals.

    Attributes:
        style: As in `Code`.
        noise: As in `Code`.
        luck: Standard Gumbel: the largest of score + luck is a draw in proportion to exp(score).
    """

    style: Float[Tensor, "n m zg g g"]
    noise: Float[Tensor, "n m zs _ _"]
    luck: Float[Tensor, "n m g g"]

    def __len__(self) -> int:
        return len(self.style)

    @staticmethod
    def of(codes: Code, m: int, generator: torch.Generator) -> "Candidates":
        """Take codes as m candidates for each of n images, image by image, and draw their luck."""
        style, noise = codes.style.unflatten(0, (-1, m)), codes.noise.unflatten(0, (-1, m))
        waiting = torch.empty(len(style), m, *style.shape[-2:], device=style.device).exponential_(generator=generator)
        return Candidates(style, noise, -waiting.log())

    def codes(self) -> Code:
        """All of them, image by image."""
        return Code(self.style.flatten(0, 1), self.noise.flatten(0, 1))

    def drawn(self, scores: Float[Tensor, "nm g g"]) -> Code:
        """One code for each image, in proportion to the exponential of the scores, region by region."""
        return self.codes().patchwork((scores.view_as(self.luck) + self.luck).argmax(dim=1))


@dataclass(frozen=True)
class Stage(Rows):
    """What one module leaves to the next: its features (n, c, r / patch, r / patch) and its image (n, 3, r, r)."""

    features: Tensor
    image: Tensor
