"""Images, split and batches are functions of their seeds."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from configs.data import DataConfig
from configs.errors import UsageError
from configs.reading import read, write
from configs.run import RunConfig
from env.images import MIN_CONTRAST, ImageSet, colored_digits, load, with_unlabeled

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits():
    return load(DataConfig(), CPU)


def numbered(n):
    """A set whose images say which they are."""
    pixels = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, 2, 2)
    return ImageSet(pixels, torch.zeros(n, dtype=torch.long))


def numbers(batch):
    return (batch[:, 0, 0, 0] * 255).round().long().tolist()


def test_the_same_seed_draws_the_same_pixels():
    torch.manual_seed(0)
    first, labels = colored_digits(16, 3)
    torch.manual_seed(1)
    again, same_labels = colored_digits(16, 3)
    other, _ = colored_digits(16, 4)
    assert torch.equal(first, again)
    assert torch.equal(labels, same_labels)
    assert not torch.equal(first, other)
    assert first.shape == (1797, 3, 16, 16)


def test_no_digit_is_told_by_color_alone():
    pixels, labels = colored_digits(16, 0)
    x = pixels.float().div(255).mean(dim=1).flatten(1)
    assert (x.amax(dim=1) - x.amin(dim=1)).min() > 0.8 * MIN_CONTRAST  # legible in gray
    colors = pixels.float().div(255).mean(dim=(2, 3))
    assert (torch.stack([colors[labels == c].mean(dim=0) for c in range(10)]) - 0.5).abs().max() < 0.08


@pytest.mark.parametrize("size", [16, 32])
def test_the_splits_are_disjoint_and_cover_all(size):
    splits = load(DataConfig(size=size), CPU)
    pixels, labels = colored_digits(size, 0)
    everything = sorted((row.numpy().tobytes(), int(label)) for row, label in zip(pixels, labels, strict=True))
    assert len({pixel for pixel, _ in everything}) == len(pixels)  # so that an image can be told by its pixels
    found = [
        (row.numpy().tobytes(), int(label))
        for part in (splits.train, splits.validation, splits.test)
        for row, label in zip(part.pixels, part.labels, strict=True)
    ]
    assert sorted(found) == everything


def test_the_splits_depend_on_the_data_seed_alone(splits):
    torch.manual_seed(7)
    again, other = load(DataConfig(), CPU), load(DataConfig(seed=1), CPU)
    assert torch.equal(again.test.pixels, splits.test.pixels)
    assert torch.equal(again.train.labels, splits.train.labels)
    assert not torch.equal(other.test.labels, splits.test.labels)


def test_images_are_floats_in_the_unit_interval(splits):
    x = splits.train.images(torch.tensor([3, 1]))
    assert x.dtype == torch.float32
    assert (x * 255 - splits.train.pixels[[3, 1]].float()).abs().max() < 1e-4
    assert len(splits.validation.images()) == len(splits.validation)


@pytest.mark.parametrize(("n", "size"), [(20, 5), (23, 5), (7, 7)])
def test_the_batches_of_an_epoch_are_a_permutation(n, size):
    images, a_whole = numbered(n), n // size
    epochs = [
        [
            number
            for step in range(epoch * a_whole, (epoch + 1) * a_whole)
            for number in numbers(images.images(images.rows(0, step, size)))
        ]
        for epoch in range(3)
    ]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == a_whole * size
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])


def test_a_batch_is_a_function_of_seed_and_step():
    images = numbered(50)
    late = images.rows(3, 11, 8)
    for step in range(11):
        images.rows(3, step, 8)
    torch.manual_seed(9)
    assert torch.equal(images.rows(3, 11, 8), late)
    assert not torch.equal(images.rows(4, 11, 8), late)
    assert not torch.equal(images.rows(3, 12, 8), late)
    assert torch.equal(numbered(50).rows(3, 11, 8), late)


def test_an_epochs_order_is_drawn_once(monkeypatch):
    images, drawn, randperm = numbered(23), [], torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **where: drawn.append(n) or randperm(n, **where))
    for step in range(8):
        images.rows(0, step, 5)
    assert drawn == [23, 23]


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ValueError, match=r"batch of 9 .* 8 images"):
        numbered(8).rows(0, 0, 9)


def digest(splits):
    parts = (splits.train, splits.validation, splits.test)
    return hashlib.sha256(b"".join(x.numpy().tobytes() for p in parts for x in (p.pixels, p.labels))).hexdigest()


def test_the_digits_are_those_that_the_shipped_generator_was_trained_on(splits):
    assert digest(splits).startswith("f4c79865ffd672a2")
    assert splits.classes == tuple("0123456789")


def test_classes_are_taken_out_of_the_same_splits_and_numbered_anew(splits):
    some = load(DataConfig(classes=("7", "2")), CPU)
    assert some.classes == ("7", "2")
    for whole, part in ((splits.train, some.train), (splits.validation, some.validation), (splits.test, some.test)):
        rows = (whole.labels == 7) | (whole.labels == 2)
        assert torch.equal(part.pixels, whole.pixels[rows])
        assert torch.equal(part.labels, (whole.labels[rows] == 2).long())


def test_a_single_class_is_allowed_and_noted(capsys):
    only = load(DataConfig(classes=("3",)), CPU)
    assert set(only.train.labels.tolist()) == {0}
    assert "3 is the only class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "size", "real"),
    [("digits", 0, 16), ("digits", 32, 32), ("cifar10", 0, 32), ("stl10", 0, 96), ("imagefolder", 0, 64)],
)
def test_the_size_is_the_sets_own_unless_given(tmp_path, name, size, real):
    config = DataConfig(name=name, size=size)
    assert config.size == real
    parsed = read(RunConfig, ["--data", name, "--data.size", str(size), "--data-root", "x"], prog="p", description="")
    assert (parsed.data.size, str(parsed.data.root)) == (real, "x")
    (tmp_path / "written.yaml").write_text(write(parsed))
    assert f"size: {real}" in write(parsed)
    assert read(RunConfig, ["--config", str(tmp_path / "written.yaml")], prog="p", description="") == parsed


@pytest.mark.parametrize(("name", "size"), [("digits", 24), ("cifar10", 8), ("cifar10", 36), ("stl10", 520)])
def test_other_sizes_are_refused(name, size):
    with pytest.raises(ValueError, match=rf"--data.size must be .* got {size}"):
        DataConfig(name=name, size=size)


def test_an_image_folder_cannot_be_downloaded():
    with pytest.raises(ValueError, match=r"--data.download"):
        DataConfig(name="imagefolder", download=True)


@pytest.mark.parametrize(
    ("classes", "names", "positions"),
    [
        ((), ("cat", "dog"), (0, 1)),
        (("dog", "cat"), ("cat", "dog"), (1, 0)),
        (("1",), ("cat", "dog"), (1,)),
        (("1",), ("0", "3", "1"), (2,)),  # a name wins
    ],
)
def test_classes_are_given_by_name_or_number(classes, names, positions):
    assert DataConfig(name="imagefolder", classes=classes).chosen(names) == positions


@pytest.mark.parametrize(
    ("classes", "names", "message"),
    [
        (("dgo",), ("cat", "dog"), "dgo: .* the nearest is dog. Valid are cat, dog, or their numbers 0 to 1"),
        (("2",), ("cat", "dog"), "2: .* no such class"),
        (("0",), ("1", "2"), "0: .* Valid are 1, 2$"),  # not the first class: names are numbers here
        (("x",), tuple(f"c{i}" for i in range(100)), "x: .* c19 and 80 more, or their numbers 0 to 99"),
        (("dog", "dog"), ("cat", "dog"), "dog: .*dog is given twice"),
        (("dog", "1"), ("cat", "dog"), "1: .*dog is given twice"),
    ],
)
def test_an_unknown_or_repeated_class_is_named(classes, names, message):
    with pytest.raises(UsageError, match=f"--data.classes {message}"):
        DataConfig(name="imagefolder", classes=classes).chosen(names)


def cifar_files(root, kind, monkeypatch, labels):
    """Write a tiny CIFAR whose red is the image's number and whose first row is white; hashes are not asked for."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)

    def batch(name, numbers):
        pixels = np.zeros((len(numbers), 3, 32, 32), dtype=np.uint8)
        pixels[:, 0] = np.reshape(numbers, (-1, 1, 1))
        pixels[:, :, 0] = 255
        entry = {"data": pixels.reshape(len(numbers), -1), labels: [number % 3 for number in numbers]}
        (folder / name).write_bytes(pickle.dumps(entry))
        return [name, None]

    monkeypatch.setattr(kind, "train_list", [batch("one", list(range(60))), batch("two", list(range(60, 100)))])
    monkeypatch.setattr(kind, "test_list", [batch("last", list(range(200, 212)))])
    monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": "names", "md5": None})
    (folder / "meta").write_bytes(pickle.dumps({"names": ["cat", "dog", "owl"]}))


CIFAR = [("cifar10", datasets.CIFAR10, "labels"), ("cifar100", datasets.CIFAR100, "fine_labels")]


@pytest.mark.parametrize(("name", "kind", "labels"), CIFAR)
def test_cifar_is_tested_on_the_official_test_images(tmp_path, monkeypatch, name, kind, labels):
    cifar_files(tmp_path, kind, monkeypatch, labels)
    got = load(DataConfig(name=name, root=tmp_path), CPU)
    assert got.classes == ("cat", "dog", "owl")
    assert got.test.pixels[:, 0, -1, -1].tolist() == list(range(200, 212))
    assert got.test.labels.tolist() == [number % 3 for number in range(200, 212)]
    train, validation = (part.pixels[:, 0, -1, -1].tolist() for part in (got.train, got.validation))
    assert (len(train), len(validation)) == (90, 10)
    assert sorted(train + validation) == list(range(100))
    assert got.train.labels.tolist() == [number % 3 for number in train]
    assert (got.train.pixels[:, :, 0] == 255).all()
    assert (got.train.pixels[:, 1:, 1:] == 0).all()


def test_the_held_out_training_images_depend_on_the_data_seed_alone(tmp_path, monkeypatch):
    cifar_files(tmp_path, datasets.CIFAR10, monkeypatch, "labels")
    first = load(DataConfig(name="cifar10", root=tmp_path), CPU)
    torch.manual_seed(5)
    assert digest(load(DataConfig(name="cifar10", root=tmp_path), CPU)) == digest(first)
    other = load(DataConfig(name="cifar10", root=tmp_path, seed=1), CPU)
    assert set(first.validation.pixels[:, 0, 9, 9].tolist()) != set(other.validation.pixels[:, 0, 9, 9].tolist())
    assert torch.equal(other.test.pixels, first.test.pixels)


def test_the_digest_is_of_the_images_before_they_are_resized(tmp_path, monkeypatch):
    cifar_files(tmp_path, datasets.CIFAR10, monkeypatch, "labels")
    found = load(DataConfig(name="cifar10", root=tmp_path), CPU).digest
    assert load(DataConfig(name="cifar10", root=tmp_path, size=16), CPU).digest == found
    batch = pickle.loads((tmp_path / "cifar-10-batches-py" / "two").read_bytes())
    batch["data"][5, 2000] ^= 1
    (tmp_path / "cifar-10-batches-py" / "two").write_bytes(pickle.dumps(batch))
    assert load(DataConfig(name="cifar10", root=tmp_path), CPU).digest != found


def test_a_whole_set_is_resized_with_antialiasing(tmp_path, monkeypatch):
    cifar_files(tmp_path, datasets.CIFAR10, monkeypatch, "labels")
    monkeypatch.setattr("env.images.CHUNK", 7)  # so that the last chunk is not full
    got = load(DataConfig(name="cifar10", root=tmp_path, size=16, classes=("owl", "0")), CPU)
    numbers = got.test.pixels[:, 0, -1, -1]
    assert numbers.tolist() == [200, 201, 203, 204, 206, 207, 209, 210]
    assert got.test.labels.tolist() == [int(number % 3 == 0) for number in numbers.tolist()]
    top = got.test.pixels[:, 1, 0, 3].float()  # a white row of two; sampling without antialiasing would differ
    assert got.test.pixels.shape == (8, 3, 16, 16)
    assert ((top > 80) & (top < 128)).all()


def stl10_files(root, monkeypatch):
    """Write a tiny STL-10 whose red is the image's number and whose left column is blue; hashes are not asked for."""
    folder = root / datasets.STL10.base_folder
    folder.mkdir()
    for split, n in (("train", 20), ("test", 4), ("unlabeled", 30)):
        pixels = np.zeros((n, 3, 96, 96), dtype=np.uint8)  # stored column by column
        pixels[:, 0] = np.arange(n).reshape(-1, 1, 1)
        pixels[:, 2, 0] = 255
        pixels.tofile(folder / f"{split}_X.bin")
        if split != "unlabeled":
            (np.arange(n, dtype=np.uint8) % 2 + 1).tofile(folder / f"{split}_y.bin")
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    for attribute in ("train_list", "test_list"):
        files = [[name, None] for name, _ in getattr(datasets.STL10, attribute)]
        monkeypatch.setattr(datasets.STL10, attribute, files)


def test_stl10_holds_out_a_tenth_of_its_labelled_images(tmp_path, monkeypatch):
    stl10_files(tmp_path, monkeypatch)
    got = load(DataConfig(name="stl10", root=tmp_path), CPU)
    assert got.classes == ("airplane", "bird")
    assert (len(got.train), len(got.validation), len(got.test)) == (18, 2, 4)
    assert got.train.labels.tolist() == [number % 2 for number in got.train.pixels[:, 0, 50, 50].tolist()]
    assert (got.test.pixels[:, 2, :, 0] == 255).all()  # the left column
    assert (got.test.pixels[:, 2, :, 1:] == 0).all()


@pytest.mark.parametrize("size", [96, 16])
def test_unlabelled_images_of_stl10_follow_those_for_training(tmp_path, monkeypatch, size):
    stl10_files(tmp_path, monkeypatch)
    monkeypatch.setattr("env.images.CHUNK", 7)
    config = DataConfig(name="stl10", root=tmp_path, size=size)
    train = load(config, CPU).train
    joined = with_unlabeled(train, config)
    assert torch.equal(joined.pixels[:18], train.pixels)
    assert torch.equal(joined.labels[:18], train.labels)
    assert joined.pixels[18:, 0, size // 2, size // 2].tolist() == list(range(30))
    assert joined.labels[18:].tolist() == [-1] * 30
    assert (joined.pixels[18:, 2, size // 2, 0] > 0).all()


def test_unlabelled_images_that_are_damaged_are_refused(tmp_path, monkeypatch):
    stl10_files(tmp_path, monkeypatch)
    config = DataConfig(name="stl10", root=tmp_path)
    train = load(config, CPU).train
    (tmp_path / datasets.STL10.base_folder / "unlabeled_X.bin").write_bytes(b"short")
    with pytest.raises(UsageError, match="incomplete or damaged"):
        with_unlabeled(train, config)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch, name):
    for kind in (datasets.CIFAR10, datasets.CIFAR100, datasets.STL10):
        monkeypatch.setattr(kind, "download", lambda self: pytest.fail("downloads"))
    with pytest.raises(UsageError, match=rf"--data {name}: there is no .*--data.root, or add --data.download True"):
        load(DataConfig(name=name, root=tmp_path), CPU)


def test_a_download_that_fails_is_one_sentence(tmp_path, monkeypatch):
    def download(self):
        raise OSError("<urlopen error\nno route to host>")

    monkeypatch.setattr(datasets.CIFAR10, "download", download)
    with pytest.raises(UsageError, match=r"could not be downloaded \(<urlopen error no route to host>\)"):
        load(DataConfig(name="cifar10", root=tmp_path, download=True), CPU)


@pytest.mark.parametrize(
    ("name", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100), ("stl10", datasets.STL10)]
)
def test_damaged_files_are_refused_and_never_unpickled(tmp_path, monkeypatch, name, kind):
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickles"))
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    for file, _ in kind.train_list + kind.test_list:
        (folder / file).write_bytes(b"damaged")
    with pytest.raises(UsageError, match=rf"{kind.base_folder} are incomplete or damaged.*--data.download True"):
        load(DataConfig(name=name, root=tmp_path), CPU)


def test_a_short_file_behind_a_right_hash_is_refused(tmp_path, monkeypatch):
    cifar_files(tmp_path, datasets.CIFAR10, monkeypatch, "labels")
    file = tmp_path / datasets.CIFAR10.base_folder / "two"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UsageError, match="incomplete or damaged"):
        load(DataConfig(name="cifar10", root=tmp_path), CPU)


def test_sets_without_maps_are_not_asked_for_them():
    with pytest.raises(ValueError, match="no maps of classes beside the images of digits"):
        load(DataConfig(), CPU, map_classes=3)


def test_a_set_is_thinned_evenly_with_its_labels_and_maps():
    pixels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 4, 4).contiguous()
    full = ImageSet(pixels, torch.arange(10))
    thin = full.thinned(4)
    assert thin.labels.tolist() == [0, 3, 6, 9]
    assert (thin.pixels[:, 0, 0, 0] == thin.labels).all()
    assert torch.equal(full.spread(4), thin.images())
    assert thin.layouts is None
    maps = ImageSet(pixels, torch.arange(10), pixels[:, 0]).thinned(4).layouts
    assert torch.equal(maps[:, 2, 2], thin.labels.to(torch.uint8))
    for count in (0, 10, 99):
        assert full.thinned(count).labels.tolist() == list(range(10))
