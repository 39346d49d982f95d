"""What goes through the cascade: the code of a module, and the stage that it leaves to the next. One row an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

R = TypeVar("R", bound="Rows")


class Rows:
    """A dataclass of tensors (or of other Rows) that have a row for each of n things."""

    def select(self: R, index: Tensor) -> R:
        """The rows at the given index."""
        return _combined([self], lambda tensors: tensors[0][index])

    @staticmethod
    def joined(parts: Sequence[R]) -> R:
        """The rows of all parts, one after another."""
        return _combined(parts, torch.cat)

    @staticmethod
    def where(take: Bool[Tensor, " n"], these: R, others: R) -> R:
        """Each row of `these` where it is taken, of `others` elsewhere."""

        def chosen(tensors: list[Tensor]) -> Tensor:
            this, other = tensors
            return torch.where(take.view(-1, *(1 for _ in this.shape[1:])), this, other)

        return _combined([these, others], chosen)


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
        """Put together one code an image from the regions of its candidates.

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
class Stage(Rows):
    """What one module leaves to the next: its features (n, c, r / patch, r / patch) and its image (n, 3, r, r)."""

    features: Tensor
    image: Tensor


def _combined(parts: Sequence[R], combine: Callable[[list[Tensor]], Tensor]) -> R:
    """Combine the tensors that have the same place in each part."""
    values: list[Any] = []
    for field in fields(parts[0]):  # type: ignore[arg-type]
        same = [getattr(part, field.name) for part in parts]
        values.append(combine(same) if isinstance(same[0], Tensor) else _combined(same, combine))
    return type(parts[0])(*values)
