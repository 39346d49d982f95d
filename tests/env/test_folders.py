"""Image folders: which files are read, how they are split, and what is said of the rest."""

import io
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.data import DataConfig
from configs.errors import UsageError
from env import folders
from env.folders import HELD_OUT, UNSPLIT, found, part_of
from env.images import load

CPU = torch.device("cpu")


def picture(path, color=(0, 0, 0), size=(16, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


def fill(root, classes=("ant", "bee"), n=40):
    """A folder for each class; the color says class and number."""
    for label, name in enumerate(classes):
        for number in range(n):
            picture(root / name / f"{number:03}.png", (10 * label, number, 200))
    return root


def config(root, **settings):
    return DataConfig(name="imagefolder", root=root, **{"size": 16, **settings})


def complaints(capsys):
    """What was said on stderr besides how many images there are."""
    return [line for line in capsys.readouterr().err.splitlines() if " to train on, " not in line]


def colors(splits):
    """(class by color, number, label) of each image, by part."""
    return [
        [(*p[:2].tolist(), int(label)) for p, label in zip(part.pixels[:, :, 3, 3], part.labels, strict=True)]
        for part in (splits.train, splits.validation, splits.test)
    ]


def test_an_unsplit_folder_is_split_by_the_paths_of_its_files(tmp_path):
    splits = load(config(fill(tmp_path)), CPU)
    assert splits.classes == ("ant", "bee")
    everything = [image for images in colors(splits) for image in images]
    assert sorted(everything) == [(10 * label, number, label) for label in range(2) for number in range(40)]
    for position, images in enumerate(colors(splits)):
        assert images == sorted(images)  # by class, then path
        for _, number, label in images:
            assert part_of(Path(splits.classes[label], f"{number:03}.png"), 0, UNSPLIT) == position


def test_the_digest_is_of_the_files_and_not_of_what_they_were_decoded_to(tmp_path):
    root = fill(tmp_path / "here")
    digest = load(config(root), CPU).digest
    assert load(config(root, size=32), CPU).digest == digest
    moved = root.rename(tmp_path / "there")
    assert load(config(moved), CPU).digest == digest
    image = moved / "bee" / "000.png"
    content = image.read_bytes()
    image.write_bytes(content + b"\0")
    assert load(config(moved), CPU).digest != digest
    image.write_bytes(content)
    image.rename(image.with_name("0000.png"))
    assert load(config(moved), CPU).digest != digest


def test_the_split_does_not_depend_on_other_files_or_on_where_the_folder_lies(tmp_path):
    few, more = (
        colors(load(config(fill(tmp_path / "a", n=40)), CPU)),
        colors(load(config(fill(tmp_path / "b", n=60)), CPU)),
    )
    for some, all_of_them in zip(few, more, strict=True):
        assert [image for image in all_of_them if image[1] < 40] == some
    assert colors(load(config(tmp_path / "a", seed=1), CPU)) != few


def test_the_shares_are_as_said():
    paths = [Path("class", f"{i}.jpg") for i in range(4000)]
    shares = [
        [part_of(path, 0, ends) for path in paths].count(place) / 4000
        for ends in (UNSPLIT, HELD_OUT)
        for place in range(3)
    ]
    assert shares == pytest.approx([0.8, 0.05, 0.15, 0.9, 0.1, 0], abs=0.02)


def test_a_files_part_is_the_same_on_every_machine():
    assert [part_of(Path("ant", f"{i}.png"), 0, UNSPLIT) for i in range(20)] == [
        0,
        0,
        0,
        0,
        0,
        0,
        2,
        2,
        0,
        0,
        0,
        2,
        0,
        0,
        0,
        0,
        0,
        0,
        2,
        0,
    ]
    composed, decomposed = Path("caf\u00e9.png"), Path("cafe\u0301.png")
    ends = tuple(np.linspace(0.001, 1, 1000))
    assert part_of(composed, 0, ends) == part_of(decomposed, 0, ends)
    assert part_of(Path(os.fsdecode(b"\xff.png")), 0, ends) < 1000  # no valid UTF-8


@pytest.mark.parametrize("held", ["test", "val"])
def test_a_folder_split_into_train_and_test_keeps_its_test_images(tmp_path, held):
    fill(tmp_path / "train", n=30)
    fill(tmp_path / held, n=5)
    splits = load(config(tmp_path), CPU)
    train, validation, test = colors(splits)
    assert sorted(test) == [(10 * label, number, label) for label in range(2) for number in range(5)]
    assert sorted(train + validation) == [(10 * label, number, label) for label in range(2) for number in range(30)]
    assert 0 < len(validation) < 15
    assert all(
        part_of(Path(splits.classes[label], f"{number:03}.png"), 0, HELD_OUT) == 1 for _, number, label in validation
    )


def test_all_three_splits_are_taken_as_they_are(tmp_path):
    for name, n in (("train", 9), ("val", 4), ("test", 2)):
        fill(tmp_path / name, n=n)
    assert [len(images) for images in colors(load(config(tmp_path), CPU))] == [18, 8, 4]


def test_classes_are_chosen_and_numbered_anew(tmp_path):
    fill(tmp_path, ("ant", "bee", "cow"))
    (tmp_path / "empty").mkdir()  # not asked for, so it does not matter
    splits = load(config(tmp_path, classes=("cow", "0")), CPU)
    assert splits.classes == ("cow", "ant")
    assert {(red, label) for images in colors(splits) for red, _, label in images} == {(20, 0), (0, 1)}
    with pytest.raises(UsageError, match="nearest is cow"):
        load(config(tmp_path, classes=("crow",)), CPU)


def test_classes_that_are_not_asked_for_may_be_in_one_split_alone(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", ("ant", "bee", "cow"))
    splits = load(config(tmp_path, classes=("bee", "ant")), CPU)
    assert splits.classes == ("bee", "ant")
    assert len(splits.test) == 80
    (tmp_path / "test" / "bee").rename(tmp_path / "test" / "Bee")  # or none of them would be tested, without a word
    with pytest.raises(UsageError, match="test holds the class Bee, which"):
        load(config(tmp_path, classes=("bee", "ant")), CPU)


def test_only_image_files_count_however_deep(tmp_path):
    picture(tmp_path / "ant" / "b" / "deep.JPEG")
    picture(tmp_path / "ant" / "a.png")
    picture(tmp_path / "linked" / "far.bmp")
    (tmp_path / "ant" / "c").symlink_to(tmp_path / "linked")
    for name in ("notes.txt", "image.gif", "._a.png", ".cache/thumb.png"):
        path = tmp_path / "ant" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nothing")
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.png").write_bytes(b"no class")
    names, files = found(config(tmp_path))
    assert names == ("ant", "linked")
    listed = sorted(file.path.relative_to(tmp_path).as_posix() for file in files)
    assert listed == ["ant/a.png", "ant/b/deep.JPEG", "ant/c/far.bmp", "linked/far.bmp"]


@pytest.mark.parametrize(("link", "target"), [("self", "."), ("z/up", ".."), ("again", "z"), ("b/again", "../z")])
def test_a_link_to_a_folder_of_the_same_class_multiplies_no_image(tmp_path, link, target):
    for path in ("a.png", "b/deep.png", "z/deep.png"):
        picture(tmp_path / "ant" / path)
    before = found(config(tmp_path))
    assert len(before[1]) == 3
    (tmp_path / "ant" / link).symlink_to(target)
    assert found(config(tmp_path)) == before


def test_what_was_read_and_what_was_not_is_told(tmp_path, capsys):
    fill(tmp_path)
    for name in ("ant/a.HEIC", "ant/deep/b.gif", "bee/c.heic", "bee/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    splits = load(config(tmp_path), CPU)
    n = [len(part) for part in (splits.train, splits.validation, splits.test)]
    told = f"{tmp_path}: 80 images of 2 classes: {n[0]} to train on, {n[1]} for validation, {n[2]} for test"
    assert f"{told}; 3 pictures passed over (.gif, .heic: convert them)\n" in capsys.readouterr().err


def test_small_images_are_upsampled_and_counted(tmp_path, capsys):
    fill(tmp_path)
    picture(tmp_path / "ant" / "small.png", size=(16, 40))
    picture(tmp_path / "ant" / "large.png", size=(32, 24))
    splits = load(config(tmp_path, size=24), CPU)
    assert splits.train.pixels.shape[1:] == (3, 24, 24)
    assert "81 of 82 images" in capsys.readouterr().err
    load(config(tmp_path, size=16), CPU)
    assert not complaints(capsys)


def truncated(path):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    path.write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])


def test_damaged_images_are_left_out_and_named(tmp_path, capsys):
    whole = colors(load(config(fill(tmp_path)), CPU))
    truncated(tmp_path / "ant" / "0_cut.jpg")
    for number in range(6):
        (tmp_path / "bee" / f"bad{number}.png").write_bytes(b"" if number else b"\x89PNG\r\n\x1a\n" + b"x" * 99)
    assert not complaints(capsys)
    assert colors(load(config(tmp_path), CPU)) == whole
    (line,) = complaints(capsys)
    assert line.startswith(f"skipped 7 damaged images of {tmp_path}: ")
    assert "bee/bad" in line
    assert line.endswith(" and 2 more")


def test_a_folder_that_is_mostly_damaged_is_refused(tmp_path):
    fill(tmp_path, n=30)
    for number in range(60):
        (tmp_path / "ant" / f"bad{number}.png").write_bytes(b"")
    load(config(tmp_path), CPU)  # half is not most
    (tmp_path / "bee" / "bad.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"61 of 121 images are damaged: .*bad\d+.png.* and 56 more \(cannot identify"):
        load(config(tmp_path), CPU)


def test_odd_metadata_does_not_condemn_an_image(tmp_path, capsys):
    fill(tmp_path)
    exif = b"Exif\x00\x00II*\x00" + struct.pack("<IHHHII", 8, 1, 0x0132, 2, 999, 5000)  # text beyond the end
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "ant" / "odd.jpg", exif=exif)
    splits = load(config(tmp_path), CPU)
    assert sum(map(len, colors(splits))) == 81
    assert not complaints(capsys)


def test_maps_of_classes_are_never_taken_for_images(tmp_path):
    for name in ("a.JPEG", "b.png", "deep/a.png", "lone_mask.png", "deep/b_mask.png", "a_mask.jpg", "c.JPG", "D.png"):
        picture(tmp_path / "ant" / name)
    for name in ("a_mask.png", "b_mask.png", "deep/a_mask.png", "c_mask.PNG", "D_MASK.png"):
        picture(tmp_path / "ant" / name, 3, mode="L")
    listed = sorted(file.path.relative_to(tmp_path / "ant").as_posix() for file in found(config(tmp_path))[1])
    assert listed == [
        "D.png",
        "a.JPEG",
        "a_mask.jpg",
        "b.png",
        "c.JPG",
        "deep/a.png",
        "deep/b_mask.png",
        "lone_mask.png",
    ]


def add_maps(root):
    """The map of an image says its class, number and, in the first row, void."""
    for path in sorted(root.glob("*/*.png")):
        red, number, _ = Image.open(path).getpixel((0, 0))
        pixels = np.full((16, 16), number, dtype=np.uint8)
        pixels[0], pixels[1] = 255, red
        Image.fromarray(pixels).save(path.with_name(f"{path.stem}_mask.png"))


def test_every_part_has_its_maps_where_they_are_asked_for(tmp_path, capsys):
    plain = load(config(fill(tmp_path)), CPU)
    add_maps(tmp_path)
    splits = load(config(tmp_path), CPU, map_classes=40)
    assert colors(splits) == colors(plain)
    for images in (splits.train, splits.validation, splits.test):
        assert images.layouts.shape == (len(images), 16, 16)
        assert torch.equal(images.layouts[:, 5, 5], images.pixels[:, 1, 5, 5])
        assert torch.equal(images.layouts[:, 1, 5], images.pixels[:, 0, 5, 5])
        assert (images.layouts[:, 0] == 255).all()
    ignored = load(config(tmp_path), CPU)
    assert colors(ignored) == colors(plain)
    assert ignored.train.layouts is plain.train.layouts is None
    truncated(tmp_path / "bee" / "002.png")  # its map goes with it
    fewer = load(config(tmp_path), CPU, map_classes=40)
    assert "skipped 1 damaged" in capsys.readouterr().err
    assert sum(map(len, (fewer.train, fewer.validation, fewer.test))) == 79
    assert torch.equal(fewer.train.layouts[:, 5, 5], fewer.train.pixels[:, 1, 5, 5])


def test_maps_that_are_read_are_in_the_digest(tmp_path):
    add_maps(fill(tmp_path))
    mapped, ignored = load(config(tmp_path), CPU, map_classes=40).digest, load(config(tmp_path), CPU).digest
    assert mapped != ignored
    one = tmp_path / "bee" / "000_mask.png"
    one.write_bytes(one.read_bytes() + b"\0")
    assert load(config(tmp_path), CPU, map_classes=40).digest != mapped
    assert load(config(tmp_path), CPU).digest == ignored


def test_images_without_maps_are_counted_before_any_is_read(tmp_path, monkeypatch):
    add_maps(fill(tmp_path))
    for name in ("ant/007_mask.png", "bee/000_mask.png"):
        (tmp_path / name).unlink()
    monkeypatch.setattr(folders, "decode", lambda *_: pytest.fail("reads"))
    message = (
        rf"--data.root {tmp_path}: 2 of 80 images have no map .*first is .*, beside which there is no 0.*_mask.png "
        r"\(the ending _mask.png in lower case\)"
    )
    with pytest.raises(UsageError, match=message):
        load(config(tmp_path), CPU, map_classes=40)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root: root.rmdir(), "no such folder"),
        (lambda root: (root.rmdir(), root.write_text("file")), "no such folder"),
        (lambda root: None, "holds 0 images and no folders"),
        (lambda root: picture(root / "a.png"), "holds 1 images and no folders.* each class"),
        (lambda root: (fill(root), (root / "cow").mkdir()), "cow holds no image .*--data.classes"),
        (lambda root: fill(root / "train"), "no test/ beside train/. Give .*train"),
        (lambda root: (fill(root / "train"), fill(root / "test", ("ant", "cow"))), "test holds the class cow, which"),
        (lambda root: (fill(root / "train"), (root / "test").mkdir()), "test holds no folders.* as in .*train"),
        (
            lambda root: (fill(root / "train"), fill(root / "valid")),
            "train and valid would be classes.* train and test",
        ),
        (lambda root: (fill(root / "Train"), fill(root / "Test")), "Test and Train would be classes"),
        (lambda root: fill(root, n=1), "none of the 2 images fell to .*more images"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named_with_a_remedy(tmp_path, build, message):
    root = tmp_path / "set"
    root.mkdir()
    build(root)
    with pytest.raises(UsageError, match=f"--data.root {root}: .*{message}") as caught:
        load(config(root), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    tmp_path.chmod(0o300)
    with pytest.raises(UsageError, match="may not be read"):
        load(config(tmp_path), CPU)


def test_one_class_is_enough_and_noted(tmp_path, capsys):
    splits = load(config(fill(tmp_path, ("all",), 60)), CPU)
    assert splits.classes == ("all",)
    assert "all is the only class" in capsys.readouterr().err


def test_the_order_does_not_depend_on_the_threads(tmp_path, monkeypatch):
    fill(tmp_path)
    expected = colors(load(config(tmp_path), CPU))
    monkeypatch.setattr(folders, "CHUNK", 3)
    never, prompt = threading.Event(), folders.decode

    def late(path, size):
        """The first file is the last to be done."""
        if path.name == "000.png":
            never.wait(0.2)
        return prompt(path, size)

    monkeypatch.setattr(folders, "decode", late)
    assert colors(load(config(tmp_path), CPU)) == expected


def test_many_files_are_read_under_a_progress_bar(tmp_path, monkeypatch, capsys):
    fill(tmp_path)
    load(config(tmp_path), CPU)
    assert not complaints(capsys)
    monkeypatch.setattr(folders, "PROGRESS", 79)
    load(config(tmp_path), CPU)
    assert "/80 [" in capsys.readouterr().err
