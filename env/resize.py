"""Images at half and at twice their size.

On a GPU by PyTorch's own kernels. Those for a CPU go pixel by pixel, where a few operations on whole slices need an
eighth (means), a quarter (repeating), half (interpolating) or a twentieth (minima) of the time (docs/log.md, "Slices"),
so there large batches are sliced. Equal to rounding (adding rows first is faster than the order of the kernels), and
differentiable, either way.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FEW_PIXELS = 2**15
"""Numbers in all images of a batch below which one kernel is faster than several operations on slices."""


def halved(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """The mean of every 2 x 2 pixels; of an odd side's last ones, two or one: avg_pool2d(x, 2, ceil_mode=True)."""
    if not _slices_pay(x, x.numel()):
        return F.avg_pool2d(x, 2, ceil_mode=True)
    top, bottom = _pairs(x)
    left, right = _pairs((top + bottom).mT)
    return ((left + right) / 4).mT


def smallest(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """The least of every 2 x 2 pixels; sides are even."""
    if x.requires_grad or not _slices_pay(x, x.numel()):  # the gradient of slices would take three times as long
        return -F.max_pool2d(-x, 2)
    left, right = _pairs(torch.minimum(*_pairs(x)).mT)
    return torch.minimum(left, right).mT


def pooled(x: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c s s"]:
    """The mean of every k x k pixels, where k = h / size is whole."""
    while x.shape[-1] > size and x.shape[-1] // size % 2 == 0 and _slices_pay(x, x.numel()):
        x = halved(x)
    return F.avg_pool2d(x, x.shape[-1] // size) if x.shape[-1] > size else x


def repeated(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Every pixel as 2 x 2 pixels."""
    if not _slices_pay(x, 4 * x.numel()):
        return F.interpolate(x, scale_factor=2, mode="nearest")
    wide = x.unsqueeze(-1).expand(*x.shape, 2).flatten(-2)
    return torch.stack([wide, wide], dim=-2).flatten(-3, -2)


def enlarged(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Twice as large, interpolated: interpolate(x, scale_factor=2, mode="bilinear")."""
    if not _slices_pay(x, 4 * x.numel()):
        return F.interpolate(x, scale_factor=2, mode="bilinear")
    return _with_rows_between(_with_rows_between(x.mT).mT)


def _slices_pay(x: Tensor, numbers: int) -> bool:
    """Whether slices are faster than one kernel that reads or writes so many numbers, and none is being compiled."""
    return x.device.type == "cpu" and numbers >= FEW_PIXELS and not torch.compiler.is_compiling()


def _pairs(x: Tensor) -> tuple[Tensor, ...]:
    """Rows 0, 2, 4, ... and rows 1, 3, 5, ...; the last of an odd number counts twice."""
    if x.shape[-2] % 2:
        x = torch.cat([x, x[..., -1:, :]], dim=-2)
    return x.unflatten(-2, (-1, 2)).unbind(-2)


def _with_rows_between(x: Tensor) -> Tensor:
    """Twice as many rows, a quarter of their distance beside the old ones; at the borders the old ones."""
    above, below = x[..., :-1, :], x[..., 1:, :]
    between = torch.stack([torch.lerp(above, below, 0.25), torch.lerp(above, below, 0.75)], dim=-2)
    return torch.cat([x[..., :1, :], between.flatten(-3, -2), x[..., -1:, :]], dim=-2)
