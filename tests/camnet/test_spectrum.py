"""Local amplitudes: against a slow transcription, and what they see and do not see."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.fft import dctn

from camnet.distance import Distance
from camnet.spectrum import FLOOR, amplitudes, octaves


def images(n, size=32, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_amplitudes_are_their_formula():
    x = images(1, 16)
    (fine, coarse) = amplitudes(x)
    assert fine.shape == (1, 45, 4, 4)
    assert coarse.shape == (1, 45, 2, 2)
    for found, image in ((fine, x), (coarse, F.avg_pool2d(x, 2))):
        red, green, _ = image[0].double().numpy()
        plane = 1.5**0.5 * (red - green)  # the first axis of color: channels 15 to 29
        windows = len(plane) // 2 - 1
        power = np.zeros((windows, windows, 15))
        for row in range(windows):
            for column in range(windows):
                window = plane[2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
                power[row, column] = (dctn(window, norm="ortho").flatten()[1:] / 4) ** 2
                assert power[row, column].sum() == pytest.approx(window.var())
        for row in range(found.shape[-1]):
            for column in range(found.shape[-1]):
                neighbors = power[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(axis=(0, 1))
                assert found[0, 15:30, row, column].tolist() == pytest.approx(np.sqrt(neighbors + FLOOR), rel=1e-4)


@pytest.mark.parametrize(("size", "count"), [(4, 0), (6, 0), (8, 1), (12, 1), (16, 2), (96, 2)])
def test_small_images_have_fewer_octaves_and_the_smallest_none(size, count):
    assert octaves(size) == len(amplitudes(images(1, size))) == count
    x = images(2, size)
    there = Distance(images(4, size), 1.0, texture_weight=2.0)(x, x.flip(0))
    assert there.isfinite().all()
    assert (there > Distance(images(4, size), 1.0)(x, x.flip(0))).all() == bool(count)


def test_a_flat_image_has_no_amplitude_and_a_finite_gradient():
    flat = torch.full((1, 3, 16, 16), 0.4, requires_grad=True)
    fine, coarse = amplitudes(flat)
    assert torch.allclose(fine, torch.tensor(FLOOR**0.5), atol=1e-5)
    (fine.sum() + coarse.sum()).backward()
    assert flat.grad.isfinite().all()


def test_a_texture_elsewhere_is_nearer_than_a_blur_and_stripes_of_its_strength_are_not():
    noise, other = (0.5 + 0.1 * torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    blur = torch.full_like(noise, 0.5)
    stripes = blur.clone()
    stripes[..., ::2] += 0.1
    stripes[..., 1::2] -= 0.1
    assert stripes.std().item() == pytest.approx(noise.std().item(), rel=0.02)
    plain, texture = Distance(images(50), 8.0), Distance(images(50), 8.0, texture_weight=50.0)
    assert plain(noise, blur).mean() < plain(noise, other).mean()  # what a blur comes from
    assert texture(noise, other).mean() < texture(noise, blur).mean()
    assert texture(noise, other).mean() < 0.6 * texture(noise, stripes).mean()


def test_the_texture_term_is_the_difference_of_amplitudes():
    x = images(3)
    plain, texture = Distance(x, 1.0), Distance(x, 1.0, texture_weight=2.0)
    expected = sum(
        (a - b).abs().sum(dim=1).mean(dim=(1, 2)) for a, b in zip(amplitudes(x), amplitudes(x.flip(0)), strict=True)
    )
    assert torch.allclose(texture(x, x.flip(0)) - plain(x, x.flip(0)), 2 * expected / 3, atol=1e-5)
    assert (texture(x, x) == 0).all()
    assert texture.name == "random-relu16+l1+2 color texture"


def test_a_gray_texture_counts_as_much_as_in_its_channels_and_no_color():
    lightness = images(1)[:, :1]
    fine, _ = amplitudes(lightness.expand(-1, 3, -1, -1))
    first, _ = amplitudes(torch.cat([lightness, torch.zeros(1, 2, 32, 32)], dim=1))
    assert torch.allclose(fine[:, :15], 3 * first[:, :15], atol=1e-2)
    assert torch.allclose(fine[:, 15:], torch.tensor(FLOOR**0.5), atol=1e-5)


def test_channels_out_of_step_are_farther_than_channels_in_step():
    texture = Distance(images(50), 0.0, texture_weight=50.0)
    planes = 0.5 + 0.1 * torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gray, other = (planes[:, k : k + 1].expand(-1, 3, -1, -1) for k in (0, 1))
    assert texture(gray, planes).mean() > 1.5 * texture(gray, other).mean()
    for channel in range(3):  # as strong as gray's, each by itself
        assert planes[:, channel].std().item() == pytest.approx(gray[:, channel].std().item(), rel=0.02)
