"""One file becomes one square of RGB bytes, whatever its mode, size and orientation."""

import numpy as np
import pytest
from PIL import Image

from env.decoding import decode


def picture(path, color=(0, 0, 0), size=(16, 16), mode="RGB"):
    Image.new(mode, size, color).save(path)
    return path


@pytest.mark.parametrize(
    ("mode", "color", "rgb"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("LA", (9, 0), (9, 9, 9)),
        ("I;16", 257 * 100 + 129, (101, 101, 101)),
        ("I;16", 65535, (255, 255, 255)),
        ("I", 257 * 3, (3, 3, 3)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, color, rgb):
    pixels, small = decode(picture(tmp_path / "x.tif", color, mode=mode), 16)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.uint8
    assert not small
    assert (pixels == np.reshape(rgb, (3, 1, 1))).all()


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    image = Image.new("RGB", (16, 16), (250, 0, 0)).quantize()
    image.save(tmp_path / "p.png", transparency=bytes([7, 9]))
    pixels, _ = decode(tmp_path / "p.png", 16)
    assert pixels[:, 5, 5].tolist() == [250, 0, 0]


@pytest.mark.parametrize(("mode", "color"), [("F", 0.5), ("I", 70000), ("I", -1)])
def test_pixels_of_unknown_range_are_not_guessed_at(tmp_path, mode, color):
    with pytest.raises(ValueError, match="unknown range"):
        decode(picture(tmp_path / "x.tif", color, mode=mode), 16)


def test_exif_says_which_side_is_up(tmp_path):
    image = Image.new("RGB", (16, 16))
    image.paste((255, 255, 255), (0, 0, 16, 4))  # white on top as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: the top becomes the right
    image.save(tmp_path / "x.png", exif=exif)
    pixels, _ = decode(tmp_path / "x.png", 16)
    assert (pixels[0, :, 12:] == 255).all()
    assert (pixels[0, :, :12] == 0).all()


@pytest.mark.parametrize("shape", [(40, 16), (16, 40), (80, 32), (32, 80), (33, 20)])
def test_the_central_square_is_kept(tmp_path, shape):
    image = Image.new("RGB", shape, (0, 0, 0))
    short = min(shape)
    left, top = (shape[0] - short) // 2, (shape[1] - short) // 2
    image.paste((255, 255, 255), (left, top, left + short, top + short))
    image.save(tmp_path / "x.png")
    pixels, small = decode(tmp_path / "x.png", 16)
    assert pixels.shape == (3, 16, 16)
    assert (pixels == 255).all()
    assert not small


def test_shrinking_is_antialiased_and_equal_sizes_stay_bit_for_bit(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    assert np.array_equal(decode(tmp_path / "noise.png", 64)[0], pixels.transpose(2, 0, 1))
    assert decode(tmp_path / "noise.png", 16)[0].std() < 0.4 * pixels.std()  # picking pixels would keep all of it


def test_a_large_jpeg_is_decoded_at_a_fraction_to_nearly_the_same(tmp_path):
    cells = np.random.default_rng(0).integers(60, 200, (64, 64), dtype=np.uint8)
    image = Image.fromarray(cells).resize((512, 512), Image.Resampling.NEAREST).convert("RGB")
    image.save(tmp_path / "x.jpg", quality=95)
    image.save(tmp_path / "x.png")
    jpeg, png = (decode(tmp_path / name, 128)[0].astype(int) for name in ("x.jpg", "x.png"))
    assert np.abs(jpeg - png).mean() < 3  # decoded at 64 pixels it would be far blurrier
