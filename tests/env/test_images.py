"""Images, split and batches are functions of their seeds."""

import pytest
import torch

from configs.data import DataConfig
from env.images import MIN_CONTRAST, ImageSet, colored_digits, load

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
            for number in numbers(images.batch(0, step, size))
        ]
        for epoch in range(3)
    ]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == a_whole * size
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])


def test_a_batch_is_a_function_of_seed_and_step():
    images = numbered(50)
    late = images.batch(3, 11, 8)
    for step in range(11):
        images.batch(3, step, 8)
    torch.manual_seed(9)
    assert torch.equal(images.batch(3, 11, 8), late)
    assert not torch.equal(images.batch(4, 11, 8), late)
    assert not torch.equal(images.batch(3, 12, 8), late)


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ValueError, match=r"batch of 9 .* 8 images"):
        numbered(8).batch(0, 0, 9)
