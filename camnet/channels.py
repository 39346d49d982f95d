"""Channels side by side in one layout, and a convolution that sees but once what several rows share."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def layout_of(x: Tensor) -> torch.memory_format:
    """How a tensor lies in memory: channels last or not."""
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def beside(parts: list[Tensor], layout: torch.memory_format, dtype: torch.dtype) -> Tensor:
    """Channels side by side in a layout; `torch.cat` puts a mixture into the other one, and convolutions copy that."""
    parts = [part.to(dtype) for part in parts]
    if layout is torch.channels_last:
        return torch.cat([part.movedim(1, -1) for part in parts], dim=-1).movedim(-1, 1)
    return torch.cat(parts, dim=1)


def repeated_rows(x: Tensor, many: int) -> Tensor:
    """Every row `many` times in a row. What lies channels last stays so, which `repeat_interleave` forgets."""
    if many == 1:
        return x
    if layout_of(x) is torch.channels_last:
        return x.movedim(1, -1).repeat_interleave(many, dim=0).movedim(-1, 1)
    return x.repeat_interleave(many, dim=0)


def convolved(
    shared: Float[Tensor, "n p r r"],
    own: list[Float[Tensor, "nk _ r r"]],
    weight: Float[Tensor, "c _ 3 3"],
    bias: Float[Tensor, " c"] | None,
    layout: torch.memory_format,
) -> Float[Tensor, "nk c r r"]:
    """Convolve what every row has of its own, beside what k of them share: where k is more than 1, the latter once.

    Args:
        shared: The first channels; computed in their type.
        own: The others, row by row.
        weight: Filters of all channels.
        bias: Of the filters.
        layout: That of the weights.
    """
    many, first = len(own[0]) // len(shared), shared.shape[1]
    if many == 1:
        return F.conv2d(beside([shared, *own], layout, shared.dtype), weight, bias, padding=1)
    once = F.conv2d(shared, weight[:, :first], bias, padding=1)
    return repeated_rows(once, many) + F.conv2d(beside(own, layout, shared.dtype), weight[:, first:], padding=1)
