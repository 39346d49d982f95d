import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from env.augment.blur import blur, blurred, kernel_size


def test_kernels_are_odd_and_near_a_tenth_of_the_side():
    assert [kernel_size(size) for size in (8, 16, 32, 64, 96, 224)] == [3, 3, 3, 7, 9, 23]


@pytest.mark.parametrize("size", [8, 32, 64])
def test_blur_is_torchvisions(size):
    x, width = torch.rand(5, 3, size, size), torch.tensor([0.1, 0.4, 0.9, 1.5, 2.0])
    theirs = [gaussian_blur(image, [kernel_size(size)] * 2, [float(w)]) for image, w in zip(x, width, strict=True)]
    torch.testing.assert_close(blurred(x, width), torch.stack(theirs), atol=1e-6, rtol=0)


def test_each_image_has_its_own_width():
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    spread = blur(image.expand(200, 3, 32, 32), torch.Generator().manual_seed(0)).std(dim=(1, 2, 3))
    assert len(spread.unique()) > 150
    assert float(spread.min()) < 0.5 * float(spread.max())
