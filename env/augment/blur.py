"""Gaussian blur of each image by its own width, as torchvision defines it."""

import torch
from jaxtyping import Float
from torch import Tensor

NARROWEST, WIDEST = 0.1, 2.0
"""Standard deviations in pixels are uniform between these, as in SimCLR."""


def kernel_size(image_size: int) -> int:
    """An odd number of pixels near a tenth of the image's side, at least 3."""
    return max(3, 2 * (image_size // 20) + 1)


def blur(x: Float[Tensor, "k 3 s s"], random: torch.Generator) -> Float[Tensor, "k 3 s s"]:
    """Blur each image by a width of its own."""
    width = NARROWEST + (WIDEST - NARROWEST) * torch.rand(len(x), generator=random, device=random.device)
    return blurred(x, width)


def blurred(x: Float[Tensor, "k 3 s s"], width: Float[Tensor, " k"]) -> Float[Tensor, "k 3 s s"]:
    """Blur each image by a standard deviation in pixels, the border reflected.

    Convolution with a kernel is a product with a banded matrix, and both are the same along rows and columns. A matrix
    of its own for each image makes that two batched products, whatever the widths.
    """
    size = x.shape[-1]
    matrix = _matrices(width, size)
    along = torch.bmm(x.reshape(len(x), 3 * size, size), matrix.mT).view_as(x)
    return torch.matmul(matrix.unsqueeze(1), along)


def _matrices(width: Float[Tensor, " k"], size: int) -> Float[Tensor, "k s s"]:
    """Row i holds the weights of the pixels that pixel i is made of."""
    reach = kernel_size(size) // 2
    offset = torch.arange(-reach, reach + 1, device=width.device)
    weight = torch.softmax(-(offset / width[:, None]).square() / 2, dim=1)
    pixel = torch.arange(size, device=width.device)
    source = (pixel[:, None] + offset).abs()
    source = (size - 1) - ((size - 1) - source).abs()
    picks = source.unsqueeze(-1) == pixel  # pixel i, offset o: which pixel it reads
    return torch.einsum("ko,iop->kip", weight, picks.to(weight.dtype))
