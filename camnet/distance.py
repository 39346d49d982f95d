"""The training distance: random convolutional features, calibrated on the data, plus a pixel term. No download.

Name for figures: `random-relu16+l1`. Random-weight features see blur and shifts far better than pixels do (Liu et al.,
"A Generic Perceptual Loss", arXiv 2103.10571); the comparison of features follows LPIPS (Zhang et al. 2018, Eq. 1) with
unit weights. Maps are compared before they are pooled, as there: a pooled ReLU map says that there is a texture, not
where its dark and its light pixels lie, and a generator that may not be wrong about that paints stripes of one pixel
wherever it is unsure (docs/log.md, "Stripes again").
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

from camnet.compiled import compiled
from camnet.spectrum import amplitudes, octaves
from env.resize import halved
from training.seeding import generator_at

WIDTH = 16
STAGES = 3
PERIOD = 4
"""Pixels after which a module's places repeat: patches of 2, doubled once."""
CALIBRATION_IMAGES = 2000
"""Images over which the random features are scaled."""
CHUNK = 64
"""How many of them are looked at together."""


@runtime_checkable
class Features(Protocol):
    """A frozen network whose features a distance compares."""

    name: str

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Images (n, 3, r, r) in [0, 1] to feature maps (n, c, h, w), ready for squared differences."""


class RandomFeatures(nn.Module):
    """Three stages of random convolutions, scaled so that every channel has mean 0 and variance 1 over `images`.

    Frozen and deterministic: the filters come from a fixed seed, their scale from the calibration images.
    """

    name = f"random-relu{WIDTH}"

    def __init__(self, images: Float[Tensor, "n 3 h w"]) -> None:
        """Draw the filters and scale them."""
        super().__init__()
        self.filters = nn.ModuleList(
            # Not initialized: that would move the global random numbers, and the filters are replaced below.
            skip_init(nn.Conv2d, 3 if stage == 0 else WIDTH, WIDTH, 3, padding=1)
            for stage in range(STAGES)
        )
        self.requires_grad_(False)
        generator = generator_at(0, 0, "distance", torch.device("cpu"))
        self.to(images.device)
        for stage, conv in enumerate(self.filters):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator))
            conv.bias.zero_()
            mean, std = moments(self._filtered(some, stage) for some in images.split(CHUNK))
            std = std.clamp(min=1e-6)
            conv.weight.div_(std[:, None, None, None])
            conv.bias.copy_(-mean / std)

    def forward(self, x: Float[Tensor, "n 3 r r"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Unit-length feature vectors at each stage."""
        return stages_of(self.filters, x)

    def _filtered(self, x: Float[Tensor, "n 3 r r"], stage: int) -> Float[Tensor, "n c _ _"]:
        """What the filters of a stage find in images, before the ReLU."""
        for before, conv in enumerate(self.filters[:stage]):
            x = F.relu(conv(entering(x, before)))
        return self.filters[stage](entering(x, stage))


class Distance(nn.Module):
    """d(a, b) = sum over feature maps of the mean squared difference of their vectors + weighted terms of a - b.

    The pixel term is mean |a - b|. The texture term is the difference of local amplitudes (`spectrum.amplitudes`),
    summed over frequencies and octaves, mean of places, lightness and colors: without it whatever cannot be known is
    best left blurred, since a texture elsewhere than the truth's is farther from it than none. The grid term is mean
    |fold(a - b)| (`folded`), for images of at least 4 x 4 tiles: features of any kind prefer a texture of the right
    energy to a flat fill, and dots or stripes at fixed places are the cheapest one; this is what they cost.
    """

    def __init__(
        self,
        images: Float[Tensor, "n 3 h w"],
        pixel_weight: float,
        extra: Sequence[Features] = (),
        grid_weight: float = 0.0,
        texture_weight: float = 0.0,
    ) -> None:
        """Compare by random features calibrated on `images`, by `extra` features, pixels, repetition and texture."""
        super().__init__()
        self.pixel_weight, self.grid_weight, self.texture_weight = pixel_weight, grid_weight, texture_weight
        self.random = RandomFeatures(images)
        self.extra = list(extra)

    def compile_parts(self) -> None:
        """Compile features and terms, which are what the search runs, too."""
        self.features = compiled(self.features)  # type: ignore[method-assign]
        self.terms = compiled(self.terms)  # type: ignore[method-assign]

    @property
    def name(self) -> str:
        """What stands beside every figure: `random-relu16+l1`; `8 l1` for a pixel term of weight 8."""
        pixels = "l1" if self.pixel_weight == 1 else f"{self.pixel_weight:g} l1"
        grid = [f"{self.grid_weight:g} grid"] if self.grid_weight else []
        texture = [f"{self.texture_weight:g} color texture"] if self.texture_weight else []
        return "+".join([self.random.name, *(features.name for features in self.extra), pixels, *grid, *texture])

    @staticmethod
    def bytes_of(side: int) -> int:
        """Size of the largest feature map of an image of that side."""
        return 4 * WIDTH * side**2

    def features(self, x: Float[Tensor, "n 3 r r"]) -> list[Float[Tensor, "n _ _ _"]]:
        """What the distance compares: pixels, then amplitudes where they count, then feature maps."""
        texture = amplitudes(x) if self.texture_weight else []
        return [x, *texture, *self.random(x), *(part for features in self.extra for part in features(x))]

    def between(self, a: list[Tensor], b: list[Tensor]) -> Float[Tensor, " nm"]:
        """Distance of images given by their features: m rows of a to each of n rows of b, in their order."""
        return overall(self.terms(a, b))

    def terms(self, a: list[Tensor], b: list[Tensor]) -> list[Float[Tensor, "nm _ _"]]:
        """What the distance adds up, place by place; what repeats over the whole image has one place.

        The distance is the sum of the terms' means (`overall`); `by_region` has it for parts of the image.
        """
        pairs = [_pairs(p, q) for p, q in zip(a, b, strict=True)]
        pixels, maps = pairs[0], 1 + self._octaves(a[0])
        terms = [self.pixel_weight * F.l1_loss(*pixels, reduction="none").mean(dim=2)]
        if self._is_tiled(a[0]):
            repeated = folded((pixels[0] - pixels[1]).flatten(0, 1)).abs().mean(dim=(1, 2, 3))
            terms.append(self.grid_weight * repeated.view(*pixels[0].shape[:2], 1, 1))
        weight = self.texture_weight / a[0].shape[1]
        terms += [weight * F.l1_loss(*pair, reduction="none").sum(dim=2) for pair in pairs[1:maps]]
        terms += [F.mse_loss(*pair, reduction="none").sum(dim=2) for pair in pairs[maps:]]
        return [term.flatten(0, 1) for term in terms]

    def among(self, features: list[Tensor], k: int) -> Float[Tensor, " n"]:
        """Mean distance between two different of k images of a kind: 2 / (k (k - 1)) sum_{i<j} d(x_i, x_j).

        In O(k log k), not O(k^2): the squares sum to k sum |f_i|^2 - |sum f_i|^2, and of sorted pixels x_(1) <= x_(2)
        <= ... the differences sum to sum_r (2 r - k - 1) x_(r).

        Args:
            features: Of n * k images; rows i k to i k + k - 1 are of a kind.
            k: At least 2.
        """
        pixels, *others = (f.unflatten(0, (-1, k)) for f in features)
        total = self.pixel_weight * _apart(pixels)
        textures = self._octaves(features[0])
        for f in others[:textures]:
            total = total + self.texture_weight * f.shape[2] / pixels.shape[2] * _apart(f)
        if self._is_tiled(features[0]):
            total = total + self.grid_weight * _apart(folded(features[0]).unflatten(0, (-1, k)))
        for f in others[textures:]:
            f = f - f.mean(dim=1, keepdim=True)  # the same sum with less rounding: |sum f_i| is then 0
            total = total + k * f.square().sum(dim=(1, 2)).mean(dim=(1, 2))
        return total * 2 / (k * (k - 1))

    def forward(self, a: Float[Tensor, "n 3 r r"], b: Float[Tensor, "n 3 r r"]) -> Float[Tensor, " n"]:
        """Distance of each pair of images."""
        return self.between(self.features(a), self.features(b))

    def _octaves(self, x: Tensor) -> int:
        """How many maps of amplitudes follow the pixels."""
        return octaves(x.shape[-1]) if self.texture_weight else 0

    def _is_tiled(self, x: Tensor) -> bool:
        """Whether repetition counts: few tiles do not cancel."""
        return bool(self.grid_weight) and x.shape[-1] >= 4 * PERIOD and x.shape[-1] % PERIOD == 0


def overall(terms: list[Float[Tensor, "n _ _"]]) -> Float[Tensor, " n"]:
    """The distance of whole images."""
    return torch.stack([term.mean(dim=(1, 2)) for term in terms]).sum(dim=0)


def by_region(terms: list[Float[Tensor, "n _ _"]], regions: int) -> Float[Tensor, "n g g"]:
    """The distance in each of g x g regions; terms with fewer places than that count for all regions they cover."""
    return torch.stack([F.adaptive_avg_pool2d(term, regions) for term in terms]).sum(dim=0)


def _pairs(a: Float[Tensor, "nm c h w"], b: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor]:
    """The rows of a and, without copying them, those of b that they are compared with: (n, m, c, h, w) both."""
    many = a.unflatten(0, (len(b), -1))
    return many, b.unsqueeze(1).expand_as(many)


def _apart(x: Float[Tensor, "n k c h w"]) -> Float[Tensor, " n"]:
    """Sum over pairs of the mean absolute difference of k images."""
    k = x.shape[1]
    rank = torch.arange(1, k + 1, device=x.device).view(1, k, 1, 1, 1)
    return (x.sort(dim=1).values * (2 * rank - k - 1)).sum(dim=1).mean(dim=(1, 2, 3))


def folded(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p p"]:
    """What repeats every `PERIOD` pixels: the mean of all tiles of p x p pixels, less its own mean.

    Detail that is elsewhere in every tile cancels; dots and stripes at fixed places stay.
    """
    tile = x.unflatten(3, (-1, PERIOD)).unflatten(2, (-1, PERIOD)).mean(dim=(2, 4))
    return tile - tile.mean(dim=(2, 3), keepdim=True)


def moments(maps: Iterable[Float[Tensor, "_ c _ _"]]) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Mean and standard deviation of each channel over all places of maps that come a few at a time."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for some in maps:
        values = some.transpose(0, 1).flatten(1).double()  # so that sums of many squares lose nothing
        count += values.shape[1]
        total, squares = total + values.sum(dim=1), squares + values.square().sum(dim=1)
    mean = total / count
    variance = (squares - total * mean) / (count - 1)
    return mean.float(), variance.clamp(min=0).sqrt().float()


def unit_length(h: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Scale each position's feature vector to length 1 (or nearly: what is close to 0 stays small)."""
    return h * (h.square().sum(dim=1, keepdim=True) + 1e-3).rsqrt()


def stages_of(filters: Iterable[nn.Module], x: Float[Tensor, "n 3 r r"]) -> list[Float[Tensor, "n _ _ _"]]:
    """Unit-length feature vectors of each of a few convolutions: at r, r / 2 and r / 4 for three of them."""
    result, h = [], x
    for stage, conv in enumerate(filters):
        h = F.relu(conv(entering(h, stage)), inplace=True)
        result.append(unit_length(h))
    return result


def entering(h: Tensor, stage: int) -> Tensor:
    """A stage's input: the image for the first, the previous map at half resolution (rounded up) for the others."""
    return halved(h) if stage and h.shape[-1] > 1 else h
