"""Rows: dataclasses of tensors that have a row for each of n things are selected, joined and mixed row by row.

And `remade`: work that only some of the rows of a tensor need.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

R = TypeVar("R", bound="Rows")


class Rows:
    """A dataclass of tensors (or of other Rows) that have a row for each of n things.

    Anything else in it, such as None in place of a tensor or a number that holds for all rows, stays as it is; of
    several parts, that of the first.
    """

    def select(self: R, index: Tensor | slice) -> R:
        """The rows at the given index; those of a slice are not copied."""
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


def remade(
    x: Shaped[Tensor, "n ..."], needed: Bool[Tensor, " n"], remake: Callable[[Tensor | slice], Tensor]
) -> Shaped[Tensor, "n ..."]:
    """Make those rows anew that need it; the others stay as they are.

    A GPU, and what is compiled, works on all of them: to learn which, the host would have to wait for it.

    Args:
        x: What there is.
        needed: Which rows are to be made anew.
        remake: Makes the rows at an index, which is never empty: ascending numbers, or a slice of all.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(needed.view(-1, *(1 for _ in x.shape[1:])), remake(slice(None)), x)
    rows = needed.nonzero().flatten()
    return x.index_copy(0, rows, remake(rows)) if len(rows) else x


def _combined(parts: Sequence[R], combine: Callable[[list[Tensor]], Tensor]) -> R:
    """Combine the tensors that have the same place in each part."""

    def combined(same: list[Any]) -> Any:
        if isinstance(same[0], Tensor):
            return combine(same)
        return _combined(same, combine) if isinstance(same[0], Rows) else same[0]

    names = [field.name for field in fields(parts[0])]  # type: ignore[arg-type]
    return type(parts[0])(*(combined([getattr(part, name) for part in parts]) for name in names))
