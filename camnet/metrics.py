"""What restorations are worth: one function per metric.

Images lie in [0, 1]. Samples are k restorations of each of n images, (n, k, 3, h, w). Distances, named beside the
figures (`Distance.name`), compare features of samples that come image by image: rows i k to i k + k - 1 belong to
image i.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from camnet.degraded import Degraded
from camnet.distance import Features, by_region, overall
from camnet.fills import averaged

SMALLEST_ERROR = 1e-10
"""Mean squared error at which PSNR ends: 100 dB."""

COVERED = 0.5
"""A best restoration covers the truth below this share of the plain fill's distance."""

BANDWIDTH = 0.5
"""Sigma of `weighted_variance`, as a share of the plain fill's mean distance."""


def psnr(samples: Float[Tensor, "n k 3 h w"], x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
    """Peak signal-to-noise ratio over the whole image, -10 log10(mean squared error), in dB; at most 100."""
    error = (samples - x.unsqueeze(1)).square().mean(dim=(2, 3, 4))
    return -10 * error.clamp(min=SMALLEST_ERROR).log10()


def ssim(samples: Float[Tensor, "n k 3 h w"], x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
    """Structural similarity (Wang et al. 2004), at most 1: mean over pixels and channels, as torchmetrics computes it.

    A Gaussian window of 11 x 11 pixels (sigma 1.5) at each pixel, borders reflected: from 6 x 6 pixels on.
    """
    columns = []
    for sample in samples.unbind(1):
        column = structural_similarity_index_measure(sample, x, data_range=1.0, reduction="none")
        assert isinstance(column, Tensor)  # a tuple only where more is asked for
        columns.append(column)
    return torch.stack(columns, dim=1)


def distances(terms: list[Float[Tensor, "nk _ _"]], n: int) -> Float[Tensor, "n k"]:
    """Distance of each sample from its image, of the terms (`Distance.terms`) of n * k samples."""
    return overall(terms).unflatten(0, (n, -1))


def best_in_places(terms: list[Float[Tensor, "nk _ _"]], n: int, regions: int) -> Float[Tensor, " n"]:
    """Distance of the nearest sample in each of regions x regions parts of the image, mean of the parts.

    Whether the truth is within reach place by place. The nearest whole sample cannot tell where every place has its own
    choice: no few samples are right everywhere at once. Never above the nearest sample's distance.

    Args:
        terms: What `Distance.terms` gives.
        n: Images.
        regions: Parts per side.
    """
    return by_region(terms, regions).unflatten(0, (n, -1)).amin(dim=1).mean(dim=(1, 2))


def spread(
    samples: Float[Tensor, "n k 3 h w"], where: Bool[Tensor, "n 1 h w"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Variance between an image's samples (mean of the channels), summed over the chosen pixels; and their number."""
    variance = samples.var(dim=1).mean(dim=1, keepdim=True)
    return (variance * where).sum(dim=(1, 2, 3)), where.sum(dim=(1, 2, 3)).to(samples.dtype)


def diversity(samples: Float[Tensor, "n k 3 h w"], where: Bool[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """RMS, over the chosen pixels of all images, of the standard deviation between the k samples; in pixel values."""
    return rms(*spread(samples, where))


def rms(variance: Float[Tensor, " n"], pixels: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Root of the mean variance per pixel, over all images (`spread`); 0 where no pixel was chosen."""
    return variance.sum().div(pixels.sum().clamp(min=1)).sqrt()


def coverage(best: Float[Tensor, " n"], plain: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Share of images whose best sample lies within half the plain fill's distance from the truth, in [0, 1]."""
    return (best < COVERED * plain).to(best.dtype).mean()


def plain_fill(degraded: Degraded) -> Float[Tensor, "n 3 h w"]:
    """The restoration without a generator: what is kept, hidden pixels in the mean visible color, made consistent.

    Gray where an image has no visible pixel, as in every layout.
    """
    return degraded.make_consistent(averaged(degraded))


def weighted_variance(
    to_truth: Float[Tensor, "n k"], to_mean: Float[Tensor, "n k"], sigma: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Faithfulness-weighted variance: mean_n 1/k sum_i w_i d(s_i, s̄), w_i = exp(-d(s_i, x)^2 / (2 sigma^2)).

    Not divided by sum_i w_i: variety far from the truth counts for little. After CAM-Net and CHIMLE (arXiv 2211.14286),
    whose code does not contain it: not comparable with the papers' values.

    Args:
        to_truth: d(s_i, x).
        to_mean: d(s_i, s̄), s̄ the mean of the image's samples.
        sigma: Distance from the truth at which a sample counts 61 %.
    """
    weight = (-0.5 * (to_truth / sigma.clamp(min=1e-12)).square()).exp()
    return (weight * to_mean).mean()


def residual(degraded: Degraded, samples: Float[Tensor, "n k 3 h w"]) -> Float[Tensor, "n k"]:
    """How far each sample disagrees with what is known, as a largest difference in pixel values."""
    return torch.stack([degraded.residual(s) for s in samples.unbind(dim=1)], dim=1)


def hue_parts(
    a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """How much of the squared difference of two images lies in hue; and all of it.

    With chroma vectors p and q (what is left of a pixel without its channel mean), |a - b|^2 splits into luma,
    saturation (|p| - |q|)^2 and hue |p - q|^2 - (|p| - |q|)^2 = 2 (|p||q| - p.q): the law of cosines.
    """
    p, q = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    # As a difference of squares: of two equal images it is 0, while |p||q| - p.q leaves rounding.
    hue = (p - q).square().sum(dim=1) - (p.norm(dim=1) - q.norm(dim=1)).square()
    return hue.clamp(min=0).sum(dim=(1, 2)), (a - b).square().sum(dim=(1, 2, 3))


def hue_share(hue: Float[Tensor, " n"], whole: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Share of the squared difference of two sets of images that lies in hue, in [0, 1]; its parts: `hue_parts`."""
    return hue.sum() / whole.sum().clamp(min=1e-12)


def pooled(features: Features, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    """Mean and standard deviation of each channel of each feature map: d = 96 for three maps of 16 channels."""
    maps = [f.flatten(2) for f in features(x)]
    return torch.cat([statistic for f in maps for statistic in (f.mean(dim=2), f.std(dim=2, correction=0))], dim=1)


def frechet_distance(real: Float[Tensor, "n d"], made: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """|μ - μ'|^2 + Tr(C + C' - 2 (C C')^(1/2)) of the Gaussians fitted to two sets of features (Heusel et al. 2017).

    torchmetrics' computation, in float64. With d features it needs several times d images, and falls with their number:
    compare only at equal n.

    Args:
        real: Features of true images, at least 2.
        made: Features of restorations, at least 2.
    """
    metric = FrechetInceptionDistance(_AsGiven(real.shape[1]), normalize=True, sync_on_compute=False).to(real.device)
    metric.update(real.double(), real=True)
    metric.update(made.double(), real=False)
    return metric.compute().clamp(min=0)  # the clamp only mends rounding


class _AsGiven(nn.Module):
    """Stands in for Inception where features are computed already."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features
