"""Patterns, blur and borders of blocks: planted, and found."""

import pytest
import torch
import torch.nn.functional as F

from camnet import texture
from camnet.metrics import psnr


def test_power_is_that_of_each_frequency():
    x = torch.zeros(1, 3, 8, 8)
    x[:, :, :, ::2] = 1  # the constant, and stripes of one pixel
    found = texture.power(x)[0]
    assert found.argmax() == 3  # the highest of the frequencies across: (0, 4), without the constant
    assert found[3] == 32**2
    assert found.sum() == 32**2
    assert texture.power(x + 0.25).sum() == pytest.approx(32**2)


def test_faint_stripes_have_many_times_the_power_of_photographs_there():
    x = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    smooth = F.avg_pool2d(x, 5, stride=1, padding=2)
    stripes = 0.02 * (torch.arange(x.shape[-1]) % 2).sub(0.5)
    real = texture.power(smooth)
    assert texture.power_ratio(real, real).item() == pytest.approx(1)
    assert texture.power_ratio(real, texture.power(0.5 * smooth)).item() == pytest.approx(0.25)  # a blur is no pattern
    assert psnr((smooth + stripes).unsqueeze(1), smooth).mean().item() > 39
    assert texture.power_ratio(real, texture.power(smooth + stripes)).item() > 3


def test_a_blur_has_less_detail_and_stripes_hardly_more():
    random = torch.Generator().manual_seed(0)
    sharp = torch.rand(200, 3, 32, 32, generator=random)
    real = texture.power(sharp)
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
    assert texture.detail_ratio(real, real).item() == pytest.approx(1)
    assert texture.detail_ratio(real, texture.power(0.5 * sharp)).item() == pytest.approx(0.25)
    assert texture.detail_ratio(real, texture.power(blurred)).item() < 0.2
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::2] = 0.5
    striped = texture.power(sharp + stripes)
    assert texture.power_ratio(real, striped) > 10
    assert texture.detail_ratio(real, striped).item() == pytest.approx(1, abs=0.02)


def test_half_of_the_fine_detail_is_what_the_docstring_says():
    sharp = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft2(sharp)
    across, down = torch.fft.rfftfreq(32)[None], torch.fft.fftfreq(32).abs()[:, None]
    halved = torch.where(torch.maximum(across, down) > 0.25, spectrum * 0.5**0.5, spectrum)
    found = texture.detail_ratio(texture.power(sharp), texture.power(torch.fft.irfft2(halved, s=(32, 32))))
    assert found.item() == pytest.approx(0.6, abs=0.02)


def test_power_where_there_is_none_to_compare_with_is_finite():
    flat = torch.full((2, 3, 8, 8), 0.5)
    flat[0, :, :4] = 0.25
    power = texture.power(flat)
    assert texture.power_ratio(power, power).item() == pytest.approx(1)
    assert texture.detail_ratio(power, power).item() == pytest.approx(1)


@pytest.mark.parametrize("side", texture.BLOCKS)
def test_borders_of_blocks_stand_out_whatever_their_side(side):
    x = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    constants = torch.rand(20, 3, 32 // side, 32 // side, generator=torch.Generator().manual_seed(1))
    blocky = x + 0.5 * constants.repeat_interleave(side, 2).repeat_interleave(side, 3)
    real = texture.steps(x)
    assert texture.seam_ratio(real, real).item() == pytest.approx(1)
    assert texture.seam_ratio(real, texture.steps(0.5 * x)).item() == pytest.approx(1)  # a faint image has no borders
    assert texture.seam_ratio(real, texture.steps(blocky)).item() > 1.08
    assert texture.seam_ratio(texture.steps(blocky), texture.steps(blocky)).item() == pytest.approx(1)


def test_a_seam_ratio_is_that_of_the_steps_across_the_borders():
    x = torch.zeros(1, 3, 4, 4)
    x[..., 0], x[..., 2:] = 0.1, 0.4  # across: 0.1, 0.4, 0; down: none
    assert texture.steps(x)[0].tolist() == pytest.approx([0.05, 0.2, 0.0])
    even = torch.ones(1, 3)
    assert texture.seam_ratio(even, texture.steps(x)).item() == pytest.approx(0.2 / 0.025)


def test_flat_images_have_no_seams_and_tiny_ones_no_blocks():
    flat = texture.steps(torch.full((2, 3, 8, 8), 0.5))
    assert texture.seam_ratio(flat, flat).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="no border"):
        texture.seam_ratio(flat[:, :2], flat[:, :2])


def test_color_shares_are_their_formula():
    x = torch.rand(2, 3, 17, 17, generator=torch.Generator().manual_seed(0))
    gray = x.mean(dim=1, keepdim=True).expand_as(x)
    found = texture.color_shares(x).view(2, 2, 2)
    for i, row, column in [(0, 0, 0), (1, 0, 1), (1, 1, 0)]:
        power = []
        for part in (x - gray, gray):
            steps = [
                (part[i, c, y, z] - part[i, c, y - dy, z - dz]) ** 2
                for c in range(3)
                for y in range(8 * row + 1, 8 * row + 9)
                for z in range(8 * column + 1, 8 * column + 9)
                for dy, dz in ((1, 0), (0, 1))
            ]
            power.append(sum(steps) / 64)
        expected = (power[0] / (power[1] + texture.FAINT)) ** 0.5
        assert found[i, row, column].item() == pytest.approx(expected.item(), rel=1e-4)


def test_fringes_are_colors_that_edges_did_not_have_and_a_blur_has_none():
    gray = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    scene = gray * torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)
    real = texture.color_shares(scene)
    assert texture.fringe_ratio(real, real).item() == pytest.approx(1)
    assert texture.fringe_ratio(real, texture.color_shares(0.5 * scene + 0.5)).item() == pytest.approx(1, abs=0.01)
    fringed = torch.stack([scene[:, 0], scene[:, 1].roll(1, dims=-1), scene[:, 2].roll(2, dims=-1)], dim=1)
    assert texture.fringe_ratio(real, texture.color_shares(fringed)) > 3


def test_flat_images_and_plain_colors_have_no_fringes():
    for color in ([0.5, 0.5, 0.5], [0.9, 0.1, 0.1]):
        flat = texture.color_shares(torch.tensor(color).view(3, 1, 1).expand(2, 3, 8, 8))
        assert flat.abs().max() < 1e-4
        assert texture.fringe_ratio(flat, flat).item() == pytest.approx(1)


def test_fringes_everywhere_count_and_a_few_colorful_places_do_not():
    gray = torch.rand(8, 1, 33, 33, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    tint = torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1)
    checks = (torch.arange(33) + torch.arange(33)[:, None]) % 2 - 0.5
    real = texture.color_shares(gray + 0.1 * tint * checks)
    few = gray + 0.1 * tint * checks
    few[..., :16, :16] += 0.9 * tint * checks[:16, :16]  # four of sixteen places
    assert texture.fringe_ratio(real, texture.color_shares(few)).item() == pytest.approx(1, abs=0.1)
    assert texture.fringe_ratio(real, texture.color_shares(gray + 0.2 * tint * checks)).item() > 1.8
