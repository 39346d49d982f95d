"""The learner f_φ: a small convolutional encoder and SimCLR's projector."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from configs.contrastive import ContrastiveConfig


class Learner(nn.Module):
    """SimCLR's encoder and projector for small images.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations".
    Departures: three convolutional stages instead of a ResNet, for images of 16 x 16 or 32 x 32 pixels; the last
    map is kept whole instead of averaged, since a digit is told by where its strokes are (kNN 0.37 averaged, 0.91
    whole, after 400 steps on decolorized pairs; docs/log.md).

    Both views of a batch belong in one call, so that they share BatchNorm's statistics.
    """

    def __init__(self, config: ContrastiveConfig, image_size: int) -> None:
        super().__init__()
        w = config.width
        self.encoder = nn.Sequential(*_stage(3, w, 1), *_stage(w, 2 * w, 2), *_stage(2 * w, 2 * w, 2), nn.Flatten())
        features = 2 * w * (image_size // 4) ** 2
        self.projector = nn.Sequential(nn.Linear(features, 4 * w), nn.ReLU(), nn.Linear(4 * w, config.projection))

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Map images in [0, 1] to the unit vectors that the contrastive loss compares."""
        return F.normalize(self.projector(self.features(x)), dim=-1)

    def features(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
        """Map images in [0, 1] to the encoder's features: what a task downstream uses."""
        # Channels last takes two thirds of the time on a CPU (BatchNorm's backward above all).
        x = (2 * x - 1).contiguous(memory_format=torch.channels_last)
        return self.encoder(x)


def _stage(before: int, after: int, stride: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Convolution, norm, ReLU; without the convolution's bias, which BatchNorm would cancel."""
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)
