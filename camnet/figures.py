"""The figures of K restorations of every image: from images to the numbers in a table.

What is noted of each image stays on the device, in float64; figures are made of all images together, at the end.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from camnet import metrics, texture
from camnet.decorruptor import Decorruptor
from camnet.degraded import Degraded
from camnet.distance import Distance, Features
from camnet.table import FRECHET_IMAGES, Figures

PLACE = 8
"""Side in pixels of the places whose nearest restorations are taken one by one."""


@torch.no_grad()
def figures(
    operator: Decorruptor,
    distance: Distance,
    x: Float[Tensor, "n 3 h w"],
    degraded: Degraded,
    k: int,
    random: torch.Generator,
    batch: int = 8,
    frechet: Features | None = None,
    tell: Callable[[int], object] = lambda images: None,
) -> Figures:
    """Measure K restorations of each image; `camnet.table.COLUMNS` says what the figures mean.

    Args:
        operator: Restores.
        distance: Compares images.
        x: The truth, in [0, 1].
        degraded: What is restored.
        k: Restorations of each image, at least 2.
        random: Draws the codes.
        batch: Images restored at once, k times each.
        frechet: What Fréchet distances are taken on; None: the distance's random features.
        tell: Hears after every batch how many images it had.

    Returns:
        The figures by name; no Fréchet distance and no spectra below `FRECHET_IMAGES` images.
    """
    parts = []
    for rows in torch.arange(len(x), device=x.device).split(batch):
        some = degraded.select(rows)
        samples = operator.views(some, k, random)
        parts.append(observe(distance, frechet or distance.random, x[rows], some, samples))
        tell(len(rows))
    result = summarize({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    return dict(zip(result, torch.stack(list(result.values())).tolist(), strict=True))


def observe(
    distance: Distance,
    frechet: Features,
    x: Float[Tensor, "n 3 h w"],
    degraded: Degraded,
    samples: Float[Tensor, "n k 3 h w"],
) -> dict[str, Tensor]:
    """Note of each image what figures are made of: n rows each, in float64."""
    n, seen, truth = len(x), distance.features(samples.flatten(0, 1)), distance.features(x)
    terms = distance.terms(seen, truth)
    from_mean = distance.terms(seen, distance.features(samples.mean(dim=1)))
    variance, pixels = metrics.spread(samples, degraded.touched())
    hue, change = metrics.hue_parts(samples[:, 0], samples[:, 1])
    noted = {
        "distance": metrics.distances(terms, n),
        "in_places": metrics.best_in_places(terms, n, max(1, x.shape[-1] // PLACE)),
        "from_mean": metrics.distances(from_mean, n),
        "plain": distance.between(distance.features(metrics.plain_fill(degraded)), truth),
        "apart": distance.among(seen, samples.shape[1]),
        "psnr": metrics.psnr(samples, x),
        "ssim": metrics.ssim(samples, x),
        "variance": variance,
        "pixels": pixels,
        "hue": hue,
        "change": change,
        "residual": metrics.residual(degraded, samples),
        "real": metrics.pooled(frechet, x),
        "made": metrics.pooled(frechet, samples[:, 0]),
        "real_power": texture.power(x),
        "made_power": texture.power(samples[:, 0]),
        "real_steps": texture.steps(x),
        "made_steps": texture.steps(samples[:, 0]),
        "real_colors": texture.color_shares(x),
        "made_colors": texture.color_shares(samples[:, 0]),
    }
    return {name: value.double() for name, value in noted.items()}


def summarize(seen: Mapping[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
    """The figures from what was noted of all images, in the order of `camnet.table.COLUMNS`."""
    best, plain = seen["distance"].amin(dim=1), seen["plain"]
    sigma = metrics.BANDWIDTH * plain.mean()
    result = {
        "best_distance": best.mean(),
        "mean_distance": seen["distance"].mean(),
        "local_distance": seen["in_places"].mean(),
        "plain_distance": plain.mean(),
        "best_psnr": seen["psnr"].amax(dim=1).mean(),
        "mean_psnr": seen["psnr"].mean(),
        "best_ssim": seen["ssim"].amax(dim=1).mean(),
        "mean_ssim": seen["ssim"].mean(),
        "coverage": metrics.coverage(best, plain),
        "diversity": metrics.rms(seen["variance"], seen["pixels"]),
        "feature_diversity": seen["apart"].mean(),
        "weighted_variance": metrics.weighted_variance(seen["distance"], seen["from_mean"], sigma),
        "hue_share": metrics.hue_share(seen["hue"], seen["change"]),
        "seam_ratio": texture.seam_ratio(seen["real_steps"], seen["made_steps"]),
        "fringe_ratio": texture.fringe_ratio(seen["real_colors"], seen["made_colors"]),
        "residual": seen["residual"].amax(),
    }
    if len(best) >= FRECHET_IMAGES:
        result["frechet_distance"] = metrics.frechet_distance(seen["real"], seen["made"])
        result["power_ratio"] = texture.power_ratio(seen["real_power"], seen["made_power"])
        result["detail_ratio"] = texture.detail_ratio(seen["real_power"], seen["made_power"])
    return result
