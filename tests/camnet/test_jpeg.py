"""A JPEG says of an image what libjpeg says, and a restoration is brought to agree with it."""

import io
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from camnet.degraded import Degraded
from camnet.jpeg import (
    CENTER,
    compress,
    dct,
    inverse_dct,
    quantize,
    rgb_to_ycbcr,
    tables,
    to_blocks,
    to_bytes,
    to_image,
    ycbcr_to_rgb,
)

QUALITIES = (1, 5, 10, 50, 95)


def images(n, seed=0, height=32, width=32):
    """Smooth color with some grain, in 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic")
    return to_bytes(smooth + 0.05 * torch.randn(smooth.shape, generator=generator)) / 255


def at(x, quality):
    return compress(x, torch.full((len(x),), float(quality)))


def noise(x, seed=5):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 0.5


def as_pillow_does(image, quality):
    """One image through libjpeg: bytes decoded, and the luma and chroma tables of the file."""
    file = io.BytesIO()
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality, subsampling=0)
    with Image.open(file) as opened:
        decoded = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).float()
        return decoded, [torch.tensor(opened.quantization[i]).view(8, 8).float() for i in (0, 1, 1)]


@pytest.mark.parametrize("quality", [*range(1, 101, 7), 49, 51, 100])
def test_the_tables_are_those_of_libjpeg(quality):
    _, expected = as_pillow_does(images(1)[0], quality)
    assert torch.equal(tables(torch.tensor([float(quality)]))[0], torch.stack(expected))


@pytest.mark.parametrize("quality", QUALITIES)
def test_the_decoded_image_is_that_of_libjpeg(quality):
    """Where a coefficient lies near the end of its bin libjpeg, which rounds YCbCr to integers, may take the next."""
    x = images(24)
    expected = torch.stack([as_pillow_does(image, quality)[0] for image in x])
    apart = (at(x, quality).kept * 255 - expected).abs()
    assert apart.mean() < 2
    assert (apart > 8).float().mean() < 0.05
    assert apart.median() <= 1.5


@pytest.mark.parametrize("quality", QUALITIES)
def test_with_libjpegs_rounding_of_colors_little_difference_is_left(quality):
    x = images(24)
    expected = torch.stack([as_pillow_does(image, quality)[0] for image in x])
    shift = torch.tensor([float(CENTER), 0, 0]).view(3, 1, 1)
    steps = tables(torch.full((len(x),), float(quality)))
    k = quantize(dct(to_blocks(rgb_to_ycbcr(to_bytes(x)).round() - shift)), steps)
    ycbcr = to_image(inverse_dct(k * steps[:, :, None, None])).round() + shift
    ycbcr = torch.cat([ycbcr[:, :1].clamp(0, 255), ycbcr[:, 1:].clamp(-128, 127)], dim=1)
    apart = (ycbcr_to_rgb(ycbcr).round().clamp(0, 255) - expected).abs()
    # The rest is libjpeg's integer DCT, whose rounding moves coefficients between the narrow bins of high qualities.
    assert apart.mean() < 0.6 * (at(x, quality).kept * 255 - expected).abs().mean()
    assert apart.median() <= 1
    assert (apart <= 2).float().mean() > 0.9


def test_the_steps_are_undone_by_their_inverses():
    x = images(2, height=16, width=24) * 255
    assert torch.equal(to_image(to_blocks(x)), x)
    assert torch.allclose(ycbcr_to_rgb(rgb_to_ycbcr(x)), x, rtol=0, atol=1e-3)
    blocks = to_blocks(x)
    assert torch.allclose(inverse_dct(dct(blocks)), blocks, rtol=0, atol=1e-3)
    assert torch.allclose(dct(blocks).square().sum(), blocks.square().sum(), rtol=1e-5)


def test_rows_of_coefficients_are_vertical_frequencies():
    wave = torch.cos((2 * torch.arange(8.0) + 1) * 3 * torch.pi / 16).view(8, 1).expand(8, 8)
    c = dct(wave)
    assert c.abs().flatten().argmax() == 3 * 8
    assert torch.isclose(c.square().sum(), c[3, 0].square(), rtol=1e-5)


def test_ycbcr_is_that_of_jfif():
    rgb = torch.tensor([[255.0, 255, 255], [255, 0, 0], [0, 0, 255]]).unsqueeze(-1)
    expected = torch.tensor([[255.0, 0, 0], [76.245, -43.0279, 127.5], [29.07, 127.5, -20.7347]]).unsqueeze(-1)
    assert torch.allclose(rgb_to_ycbcr(rgb), expected, rtol=0, atol=1e-3)


def test_more_quality_is_less_error():
    x = images(16)
    errors = [(at(x, quality).kept - x).square().mean() for quality in (1, 3, 10, 30, 60, 90, 100)]
    assert all(worse > better for worse, better in itertools.pairwise(errors))


def test_quality_is_each_images_own():
    x, quality = images(5), torch.tensor([1.0, 5, 10, 50, 95])
    together = compress(x, quality)
    for i, q in enumerate((1, 5, 10, 50, 95)):
        alone = at(x[i : i + 1], q)
        assert torch.equal(together.steps[i : i + 1], alone.steps)
        # A tie may fall either way, as batches are multiplied in another order.
        assert (together.coefficients[i : i + 1] != alone.coefficients).float().mean() < 1e-3
    assert torch.allclose(together.planes().flatten(), quality / 100)


def test_quality_out_of_range_is_the_nearest_in_range():
    x = images(3)
    assert torch.equal(
        compress(x, torch.tensor([-3.0, 0.0, 140.0])).kept, compress(x, torch.tensor([1.0, 1.0, 100.0])).kept
    )


@pytest.mark.parametrize("quality", QUALITIES)
def test_the_original_is_consistent_and_comes_back(quality):
    x = images(16)
    compressed = at(x, quality)
    assert compressed.residual(x).max() <= 1e-5
    assert torch.allclose(compressed.make_consistent(x), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("start", ["noise", "near", "gray", "kept"])
@pytest.mark.parametrize("quality", QUALITIES)
def test_a_restoration_becomes_consistent_and_stays_in_range(quality, start):
    x = images(16)
    compressed = at(x, quality)
    restored = {
        "noise": noise(x),
        "near": compressed.kept + 0.1 * noise(x),
        "gray": torch.full_like(x, 0.4),
        "kept": compressed.kept,
    }[start]
    result = compressed.make_consistent(restored)
    assert result.min() >= 0
    assert result.max() <= 1
    assert compressed.residual(result).max() <= 1e-3
    assert compressed.residual(result).median() <= 1e-6
    if start == "noise":
        assert compressed.residual(restored).min() > 0.1
        assert (result - compressed.kept).abs().mean() > 0.5 / 255  # it has its say inside the bins


@pytest.mark.parametrize("quality", QUALITIES)
def test_flat_and_saturated_images_become_consistent(quality):
    colors = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]).float()
    x = colors[:, :, None, None].expand(-1, -1, 16, 16).contiguous()
    compressed = at(x, quality)
    assert (
        compressed.residual(compressed.make_consistent(noise(x))).max() <= 2e-2
    )  # white: the end of its bin at quality 50


def test_a_consistent_restoration_encodes_to_the_same_file():
    x = images(8)
    compressed = at(x, 10)
    result = compressed.make_consistent(compressed.kept + 0.1 * noise(x))
    again = quantize(dct(to_blocks(rgb_to_ycbcr(result * 255 - CENTER))), compressed.steps)
    assert (again != compressed.coefficients).float().mean() < 1e-2  # those on the very end of their bins
    assert (result - compressed.kept).abs().max() > 0.02


def test_the_residual_is_the_distance_from_the_bins():
    x = torch.full((1, 3, 8, 8), 128 / 255)
    compressed = at(x, 50)  # step of the mean of Y: 16, so Y may be off by 8 / 8 = 1
    assert compressed.residual(x + 0.9 / 255).item() == 0
    assert compressed.residual(x + 3 / 255).item() == pytest.approx((8 * 3 - 8) / 255, abs=1e-5)


def test_the_gradient_flows_and_is_finite():
    x = images(4)
    compressed = at(x, 10)
    restored = (compressed.kept + 0.05 * noise(x)).requires_grad_()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    (compressed.make_consistent(restored) * weights).sum().backward()
    assert restored.grad.isfinite().all()
    assert (restored.grad.abs().flatten(1).amax(dim=1) > 0.1).all()


def test_the_gradient_is_that_of_finite_differences():
    x = images(1, height=8, width=8)
    compressed = at(x, 20)
    restored = (compressed.kept + 0.05 * noise(x)).requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    (compressed.make_consistent(restored) * weights).sum().backward()
    step = 1e-3
    with torch.no_grad():
        ends = [(compressed.make_consistent(restored + s * step * direction) * weights).sum() for s in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    assert (restored.grad * direction).sum() == pytest.approx(expected.item(), rel=0.1)


def test_images_do_not_touch_one_another():
    x = images(6)
    other = x.clone()
    other[1:] = images(5, seed=9)
    one, two = at(x, 10), at(other, 10)
    assert torch.equal(one.kept[0], two.kept[0])
    a, b = noise(x), noise(x)
    b[1:] = 0.3
    assert torch.equal(one.make_consistent(a)[0], two.make_consistent(b)[0])
    assert not torch.equal(one.make_consistent(a)[1], two.make_consistent(b)[1])


def test_blocks_do_not_touch_one_another():
    x = images(1)
    changed = x.clone()
    changed[..., :8, :8] = 1 - changed[..., :8, :8]
    differs = (at(x, 10).kept != at(changed, 10).kept).any(dim=1)
    assert differs[:, :8, :8].any()
    differs[:, :8, :8] = False
    assert not differs.any()


def test_autocast_does_not_coarsen_it():
    x = images(2)
    plain = at(x, 50)
    with torch.autocast("cpu", torch.bfloat16):
        inside = at(x, 50)
        assert torch.equal(inside.kept, plain.kept)
        assert torch.equal(inside.make_consistent(noise(x)), plain.make_consistent(noise(x)))


@pytest.mark.parametrize(("height", "width"), [(12, 16), (16, 20), (7, 7)])
def test_sizes_that_do_not_divide_into_blocks_are_refused(height, width):
    with pytest.raises(ValueError, match=f"{height} x {width} .* multiples of 8"):
        at(torch.rand(1, 3, height, width), 50)


def test_images_need_not_be_square():
    x = images(2, height=16, width=40)
    compressed = at(x, 100)
    assert compressed.coefficients.shape == (2, 3, 2, 5, 8, 8)
    assert (compressed.kept - x).abs().max() < 6 / 255


def test_it_is_a_degraded_image():
    compressed = at(images(3), 30)
    assert isinstance(compressed, Degraded)
    assert compressed.task == "decompression"
    assert compressed.hidden.shape == (3, 1, 32, 32)
    assert not compressed.hidden.any()
    assert compressed.touched().all()
    assert compressed.touched().shape == (3, 1, 32, 32)
    assert compressed.planes().shape == (3, 1, 1, 1)
    assert compressed.kept.min() >= 0
    assert compressed.kept.max() <= 1
    assert torch.equal(compressed.coefficients, compressed.coefficients.round())


def test_rows_are_selected_together():
    x, quality = images(5), torch.tensor([1.0, 5, 10, 50, 95])
    compressed, rows = compress(x, quality), torch.tensor([3, 1])
    chosen = compressed.select(rows)
    assert len(chosen) == 2
    for field in ("kept", "hidden", "coefficients", "steps", "quality"):
        assert torch.equal(getattr(chosen, field), getattr(compressed, field)[rows])
    assert chosen.residual(x[rows]).max() <= 1e-5
