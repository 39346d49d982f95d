"""The learner f_φ: a backbone and SimCLR's projector."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from configs.contrastive import ContrastiveConfig
from contrastive import backbones
from contrastive.gradcache import embed_in_chunks

HIDDEN = 2048
"""Longest hidden layer of a projector."""


class Learner(nn.Module):
    """SimCLR's encoder and projector.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations".
    Departures: by default three convolutional stages instead of a ResNet, for small images (`backbones.small`).

    All views of a batch belong in one call, so that they share BatchNorm's statistics.

    Args:
        config: Encoder, projection, and how many images at once (`chunk`).
        image_size: Pixels a side.

    Attributes:
        encoder: The backbone.
        projector: What the loss needs and a task downstream does not.
        feature_length: Numbers that the encoder gives an image.

    Raises:
        UsageError: If there is no such encoder, or it cannot take images of this size.
    """

    def __init__(self, config: ContrastiveConfig, image_size: int) -> None:
        super().__init__()
        self.config, self.image_size = config, image_size
        self.encoder = backbones.build(config.encoder, config.width, image_size)
        self.feature_length = backbones.feature_length(self.encoder, config.encoder, image_size)
        if config.encoder == backbones.SMALL:
            self.projector = _small_projector(self.feature_length, 4 * config.width, config.projection)
        else:
            self.projector = simclr_projector(self.feature_length, config.projection)

    def forward(self, x: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m d"]:
        """Map images in [0, 1] to the unit vectors that the contrastive loss compares.

        With `chunk`, a training batch goes through in ceil(m / (2 chunk)) parts (`gradcache`), with gradients or
        without: at most 2 chunk rows each (3 where chunk is 1 and m odd: BatchNorm needs two), which are `chunk` images
        where there are two views of an image.

        Args:
            x: k views of n images, m = k n rows, view by view. Of `image_size` or, to judge views cheaply, a half or a
                quarter of it.

        Raises:
            ValueError: If the encoder takes only images of one size, and this is another.
        """
        chunk = self.config.chunk
        if self.training and 0 < 2 * chunk < len(x):
            network = nn.Sequential(self.encoder, self.projector)
            parts = min(-(-len(x) // (2 * chunk)), len(x) // 2)
            return F.normalize(embed_in_chunks(network, self._prepared(x), parts), dim=-1)
        return F.normalize(self.projector(self.features(x)), dim=-1)

    def features(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
        """Map images in [0, 1] to the encoder's features: what a task downstream uses. Sizes as in `forward`."""
        return self.encoder(self._prepared(x))

    def _prepared(self, x: Tensor) -> Tensor:
        """Images in [-1, 1]. Channels last takes two thirds of the time on a CPU (BatchNorm's backward above all)."""
        if x.shape[-1] != self.image_size and backbones.takes_one_size(self.encoder):
            raise ValueError(
                f"the encoder {self.config.encoder} takes only images of {self.image_size} pixels a side, "
                f"got {x.shape[-1]}"
            )
        return (2 * x - 1).contiguous(memory_format=torch.channels_last)


def simclr_projector(features: int, projection: int) -> nn.Sequential:
    """SimCLR's projector: z = W₂ ReLU(BatchNorm(W₁ h)).

    Source: Chen et al. 2020, section 2.1, for the formula without biases; their code adds BatchNorm after both layers
    (lightly's SimCLRProjectionHead likewise).
    Departures: no BatchNorm after the last layer, as in the formula; the hidden layer is as long as the features up to
    2,048 numbers (all of a ResNet-50's), and no longer.

    Args:
        features: Length of h.
        projection: Length of z.
    """
    hidden = min(features, HIDDEN)
    first, last = nn.Linear(features, hidden, bias=False), nn.Linear(hidden, projection, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), last)


def _small_projector(features: int, hidden: int, projection: int) -> nn.Sequential:
    """Two layers without a norm: enough behind three convolutions."""
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, projection))
