"""The training distance: random convolutional features, calibrated on the data, plus a pixel term. No download.

Name for figures: `random-conv16+l1`. Random-weight features see blur and shifts far better than pixels do (Liu et al.,
"A Generic Perceptual Loss", arXiv 2103.10571); the comparison of features follows LPIPS (Zhang et al. 2018, Eq. 1) with
unit weights.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from training.seeding import generator_at

WIDTH = 16
STAGES = 3


class Distance(nn.Module):
    """d(a, b) = sum over stages of the mean squared difference of channel-normalized features + weight * mean |a - b|.

    Frozen and deterministic: the filters come from a fixed seed, their scale from the calibration images.
    """

    name = f"random-conv{WIDTH}+l1"

    def __init__(self, images: Float[Tensor, "n 3 h w"], pixel_weight: float) -> None:
        """Draw the filters and scale them so that every channel has mean 0 and variance 1 over `images`."""
        super().__init__()
        self.pixel_weight = pixel_weight
        self.filters = nn.ModuleList(
            nn.Conv2d(3 if stage == 0 else WIDTH, WIDTH, 3, padding=1) for stage in range(STAGES)
        )
        self.requires_grad_(False)
        generator = generator_at(0, 0, "distance", torch.device("cpu"))
        self.to(images.device)
        h = images
        for stage, conv in enumerate(self.filters):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            weight = torch.randn(conv.weight.shape, generator=generator).to(images.device)
            raw = F.conv2d(h, weight, padding=1)
            mean, std = raw.mean(dim=(0, 2, 3)), raw.std(dim=(0, 2, 3)).clamp(min=1e-6)
            conv.weight.copy_(weight / std[:, None, None, None])
            conv.bias.copy_(-mean / std)
            h = self._activate(conv(h), stage)

    def features(self, x: Float[Tensor, "n 3 r r"]) -> list[Float[Tensor, "n _ _ _"]]:
        """What the distance compares: pixels, then unit-length feature vectors at each stage."""
        result, h = [x], x
        for stage, conv in enumerate(self.filters):
            h = self._activate(conv(h), stage)
            result.append(h * (h.square().sum(dim=1, keepdim=True) + 1e-3).rsqrt())
        return result

    def between(self, a: list[Tensor], b: list[Tensor]) -> Float[Tensor, " n"]:
        """Distance of images given by their features; broadcasts over leading rows of equal count."""
        pixels = (a[0] - b[0]).abs().mean(dim=(1, 2, 3))
        stages = [(p - q).square().sum(dim=1).mean(dim=(1, 2)) for p, q in zip(a[1:], b[1:], strict=True)]
        return self.pixel_weight * pixels + torch.stack(stages).sum(dim=0)

    def forward(self, a: Float[Tensor, "n 3 r r"], b: Float[Tensor, "n 3 r r"]) -> Float[Tensor, " n"]:
        """Distance of each pair of images."""
        return self.between(self.features(a), self.features(b))

    def _activate(self, h: Tensor, stage: int) -> Tensor:
        """ReLU, then halve the resolution after all stages but the last (while there is something to halve)."""
        h = F.relu(h)
        return F.avg_pool2d(h, 2) if stage < STAGES - 1 and h.shape[-1] > 1 else h
