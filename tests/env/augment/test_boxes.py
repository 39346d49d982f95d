import pytest
import torch
from torchvision.transforms import v2

from env.augment.boxes import anywhere, edge_aligned, whole

LAWS = pytest.mark.parametrize("law", [anywhere, edge_aligned])


def distance(a, b):
    """Largest difference of the distribution functions (Kolmogorov and Smirnov); values may repeat."""
    values = torch.cat([a, b]).unique()
    shares = [torch.searchsorted(side.sort().values, values, right=True) / len(side) for side in (a, b)]
    return float((shares[0] - shares[1]).abs().max())


@LAWS
@pytest.mark.parametrize("size", [3, 16, 32])
def test_boxes_lie_inside(law, size):
    boxes = law(20_000, size, 0.08, torch.Generator().manual_seed(0))
    assert all(int(side.min()) >= 1 for side in (boxes.height, boxes.width))
    assert all(int(start.min()) == 0 for start in (boxes.top, boxes.left))
    assert int((boxes.top + boxes.height).max()) == int((boxes.left + boxes.width).max()) == size


def test_aligned_boxes_touch_an_edge_and_each_as_often():
    size = 32
    boxes = edge_aligned(20_000, size, 0.08, torch.Generator().manual_seed(0))
    top, bottom = boxes.top == 0, boxes.top + boxes.height == size
    left, right = boxes.left == 0, boxes.left + boxes.width == size
    assert (top | bottom | left | right).all()
    small = (boxes.height < 24) & (boxes.width < 24)  # else it may touch several by chance
    rates = torch.stack([side[small].float().mean() for side in (top, bottom, left, right)])
    torch.testing.assert_close(rates, rates.mean().expand(4), atol=0.02, rtol=0)
    free = anywhere(20_000, size, 0.08, torch.Generator().manual_seed(0))
    inside = (free.top > 0) & (free.left > 0) & (free.top + free.height < size) & (free.left + free.width < size)
    assert inside.float().mean() > 0.3  # the other law does not


@pytest.mark.parametrize("smallest", [0.08, 0.6])
def test_the_law_is_torchvisions(smallest):
    size, n = 32, 3000
    boxes = anywhere(20_000, size, smallest, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    crop, image = v2.RandomResizedCrop(size, (smallest, 1.0)), torch.empty(3, size, size)
    theirs = [crop.make_params([image]) for _ in range(n)]
    for name in ("top", "left", "height", "width"):
        expected = torch.tensor([float(draw[name]) for draw in theirs])
        assert distance(getattr(boxes, name).float(), expected) < 0.035, name
    areas = torch.tensor([float(draw["height"] * draw["width"]) for draw in theirs])
    shapes = torch.tensor([draw["width"] / draw["height"] for draw in theirs])
    assert distance((boxes.height * boxes.width).float(), areas) < 0.035
    assert distance(boxes.width / boxes.height, shapes) < 0.035


def test_an_image_in_which_nothing_fits_is_kept_whole():
    boxes = anywhere(1000, 1, 1.0, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(boxes, whole(1000, 1, torch.device("cpu")), strict=True))


@LAWS
def test_equal_generators_give_equal_boxes_and_images_differ(law):
    first, second, third = (law(100, 32, 0.08, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.height, third.height)
    assert len(set(zip(*(side.tolist() for side in first), strict=True))) > 90
