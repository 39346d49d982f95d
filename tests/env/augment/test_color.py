import pytest
import torch
from torchvision.transforms.v2 import functional as theirs

from env.augment.color import BRIGHTNESS, CONTRAST, SATURATION, Jitter, JitterDraw, blended, gray, jittered, turned

BLENDS = {
    BRIGHTNESS: theirs.adjust_brightness,
    CONTRAST: theirs.adjust_contrast,
    SATURATION: theirs.adjust_saturation,
}


def images(m, size=8, seed=0):
    return torch.rand(m, 3, size, size, generator=torch.Generator().manual_seed(seed))


def one_by_one(operation, x, numbers):
    return torch.stack([operation(image, float(number)) for image, number in zip(x, numbers, strict=True)])


@pytest.mark.parametrize("which", BLENDS)
def test_each_blend_is_torchvisions(which):
    x, factor = images(9), torch.linspace(0, 1.8, 9)
    found = blended(x, torch.full((9,), which), factor)
    torch.testing.assert_close(found, one_by_one(BLENDS[which], x, factor), atol=1e-6, rtol=0)


def test_hue_is_torchvisions():
    x, turn = images(11), torch.linspace(-0.5, 0.5, 11)
    torch.testing.assert_close(turned(x, turn), one_by_one(theirs.adjust_hue, x, turn), atol=1e-5, rtol=0)


def test_hue_is_torchvisions_on_bytes_where_channels_are_equal():
    """Corners and edges of the color cube, where a sixth of the circle ends and the next begins; and grays."""
    levels = torch.tensor([0, 1, 128, 255]) / 255
    x = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 8, 8)
    for turn in (-0.2, 0.0, 0.07, 1 / 6, 0.5):
        found = turned(x, torch.tensor([turn]))
        torch.testing.assert_close(found, theirs.adjust_hue(x, turn), atol=1e-5, rtol=0)


def test_a_turn_of_nothing_and_almost_gray_pixels_stay():
    x = images(4)
    torch.testing.assert_close(turned(x, torch.zeros(4)), x, atol=2e-6, rtol=0)
    almost = 0.5 + 1e-7 * images(4)
    torch.testing.assert_close(turned(almost, torch.full((4,), 0.3)), almost, atol=1e-6, rtol=0)


def test_gray_is_torchvisions():
    x = images(3)
    torch.testing.assert_close(gray(x), theirs.rgb_to_grayscale(x))


def test_a_whole_jitter_is_torchvisions_in_each_images_own_order():
    x, jitter = images(21), Jitter(0.8, 0.2)
    draw = jitter.draw(21, torch.Generator().manual_seed(3))
    expected = []
    for row, image in enumerate(x):
        steps = [
            lambda y, q=q, row=row: BLENDS[int(draw.order[row, q])](y, float(draw.factor[row, q])) for q in range(3)
        ]
        quarter = next(q for q in range(4) if row < len(x) * (q + 1) // 4)
        steps.insert(quarter, lambda y, row=row: theirs.adjust_hue(y, float(draw.turn[row])))
        for step in steps:
            image = step(image)
        expected.append(image)
    torch.testing.assert_close(jittered(x, draw), torch.stack(expected), atol=1e-4, rtol=0)
    assert len({tuple(order) for order in draw.order.tolist()}) == 6


def test_parameters_have_torchvisions_law():
    draw = Jitter(0.8, 0.2).draw(20_000, torch.Generator().manual_seed(0))
    assert 0.2 <= float(draw.factor.min()) < 0.21
    assert 1.79 < float(draw.factor.max()) <= 1.8
    assert float(draw.factor.mean()) == pytest.approx(1, abs=0.01)
    assert float(draw.turn.abs().max()) == pytest.approx(0.2, abs=0.001)
    assert float(draw.turn.mean()) == pytest.approx(0, abs=0.003)
    codes = draw.order @ torch.tensor([9, 3, 1])
    shares = torch.unique(codes, return_counts=True)[1] / 20_000
    torch.testing.assert_close(shares, torch.full((6,), 1 / 6), atol=0.012, rtol=0)
    assert float(Jitter(1.5, 0.0).draw(1000, torch.Generator()).factor.min()) >= 0  # 1 - 1.5 is cut


def test_rows_do_not_influence_one_another():
    x = images(8)
    draw = Jitter(0.8, 0.2).draw(8, torch.Generator().manual_seed(0))
    other = x.clone()
    other[1:] = images(7, seed=9)
    assert torch.equal(jittered(x, draw)[0], jittered(other, draw)[0])


def test_images_stay_as_they_were():
    x = images(8)
    before = x.clone()
    jittered(x, JitterDraw(torch.arange(3).expand(8, 3), torch.zeros(8, 3), torch.full((8,), 0.4)))
    assert torch.equal(x, before)
