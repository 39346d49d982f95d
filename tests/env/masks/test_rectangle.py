"""Rectangles: whole, inside, of the asked area, anywhere; their probabilities are exact."""

import pytest
import torch

from env.masks.law import LearnedMaskLaw, MaskLaw
from env.masks.rectangle import Rectangle

CPU = torch.device("cpu")
SHARES = [0.05, 0.3, 0.5, 0.8]


def masks(law, seed=0):
    return law.sample(torch.Generator().manual_seed(seed)).mask


def sides(mask):
    """Hidden rows and columns of each image."""
    return mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)


def test_it_is_a_law_with_nothing_to_learn():
    law = Rectangle(3, 16, 0.3, CPU)
    assert isinstance(law, MaskLaw)
    assert not isinstance(law, LearnedMaskLaw)
    assert law.sample(torch.Generator()).drawn is None


@pytest.mark.parametrize("share", SHARES)
def test_every_mask_is_one_whole_rectangle(share):
    mask = masks(Rectangle(500, 16, share, CPU))
    rows, columns = mask.any(dim=2), mask.any(dim=1)
    assert torch.equal(mask, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):
        begins = line[:, 0].int() + (line[:, 1:] & ~line[:, :-1]).sum(dim=1)
        assert (begins == 1).all()  # one stretch without a gap


@pytest.mark.parametrize("share", SHARES)
def test_area_and_shape_are_those_asked_for(share):
    size = 32
    height, width = sides(masks(Rectangle(2000, size, share, CPU)))
    assert ((height * width - share * size**2).abs() <= height / 2).all()  # the nearest whole width
    assert height.unique().numel() > 3
    stretch = height / width
    rounding = 1 + 1.2 / min(height.min().item(), width.min().item())
    assert stretch.max() <= 2 * rounding
    assert stretch.min() >= 0.5 / rounding
    assert stretch.log().mean().abs() < 0.1  # neither tall nor wide
    assert Rectangle(1, size, share, CPU).ratio().item() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("share", SHARES)
def test_probabilities_and_ratio_are_exact(share):
    n = 20_000
    law = Rectangle(n, 12, share, CPU)
    drawn = masks(law).float().mean(dim=0)
    p = law.probabilities()[0]
    assert law.ratio()[0].item() == pytest.approx(p.mean().item(), abs=1e-6)
    assert (p <= 1 + 1e-6).all()
    assert ((drawn - p).abs() <= 4 * (p * (1 - p)).clamp(min=0).div(n).sqrt() + 1e-6).all()
    assert p[0, 0] < p[6, 6]


def test_all_places_that_fit_are_equally_likely():
    mask = masks(Rectangle(20_000, 8, 0.25, CPU))
    height, width = sides(mask)
    square = mask[(height == 4) & (width == 4)]
    corner = square.flatten(1).float().argmax(dim=1)  # row * 8 + column of the upper left
    counts = torch.bincount(corner, minlength=64).view(8, 8)[:5, :5].double()
    assert counts.sum() == len(square) > 2000
    expected = len(square) / 25
    assert ((counts - expected).square() / expected).sum() < 51  # chi-square, 24 degrees of freedom: 99.9 %


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything_are_exact(share):
    law = Rectangle(50, 16, share, CPU)
    assert (masks(law) == bool(share)).all()
    assert torch.equal(law.ratio(), torch.full((50,), share))
    assert torch.equal(law.probabilities(), torch.full((50, 16, 16), share))


def test_draws_repeat_with_the_seed_and_differ_between_images():
    law = Rectangle(64, 32, 0.3, CPU)
    first, again, other = (masks(law, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(1).unique(dim=0)) > 50
