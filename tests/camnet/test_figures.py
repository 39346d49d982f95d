"""The figures of known operators."""

import pytest
import torch

from camnet.decorruptor import Decorruptor
from camnet.distance import Distance
from camnet.figures import figures
from camnet.metrics import best_in_places, hue_parts, hue_share, ssim
from camnet.table import COLUMNS
from camnet.texture import color_shares, fringe_ratio, seam_ratio, steps
from configs.data import DataConfig
from env.corruption import Action, corrupt
from env.images import load


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(), torch.device("cpu")).test.images()


@pytest.fixture(scope="module")
def distance(digits):
    return Distance(digits, pixel_weight=1.0)


class Noisy(Decorruptor):
    """Adds noise of a given size to what was kept, or to the truth."""

    consistent = True

    def __init__(self, size, truth=None):
        self.noise, self.truth = size, truth

    def codes(self, n, random):
        return torch.randn(n, 3, 16, 16, generator=random)

    def restore(self, degraded, codes):
        middle = degraded.kept if self.truth is None else self.truth
        return (middle.repeat_interleave(len(codes) // len(middle), dim=0) + self.noise * codes).clamp(0, 1)

    def sha256(self):
        return ""


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def degrade(x, mask=False, factor=0, gray=False):
    n = len(x)
    return corrupt(x, Action(torch.full((n, 4, 4), mask), torch.full((n,), factor), torch.full((n,), gray)))


def test_a_perfect_operator_has_perfect_figures(digits, distance):
    x = digits[:12]
    found = figures(Noisy(0.0, truth=x), distance, x, degrade(x, gray=True), 3, random(), batch=12)
    for name in ("best_distance", "mean_distance", "diversity", "feature_diversity", "weighted_variance", "hue_share"):
        assert found[name] == pytest.approx(0, abs=1e-6), name
    assert found["best_psnr"] == pytest.approx(100)
    assert found["mean_ssim"] == pytest.approx(1, abs=1e-5)
    assert found["coverage"] == 1
    assert found["residual"] < 1e-6
    assert found["plain_distance"] > 0.1


def test_progress_is_told_batch_by_batch(digits, distance):
    told, x = [], digits[:12]
    figures(Noisy(0.05), distance, x, degrade(x, gray=True), 2, random(), batch=5, tell=told.append)
    assert told == [5, 5, 2]


def test_the_figures_are_what_they_say(digits, distance):
    """A transcription with plain loops."""
    x, k = digits[:5], 3
    degraded, operator = degrade(x, gray=True), Noisy(0.05)
    found = figures(operator, distance, x, degraded, k, random())
    samples = operator.views(degraded, k, random())
    d = torch.stack([distance(samples[:, j], x) for j in range(k)], dim=1)
    from_mean = torch.stack([distance(samples[:, j], samples.mean(dim=1)) for j in range(k)], dim=1)
    plain = distance(degraded.kept, x)
    sigma = 0.5 * plain.mean()
    assert found["best_distance"] == pytest.approx(d.amin(dim=1).mean().item(), rel=1e-4)
    assert found["mean_distance"] == pytest.approx(d.mean().item(), rel=1e-4)
    assert found["plain_distance"] == pytest.approx(plain.mean().item(), rel=1e-4)
    weight = (-(d**2) / (2 * sigma**2)).exp()
    assert found["weighted_variance"] == pytest.approx((weight * from_mean).mean().item(), rel=1e-4)
    error = (samples - x.unsqueeze(1)).square().mean(dim=(2, 3, 4))
    assert found["best_psnr"] == pytest.approx(-10 * error.amin(dim=1).log10().mean().item(), rel=1e-4)
    assert found["mean_psnr"] == pytest.approx(-10 * error.log10().mean().item(), rel=1e-4)
    assert found["diversity"] == pytest.approx(samples.var(dim=1).mean().sqrt().item(), rel=1e-4)
    likeness = ssim(samples, x)
    assert found["best_ssim"] == pytest.approx(likeness.amax(dim=1).mean().item(), rel=1e-4)
    assert found["mean_ssim"] == pytest.approx(likeness.mean().item(), rel=1e-4)
    apart = [distance(samples[:, a], samples[:, b]).mean().item() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found["feature_diversity"] == pytest.approx(sum(apart) / 3, rel=1e-4)
    assert found["hue_share"] == pytest.approx(hue_share(*hue_parts(samples[:, 0], samples[:, 1])).item(), rel=1e-4)
    assert found["coverage"] == (d.amin(dim=1) < 0.5 * plain).float().mean().item()
    terms = distance.terms(distance.features(samples.flatten(0, 1)), distance.features(x))
    assert found["local_distance"] == pytest.approx(best_in_places(terms, 5, 16 // 8).mean().item(), rel=1e-4)
    assert found["local_distance"] < 0.99 * found["best_distance"]
    assert found["seam_ratio"] == pytest.approx(seam_ratio(steps(x), steps(samples[:, 0])).item(), rel=1e-4)
    fringes = fringe_ratio(color_shares(x), color_shares(samples[:, 0])).item()
    assert found["fringe_ratio"] == pytest.approx(fringes, rel=1e-4)
    off = (samples.mean(dim=2) - x.mean(dim=1).unsqueeze(1)).abs().amax().item()
    assert found["residual"] == pytest.approx(off, rel=1e-3)


def test_a_worse_operator_has_worse_figures(digits, distance):
    x = digits[:10]
    degraded = degrade(x, gray=True)
    good, bad = (figures(Noisy(s, truth=x), distance, x, degraded, 3, random(), batch=10) for s in (0.02, 0.3))
    assert good["best_distance"] < bad["best_distance"]
    assert good["best_psnr"] > bad["best_psnr"]
    assert good["best_ssim"] > bad["best_ssim"]
    assert good["coverage"] > bad["coverage"]
    assert good["residual"] < bad["residual"]
    assert good["diversity"] < bad["diversity"]


def test_the_batch_changes_nothing_but_the_codes(digits, distance):
    x = digits[:7]
    degraded, operator = degrade(x, factor=2), Noisy(0.0)
    whole, parts = (figures(operator, distance, x, degraded, 2, random(), batch=size) for size in (100, 3))
    assert whole == pytest.approx(parts, rel=1e-5, abs=1e-6)


def test_a_frechet_distance_needs_images_enough(digits, distance):
    x, operator = digits[:200], Noisy(0.0)
    assert "frechet_distance" not in figures(operator, distance, x[:199], degrade(x[:199]), 2, random())
    found = figures(operator, distance, x, degrade(x), 2, random())
    assert found.keys() == COLUMNS.keys()
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-5)
    gray = figures(operator, distance, x, degrade(x, gray=True), 2, random())
    assert gray["frechet_distance"] > 0.01


def test_a_frechet_distance_may_be_taken_on_other_features(digits, distance):
    """Brightness alone, of which a decolorized image has lost nothing."""
    x, operator = digits[:200], Noisy(0.0)
    brightness = lambda x: [x.mean(dim=1, keepdim=True)]  # noqa: E731
    brightness.name = "brightness"
    found = figures(operator, distance, x, degrade(x, gray=True), 2, random(), frechet=brightness)
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-5)
    assert found["best_distance"] > 0.01


def test_a_power_ratio_tells_noise(digits, distance):
    x = digits[:200]
    clean, noisy = (figures(Noisy(s), distance, x, degrade(x), 2, random()) for s in (0.0, 0.2))
    for name in ("power_ratio", "detail_ratio", "seam_ratio"):
        assert clean[name] == pytest.approx(1, abs=1e-4), name
    assert noisy["power_ratio"] > 10
    assert noisy["detail_ratio"] > 10
