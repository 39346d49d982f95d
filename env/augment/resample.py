"""Crop, flip and rotation: where each pixel of a view is read from, and one bilinear reading for all three."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from env.augment.boxes import Boxes


def resample(
    x: Float[Tensor, "m 3 s s"],
    boxes: Boxes,
    mirrored: Bool[Tensor, " m"],
    degrees: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "m 3 s s"]:
    """Cut a box out of each image, enlarge it to the image's size, mirror it, then rotate it.

    Without rotation this is torchvision's resized_crop (bilinear) and horizontal_flip; antialiasing would change
    nothing, since nothing shrinks. With it, the three are read in one interpolation, which blurs less than one each.

    Args:
        x: Images.
        boxes: What is kept of each.
        mirrored: Whether each is flipped, left to right.
        degrees: How far each is rotated, counterclockwise, about its center; corners mirror the inside. None: not.

    Returns:
        New images of the same size.
    """
    center = _centers(x.shape[-1], x.device)
    across, down = center.view(1, 1, -1), center.view(1, -1, 1)
    if degrees is not None:
        across, down = _rotated(across, down, degrees)
    across = across * (1 - 2 * mirrored.to(x.dtype)).view(-1, 1, 1)
    columns = _inside(across, boxes.left, boxes.width, x.shape[-1])
    rows = _inside(down, boxes.top, boxes.height, x.shape[-1])
    grid = torch.stack(torch.broadcast_tensors(columns, rows), dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _centers(size: int, device: torch.device) -> Float[Tensor, " s"]:
    """Centers of a line of pixels that reaches from -1 to 1."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1


def _rotated(
    across: Float[Tensor, "1 1 s"], down: Float[Tensor, "1 s 1"], degrees: Float[Tensor, " m"]
) -> tuple[Float[Tensor, "m s s"], Float[Tensor, "m s s"]]:
    """Where the pixels of a rotated image were before; what comes from outside is reflected at the border."""
    angle = (degrees * (math.pi / 180)).view(-1, 1, 1)
    cosine, sine = angle.cos(), angle.sin()
    return _reflected(cosine * across - sine * down), _reflected(sine * across + cosine * down)


def _reflected(place: Float[Tensor, "m s s"]) -> Float[Tensor, "m s s"]:
    """Fold places in [-3, 3] into [-1, 1] at its ends."""
    return 2 * place.clamp(-1, 1) - place


def _inside(
    place: Float[Tensor, "#m a b"], first: Int[Tensor, " m"], length: Int[Tensor, " m"], size: int
) -> Float[Tensor, "m a b"]:
    """Move places in a box (-1 to 1) to places in its image (-1 to 1), and keep them on the box's own pixels.

    The half pixel between a box's border and the center of its last pixel would otherwise show its neighbor.
    """
    middle, half = ((2 * first + length) / size - 1).view(-1, 1, 1), (length / size).view(-1, 1, 1)
    low, high = middle - half + 1 / size, middle + half - 1 / size
    return torch.minimum(torch.maximum(torch.addcmul(middle, half, place), low), high)  # faster than clamp on a CPU
