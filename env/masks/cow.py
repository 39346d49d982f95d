"""CowMask: blobs of random coarseness, like the spots of a Friesian cow. Nothing in it is learned.

Source: French, Oliver and Salimans 2020, "Milking CowMask for Semi-Supervised Image Classification" (arXiv 2003.12022).
Departures: the share of hidden pixels is exact, where the paper's threshold (mean and deviation of the image's own
field, through the inverse error function) meets it on average; the noise ends at the border of the image, and each
pixel of the blurred field is scaled to unit variance.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from env.masks.budget import largest
from env.masks.law import MaskDraw

SIGMAS = (1 / 8, 1 / 2)
"""Ends of the blur's standard deviation, as shares of the side, the paper's 4 to 16 pixels of 32; each image draws its
own in between, log-uniformly."""


@dataclass(frozen=True)
class Cow:
    """Normal noise, blurred; the largest values are hidden.

    Attributes:
        n: Images.
        size: Side of the masks in pixels.
        share: Share of hidden pixels, in [0, 1]; met to the nearest pixel.
        device: Where masks are drawn.
    """

    n: int
    size: int
    share: float
    device: torch.device

    @property
    def _hidden(self) -> int:
        """Hidden pixels of each image."""
        return round(self.share * self.size**2)

    def sample(self, generator: torch.Generator) -> MaskDraw:
        """Draw one mask per image."""
        blur = blurring(self._sigmas(generator), self.size)
        noise = torch.randn((self.n, self.size, self.size), generator=generator, device=self.device)
        field = blur @ noise @ blur.mT
        return MaskDraw(self._cut(field))

    def ratio(self) -> Float[Tensor, " n"]:
        """The share, exactly."""
        return torch.full((self.n,), self._hidden / self.size**2, device=self.device)

    def probabilities(self) -> Float[Tensor, "n s s"]:
        """Probability that each pixel is hidden, approximately.

        A share below 1/2 falls on the borders more often than on the middle, since a field that is smooth over the
        whole image has its extremes there. The approximation: a pixel is hidden where its distance from the image's
        mean, a normal variable, is beyond the threshold that holds for the mean of all variances; averaged over 9
        blurs. Measured with 20,000 draws: within 0.04 of each pixel's frequency (0.013 on average over the pixels),
        where the plain share is wrong by up to 0.11.
        """
        low, high = self._log_sigmas
        variance = variance_around_mean(blurring(torch.linspace(low, high, 9, device=self.device).exp(), self.size))
        share = torch.full((), self._hidden / self.size**2, device=self.device)
        threshold = torch.special.ndtri(1 - share) * (variance.mean(dim=(1, 2), keepdim=True) / variance).sqrt()
        return torch.special.ndtr(-threshold).mean(dim=0).expand(self.n, -1, -1)

    @property
    def _log_sigmas(self) -> tuple[float, float]:
        """Ends of the blur's range: logarithms of pixels."""
        low, high = SIGMAS
        return math.log(low * self.size), math.log(high * self.size)

    def _sigmas(self, generator: torch.Generator) -> Float[Tensor, " n"]:
        """Draw each image's blur, in pixels."""
        low, high = self._log_sigmas
        return (low + (high - low) * torch.rand(self.n, generator=generator, device=self.device)).exp()

    def _cut(self, field: Float[Tensor, "n s s"]) -> Bool[Tensor, "n s s"]:
        """Hide the largest values, as many as the share says."""
        return largest(field.flatten(1), self._hidden).view(field.shape)


def blurring(sigma: Float[Tensor, " n"], size: int) -> Float[Tensor, "n s s"]:
    """Make the matrix of each image that blurs a line of `size` pixels: normal weights, rows of length 1.

    Rows of length 1 turn independent noise of variance 1 into correlated noise of variance 1, at the borders too.

    Args:
        sigma: Standard deviations in pixels, above 0.
        size: Pixels.
    """
    position = torch.arange(size, dtype=sigma.dtype, device=sigma.device)
    weights = (-0.5 * ((position[:, None] - position) / sigma[:, None, None]).square()).exp()
    return weights / weights.norm(dim=2, keepdim=True)


def variance_around_mean(blur: Float[Tensor, "n s s"]) -> Float[Tensor, "n s s"]:
    """Variance of each pixel's distance from the mean over its image, for fields of unit variance.

    1 - 2 r_y r_x + m²,  r = row means of the covariance blur blurᵀ on one axis, m = mean of r
    """
    covariance = blur @ blur.mT
    row = covariance.mean(dim=2)
    mean = row.mean(dim=1)
    return 1 - 2 * row[:, :, None] * row[:, None, :] + mean.square()[:, None, None]
