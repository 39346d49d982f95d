import math

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as theirs

from env.augment.boxes import Boxes, anywhere, edge_aligned, whole
from env.augment.resample import resample

CPU = torch.device("cpu")


def images(m, size, seed=0):
    return torch.rand(m, 3, size, size, generator=torch.Generator().manual_seed(seed))


def flips(m):
    return torch.rand(m, generator=torch.Generator().manual_seed(1)) < 0.5


def cropped(x, boxes, mirrored):
    """Torchvision's crops and flips, image by image."""
    size = list(x.shape[-2:])
    views = []
    for row, flip in enumerate(mirrored.tolist()):
        box = [int(side[row]) for side in boxes]
        view = theirs.resized_crop(x[row : row + 1], *box, size=size, interpolation=InterpolationMode.BILINEAR)
        views.append(theirs.horizontal_flip(view) if flip else view)
    return torch.cat(views)


@pytest.mark.parametrize("law", [anywhere, edge_aligned])
@pytest.mark.parametrize("size", [16, 33])
def test_crop_and_flip_are_torchvisions(law, size):
    x, mirrored = images(60, size), flips(60)
    boxes = law(60, size, 0.08, torch.Generator().manual_seed(2))
    torch.testing.assert_close(resample(x, boxes, mirrored), cropped(x, boxes, mirrored), atol=1e-5, rtol=0)


def test_a_box_of_one_pixel_is_that_pixel():
    x = images(1, 8)
    one = Boxes(*(torch.tensor([number]) for number in (3, 5, 1, 1)))
    view = resample(x, one, torch.tensor([False]))
    torch.testing.assert_close(view, x[:, :, 3:4, 5:6].expand_as(view))


@pytest.mark.parametrize("size", [16, 33])
def test_rotation_is_torchvisions_with_the_border_reflected(size):
    x, still = images(6, size), torch.zeros(6, dtype=torch.bool)
    degrees = torch.tensor([-170.0, -45.0, -3.0, 10.0, 30.0, 120.0])
    border = math.ceil(0.21 * size) + 1
    padded = theirs.pad(x, [border], padding_mode="symmetric")
    turned = [
        theirs.rotate(padded[row : row + 1], float(angle), InterpolationMode.BILINEAR)
        for row, angle in enumerate(degrees)
    ]
    expected = theirs.center_crop(torch.cat(turned), [size, size])
    found = resample(x, whole(6, size, CPU), still, degrees)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    inside = theirs.rotate(x[4:5], 30.0, InterpolationMode.BILINEAR)  # the middle needs no padding at all
    middle = slice(size // 4, 3 * size // 4)
    torch.testing.assert_close(found[4:5, :, middle, middle], inside[:, :, middle, middle], atol=1e-4, rtol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_the_order_is_crop_flip_rotation(quarters):
    """By quarter turns, which interpolate nothing."""
    x, mirrored = images(30, 16), flips(30)
    boxes = anywhere(30, 16, 0.08, torch.Generator().manual_seed(2))
    expected = torch.rot90(cropped(x, boxes, mirrored), quarters, dims=(2, 3))
    found = resample(x, boxes, mirrored, torch.full((30,), 90.0 * quarters))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
