"""Maps of classes: cropped like their images, never mixed, and refused where they do not fit."""

import numpy as np
import pytest
import torch
from PIL import Image

from configs.errors import UsageError
from env.maps import decode_map, map_of, read_maps


def pair(folder, values, name="a.png", image=None, mode="L"):
    """An image and its map."""
    found = Image.fromarray(np.asarray(values, dtype=np.uint8))
    if mode == "P":
        found.putpalette(bytes(range(255, -1, -1)) * 3)  # a color of another number for each class
    (image or Image.new("RGB", found.size)).save(folder / name)
    found.save(map_of(folder / name))
    return folder / name


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("name", ["a.png", "b.c.JPEG"])
def test_a_map_is_read_as_its_values(tmp_path, mode, name):
    values = np.random.default_rng(0).integers(0, 256, (16, 16))
    path = pair(tmp_path, values, name, mode=mode)
    with Image.open(map_of(path)) as stored:
        assert stored.mode == mode
    found = decode_map(path, 16)
    assert found.dtype == np.uint8
    assert np.array_equal(found, values)


@pytest.mark.parametrize(("height", "width", "size"), [(48, 80, 16), (40, 16, 16), (17, 33, 24)])
def test_a_map_is_cropped_like_its_image_and_never_mixed(tmp_path, height, width, size):
    """Every class of the pixel is one that lies there, and where a block of one class is large, exactly that."""
    rows, columns = np.mgrid[:height, :width]
    left, top, short = max(0, (width - height) // 2), max(0, (height - width) // 2), min(height, width)
    values = np.where((rows - top) * 2 < short, 1, 3) + 4 * ((columns - left) * 2 >= short)
    values[(columns < left) | (columns >= left + short) | (rows < top) | (rows >= top + short)] = 200  # cut off
    found = decode_map(pair(tmp_path, values), size)
    assert found.shape == (size, size)
    assert set(found.flatten().tolist()) == {1, 3, 5, 7}
    assert (found[0, 0], found[0, -1], found[-1, 0], found[-1, -1]) == (1, 5, 3, 7)


def test_a_map_is_as_upright_as_its_image(tmp_path):
    """The image lies on its side as stored; its map does not."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying, values = Image.new("RGB", (20, 16)), np.arange(20 * 16).reshape(20, 16) % 100
    lying.save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "a_mask.png")
    assert np.array_equal(decode_map(tmp_path / "a.jpg", 16), values[2:18])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: Image.new("RGB", (16, 16)).save(path), "its mode is RGB, not one channel"),
        (lambda path: Image.new("1", (16, 16)).save(path), "its mode is 1, not"),
        (lambda path: Image.new("I;16", (16, 16)).save(path), "not one channel of 8 bits"),
        (lambda path: Image.new("L", (16, 8)).save(path), r"its pixels are \(16, 8\), those of a.png \(16, 16\)"),
        (lambda path: path.write_bytes(b"nothing"), "cannot identify"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "truncated|EOF|incomplete"),
    ],
)
def test_a_map_that_does_not_fit_is_named(tmp_path, spoil, reason):
    path = pair(tmp_path, np.random.default_rng(0).integers(0, 9, (16, 16)))
    spoil(map_of(path))
    with pytest.raises(UsageError, match=rf"{map_of(path)} cannot be used \(.*({reason}).*: mend it, or"):
        read_maps([path], 16, 9)


def test_more_classes_than_planes_are_named_with_how_many_are_needed(tmp_path):
    paths = [pair(tmp_path, np.full((16, 16), value), f"{value}.png") for value in (3, 9, 255, 20)]
    assert torch.equal(read_maps(paths, 16, 21)[:, 4, 4], torch.tensor([3, 9, 255, 20], dtype=torch.uint8))
    message = r"layout-classes 9: .*9_mask.png holds 9, but classes are 0 to 8 .* need --generator.layout-classes 21$"
    with pytest.raises(UsageError, match=message):
        read_maps(paths, 16, 9)
