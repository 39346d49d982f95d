"""What a decorruptor is worth: nearness, diversity and exactness of K restorations an image."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from camnet.distance import Distance
from camnet.frozen import FrozenGenerator
from env.corruption import Action, Corrupted, corrupt


def restorations(
    operator: FrozenGenerator, corrupted: Corrupted, k: int, random: torch.Generator
) -> Float[Tensor, "k n 3 h w"]:
    """K restorations of every image, each with a code of its own."""
    n = len(corrupted)
    return torch.stack([operator.restore(corrupted, operator.codes(n, random)) for _ in range(k)])


def figures(
    operator: FrozenGenerator,
    distance: Distance,
    x: Float[Tensor, "n 3 h w"],
    action: Action,
    k: int,
    random: torch.Generator,
) -> dict[str, float]:
    """Measure K restorations of each image.

    Returns:
        `best_distance`, `mean_distance` (of K, by `distance`); `best_psnr`, `mean_psnr` in dB over the whole image;
        `diversity`: RMS over the deleted pixels of the spread between restorations; `kept_error`: largest absolute
        deviation of the kept part; `hue_share`: share of the pairs' squared difference that lies in hue.
    """
    corrupted = corrupt(x, action)
    samples = restorations(operator, corrupted, k, random)
    distances = torch.stack([distance(s, x) for s in samples])
    psnr = -10 * (samples - x).square().mean(dim=(2, 3, 4)).clamp(min=1e-10).log10()
    kept = torch.stack([(corrupt(s, action).kept - corrupted.kept).abs().amax() for s in samples])
    result = {
        "best_distance": distances.amin(dim=0).mean(),
        "mean_distance": distances.mean(),
        "best_psnr": psnr.amax(dim=0).mean(),
        "mean_psnr": psnr.mean(),
        "diversity": diversity(samples, touched(corrupted)),
        "kept_error": kept.amax(),
        "hue_share": hue_share(samples[0], samples[1]),
    }
    return {name: value.item() for name, value in result.items()}


def touched(corrupted: Corrupted) -> Bool[Tensor, "n 1 h w"]:
    """The pixels from which something was deleted."""
    action = corrupted.action
    everywhere = (action.decolorize | (action.downsample > 0)).view(-1, 1, 1, 1)
    return corrupted.hidden.bool() | everywhere


def diversity(samples: Float[Tensor, "k n 3 h w"], where: Bool[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """RMS, over the chosen pixels, of the standard deviation between the K samples."""
    variance = samples.var(dim=0).mean(dim=1, keepdim=True)
    return (variance * where).sum().div(where.sum().clamp(min=1)).sqrt()


def hue_share(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
    """Share of the squared difference of two images that lies in hue.

    With chroma vectors p and q (what is left of a pixel without its channel mean), |a - b|^2 splits into luma,
    saturation (|p| - |q|)^2 and hue 2 (|p||q| - p.q): the law of cosines.
    """
    p, q = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    hue = 2 * (p.norm(dim=1) * q.norm(dim=1) - (p * q).sum(dim=1))
    return hue.sum() / (a - b).square().sum().clamp(min=1e-12)
