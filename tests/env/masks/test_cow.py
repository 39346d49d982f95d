"""CowMask: the share is exact, the spots are spots, and coarser blurs make coarser spots."""

import pytest
import torch

from env.masks.cow import Cow, blurring, variance_around_mean
from env.masks.law import LearnedMaskLaw, MaskLaw

CPU = torch.device("cpu")


def masks(law, seed=0):
    return law.sample(torch.Generator().manual_seed(seed)).mask


def edges(mask):
    """Share of neighbors to the right that differ."""
    return (mask[:, :, 1:] != mask[:, :, :-1]).float().mean().item()


def test_it_is_a_law_with_nothing_to_learn():
    law = Cow(3, 16, 0.3, CPU)
    assert isinstance(law, MaskLaw)
    assert not isinstance(law, LearnedMaskLaw)
    assert law.sample(torch.Generator()).drawn is None


@pytest.mark.parametrize(("size", "share"), [(16, 0.3), (16, 0.5), (15, 0.123), (8, 0.0), (8, 1.0)])
def test_the_share_is_exact_in_every_image(size, share):
    law = Cow(50, size, share, CPU)
    mask = masks(law)
    hidden = round(share * size**2)
    assert mask.shape == (50, size, size)
    assert (mask.sum(dim=(1, 2)) == hidden).all()
    assert torch.equal(law.ratio(), torch.full((50,), hidden / size**2))


def test_spots_grow_with_the_blur(monkeypatch):
    found = []
    for sigma in (0.01, 0.05, 0.3):
        monkeypatch.setattr("env.masks.cow.SIGMAS", (sigma, sigma))
        found.append(edges(masks(Cow(200, 32, 0.5, CPU))))
    fine, medium, coarse = found
    assert fine == pytest.approx(0.5, abs=0.01)  # no blur: independent pixels
    assert coarse < 0.5 * medium < 0.25 * fine


def test_each_image_has_a_blur_of_its_own_within_the_range():
    sigmas = Cow(2000, 32, 0.5, CPU)._sigmas(torch.Generator().manual_seed(0))
    assert 4 <= sigmas.min() < 4.1
    assert 15.9 < sigmas.max() <= 16
    assert (sigmas < 8).float().mean().item() == pytest.approx(0.5, abs=0.05)  # log-uniform


def test_blurred_noise_has_unit_variance_and_the_computed_variance_around_its_mean():
    blur = blurring(torch.tensor([1.0, 5.0]), 12)
    assert torch.allclose(blur.norm(dim=2), torch.ones(2, 12))
    noise = torch.randn(20_000, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    field = blur @ noise @ blur.mT
    assert (field.var(dim=0) - 1).abs().max() < 0.05
    centered = field - field.mean(dim=(2, 3), keepdim=True)
    assert torch.allclose(centered.square().mean(dim=0), variance_around_mean(blur), rtol=0.05, atol=0.01)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_probabilities_are_near_the_frequencies(share):
    p = Cow(1, 16, share, CPU).probabilities()[0]
    frequency = masks(Cow(10_000, 16, share, CPU)).float().mean(dim=0)
    assert (p - frequency).abs().max() < 0.045
    assert (frequency - share).abs().max() > 0.08  # the plain share would be worse
    assert abs(p.mean().item() - share) < 0.015


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_probabilities_of_nothing_and_of_everything_are_exact(share):
    assert torch.equal(Cow(2, 8, share, CPU).probabilities(), torch.full((2, 8, 8), share))


def test_draws_repeat_with_the_seed_and_differ_between_images():
    law = Cow(64, 16, 0.3, CPU)
    first, again, other = (masks(law, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(1).unique(dim=0)) == 64
