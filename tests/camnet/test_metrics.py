"""Every metric against a slow transcription of its formula, or against a case whose answer is known."""

import numpy as np
import pytest
import torch

from camnet import metrics
from camnet.distance import Distance
from camnet.jpeg import compress
from camnet.layout import Layout
from env.corruption import Action, corrupt

N, K, SIZE = 3, 4, 16


def random(seed):
    return torch.Generator().manual_seed(seed)


def images(*shape, seed=0):
    return torch.rand(*shape, 3, SIZE, SIZE, generator=random(seed))


def action(n, mask=None, factor=0, gray=False):
    mask = torch.zeros(n, 4, 4, dtype=torch.bool) if mask is None else mask
    return Action(mask, torch.full((n,), factor), torch.full((n,), gray))


@pytest.fixture(scope="module")
def distance():
    return Distance(images(50, seed=9), pixel_weight=1.0)


@pytest.fixture(scope="module")
def x():
    return images(N)


@pytest.fixture(scope="module")
def samples(x):
    return (x.unsqueeze(1) + 0.1 * torch.randn(N, K, 3, SIZE, SIZE, generator=random(1))).clamp(0, 1)


def test_psnr_of_a_known_error():
    x = torch.full((1, 3, SIZE, SIZE), 0.5)
    samples = torch.stack([x + 0.1, x - 0.01, x], dim=1)
    assert torch.allclose(metrics.psnr(samples, x), torch.tensor([[20.0, 40.0, 100.0]]), atol=1e-3)


def test_psnr_is_over_the_whole_image_each_on_its_own(samples, x):
    error = ((samples.numpy() - x.numpy()[:, None]) ** 2).reshape(N, K, -1).mean(axis=2)
    assert np.allclose(metrics.psnr(samples, x).numpy(), 10 * np.log10(1 / error), atol=1e-4)


def slow_ssim(a, b):
    """Wang et al. 2004, Eq. 13, one channel, window by window."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    a, b = np.pad(a, 5, mode="reflect"), np.pad(b, 5, mode="reflect")
    values = []
    for row in range(SIZE):
        for column in range(SIZE):
            p, q = (i[row : row + 11, column : column + 11] for i in (a, b))
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * p * p).sum() - mean_p**2, (window * q * q).sum() - mean_q**2
            both = (window * p * q).sum() - mean_p * mean_q
            luminance = (2 * mean_p * mean_q + 0.01**2) / (mean_p**2 + mean_q**2 + 0.01**2)
            values.append(luminance * (2 * both + 0.03**2) / (var_p + var_q + 0.03**2))
    return np.mean(values)


def test_ssim_is_that_of_the_paper(samples, x):
    found = metrics.ssim(samples[:2, :2], x[:2])
    for i in range(2):
        for j in range(2):
            planes = zip(samples[i, j].double().numpy(), x[i].double().numpy(), strict=True)
            assert found[i, j].item() == pytest.approx(np.mean([slow_ssim(*plane) for plane in planes]), abs=1e-4)
    assert torch.allclose(metrics.ssim(x.unsqueeze(1), x), torch.ones(N, 1), atol=1e-6)


def test_distances_are_those_of_each_sample_from_its_own_image(distance, samples, x):
    terms = distance.terms(distance.features(samples.flatten(0, 1)), distance.features(x))
    found = metrics.distances(terms, N)
    slow = torch.stack([torch.cat([distance(samples[i, j, None], x[i, None]) for j in range(K)]) for i in range(N)])
    assert torch.allclose(found, slow, rtol=1e-4)
    assert found.std() > 0


def test_the_best_in_places_puts_halves_together(distance, x):
    left, right = x.clone(), x.clone()
    left[..., SIZE // 2 :] = 0.5
    right[..., : SIZE // 2] = 0.5
    samples = torch.stack([left, right], dim=1)
    terms = distance.terms(distance.features(samples.flatten(0, 1)), distance.features(x))
    best = metrics.distances(terms, N).amin(dim=1)
    assert torch.allclose(metrics.best_in_places(terms, N, 1), best, rtol=1e-4)
    assert (metrics.best_in_places(terms, N, 2) < 0.4 * best).all()  # what is near the seam sees both


@pytest.mark.parametrize("texture", [0.0, 2.0])
def test_the_distance_among_samples_is_the_mean_over_pairs(distance, samples, texture):
    distance.grid_weight, distance.texture_weight = 3.0, texture
    found = distance.among(distance.features(samples.flatten(0, 1)), K)
    pairs = [(a, b) for a in range(K) for b in range(a)]
    slow = torch.stack([distance(samples[:, a], samples[:, b]) for a, b in pairs]).mean(dim=0)
    assert torch.allclose(found, slow, rtol=1e-4)
    same = distance.features(samples[:, :1].repeat(1, K, 1, 1, 1).flatten(0, 1))
    assert distance.among(same, K).abs().max() < 1e-6


def test_diversity_is_the_spread_where_something_was_deleted(x):
    where = torch.zeros(N, 1, SIZE, SIZE, dtype=torch.bool)
    assert metrics.diversity(x.unsqueeze(1).repeat(1, K, 1, 1, 1), ~where) == 0
    where[0, :, :4] = True
    where[1, :, :8] = True
    offset = torch.zeros(N, 1, SIZE, SIZE).masked_fill(where, 0.1)
    offset[1] *= 3
    offset[2] = 5.0  # nothing was touched here
    samples = torch.stack([x - offset, x + offset], dim=1)
    # Two values 2a apart have variance 2a^2; 64 pixels with a = 0.1 and 128 with a = 0.3.
    assert metrics.diversity(samples, where).item() == pytest.approx(((0.02 + 2 * 0.18) / 3) ** 0.5, rel=1e-4)
    assert metrics.diversity(samples, torch.zeros_like(where)) == 0


def test_diversity_is_that_of_numpy(samples):
    where = torch.rand(N, 1, SIZE, SIZE, generator=random(2)) < 0.5
    variance = samples.double().numpy().var(axis=1, ddof=1).mean(axis=1)
    assert metrics.diversity(samples, where).item() == pytest.approx(np.sqrt(variance[where[:, 0].numpy()].mean()))


@pytest.mark.parametrize(
    ("best", "share"), [([0.0, 0.0], 1.0), ([0.4, 1.1], 0.5), ([0.5, 1.0], 0.0), ([3.0, 3.0], 0.0)]
)
def test_coverage_counts_the_images_that_come_within_half_of_the_plain_fill(best, share):
    assert metrics.coverage(torch.tensor(best), torch.tensor([1.0, 2.0])) == share


def test_the_plain_fill_is_the_mean_visible_color(x):
    mask = torch.zeros(N, 4, 4, dtype=torch.bool)
    mask[0, 1], mask[2] = True, True
    filled = metrics.plain_fill(corrupt(x, action(N, mask)))
    visible = torch.ones(SIZE, SIZE, dtype=torch.bool)
    visible[4:8] = False
    assert torch.allclose(filled[0, :, ~visible], x[0, :, visible].mean(dim=1, keepdim=True).expand(3, 64))
    assert torch.equal(filled[0, :, visible], x[0, :, visible])
    assert torch.equal(filled[1], x[1])
    assert torch.equal(filled[2], torch.full_like(x[2], 0.5))


def test_the_plain_fill_leaves_gray_gray_and_blocks_blocks_and_jpeg_decoded(x):
    gray = metrics.plain_fill(corrupt(x, action(N, gray=True)))
    assert torch.allclose(gray, x.mean(dim=1, keepdim=True).expand_as(x), atol=1e-6)
    blocks = metrics.plain_fill(corrupt(x, action(N, factor=2)))
    assert torch.allclose(blocks[:, :, ::4, ::4], torch.nn.functional.avg_pool2d(x, 4), atol=1e-6)
    jpeg = compress(x, torch.full((N,), 50.0))
    assert (metrics.plain_fill(jpeg) - jpeg.kept).abs().mean() < 0.02
    layout = Layout(torch.zeros(N, SIZE, SIZE, dtype=torch.long), 2)
    assert torch.equal(metrics.plain_fill(layout), torch.full_like(x, 0.5))


def test_weighted_variance_is_the_stated_formula():
    to_truth, to_mean = torch.rand(2, N, K, generator=random(3), dtype=torch.float64)
    sigma = 0.3
    slow = 0.0
    for i in range(N):
        weights = [np.exp(-(to_truth[i, j].item() ** 2) / (2 * sigma**2)) for j in range(K)]
        slow += sum(w * to_mean[i, j].item() for j, w in enumerate(weights)) / K / N
    found = metrics.weighted_variance(to_truth, to_mean, torch.tensor(sigma, dtype=torch.float64))
    assert found.item() == pytest.approx(slow)


def test_variety_far_from_the_truth_counts_for_nothing():
    to_mean, sigma = torch.full((1, 2), 0.5), torch.tensor(0.1)
    assert metrics.weighted_variance(torch.zeros(1, 2), to_mean, sigma) == 0.5
    assert metrics.weighted_variance(torch.full((1, 2), 3.0), to_mean, sigma) < 1e-6
    assert metrics.weighted_variance(torch.tensor([[0.0, 3.0]]), to_mean, sigma).item() == pytest.approx(0.25)


def test_the_residual_finds_the_sample_that_disagrees(x):
    degraded = corrupt(x, action(N, factor=1))
    samples = x.unsqueeze(1).repeat(1, K, 1, 1, 1)
    samples[1, 2, 0, 3, 3] += 0.4  # a mean over four pixels is off by a quarter of that
    found = metrics.residual(degraded, samples)
    assert found[1, 2].item() == pytest.approx(0.1, abs=1e-6)
    found[1, 2] = 0
    assert found.max() < 1e-6


def hue_share(a, b):
    return metrics.hue_share(*metrics.hue_parts(a, b))


def test_hue_share_tells_hue_from_saturation_and_luma():
    orange = torch.tensor([0.8, 0.4, 0.3]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert hue_share(orange, orange.roll(1, dims=1)).item() == pytest.approx(1, abs=1e-5)
    assert hue_share(orange, orange - 0.2).item() == pytest.approx(0, abs=1e-5)
    paler = 0.5 * orange + 0.5 * orange.mean(dim=1, keepdim=True)
    assert hue_share(orange, paler).item() == pytest.approx(0, abs=1e-5)
    assert hue_share(images(N), images(N)) == 0


def test_hue_share_is_pooled_over_images():
    a, b = images(2, seed=1), images(2, seed=2)
    b[1] = a[1] + 0.01 * (b[1] - a[1])  # hardly differs, so it should hardly count
    one = hue_share(a[:1], b[:1]).item()
    assert hue_share(a, b).item() == pytest.approx(one, abs=1e-3)


def test_pooled_features_are_means_and_deviations_of_channels(distance, x):
    found = metrics.pooled(distance.random, x).numpy()
    maps = [f.numpy().reshape(N, f.shape[1], -1) for f in distance.random(x)]
    slow = np.concatenate([part for f in maps for part in (f.mean(axis=2), f.std(axis=2))], axis=1)
    assert found.shape == (N, 96)
    assert np.allclose(found, slow, atol=1e-5)


def gaussian(n=400, d=5, seed=4):
    mixing = torch.randn(d, d, generator=random(seed), dtype=torch.float64)
    return torch.randn(n, d, generator=random(seed + 1), dtype=torch.float64) @ mixing + 2


def test_frechet_distance_of_a_set_from_itself_is_zero():
    assert metrics.frechet_distance(gaussian(), gaussian()).item() == pytest.approx(0, abs=1e-5)


def test_frechet_distance_of_shifted_and_stretched_gaussians():
    real, shift = gaussian(), torch.tensor([1.0, 0, 0, -2, 0], dtype=torch.float64)
    assert metrics.frechet_distance(real, real + shift).item() == pytest.approx(5, abs=1e-5)
    middle = real.mean(dim=0)
    variance = real.var(dim=0).sum().item()  # C' = 9 C: Tr(C + 9 C - 2 * 3 C)
    assert metrics.frechet_distance(real, middle + 3 * (real - middle)).item() == pytest.approx(4 * variance)


def test_frechet_distance_is_its_formula():
    real, made = gaussian(seed=4).numpy(), gaussian(300, seed=7).numpy()
    c, other = np.cov(real.T), np.cov(made.T)
    values, vectors = np.linalg.eigh(c)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ other @ root)).sum()  # Tr (C C')^(1/2)
    slow = ((real.mean(0) - made.mean(0)) ** 2).sum() + np.trace(c) + np.trace(other) - 2 * cross
    found = metrics.frechet_distance(torch.from_numpy(real), torch.from_numpy(made))
    assert found.item() == pytest.approx(slow)
