"""π_θ: a small convolutional network that looks at an image and says how likely each corruption is."""

from jaxtyping import Float
from torch import Tensor, nn

from configs.policy import PolicyConfig
from env.distribution import CorruptionDistribution, log_rates, logit
from env.masks.budget import Budget
from env.masks.cells import Cells
from env.masks.law import LearnedMaskLaw
from env.masks.smooth import Smooth, logit_for
from policy.trunk import Head, Trunk


class PolicyNetwork(nn.Module):
    """Image in, distribution over corruptions out.

    The heads' weights start at zero and their biases at the configured rates, so a new policy treats all
    images alike. Rates nearer to 0 or 1 than about 0.0125 start there.

    Attributes:
        config: Its settings.
        image_size: Side of the square images it takes, in pixels.
    """

    def __init__(self, config: PolicyConfig, image_size: int) -> None:
        super().__init__()
        self.config, self.image_size = config, image_size
        self.trunk = Trunk(config.width, image_size, config.grid)
        features = self.trunk.features
        smooth = config.mask == "smooth"  # between the middles of cells, averaging makes the likelier outcome likelier
        start = logit_for(config.mask_ratio, config.grid, image_size) if smooth else logit(config.mask_ratio)
        self.mask_head = Head(features, [start])
        self.downsample_head = Head(features, log_rates(config.downsample))
        self.decolorize_head = Head(features, [logit(config.decolorize)])

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> CorruptionDistribution:
        """Give each image in [0, 1] its distribution over corruptions.

        Raises:
            ValueError: If the images are not of the size that the network was made for.
        """
        cells, whole = self.trunk(x)
        grid = self.config.grid
        return CorruptionDistribution(
            mask=self._law(self.mask_head(cells).view(len(x), grid, grid)),
            downsample_logits=self.downsample_head(whole),
            decolorize_logits=self.decolorize_head(whole).squeeze(1),
        )

    def _law(self, logits: Float[Tensor, "n g g"]) -> LearnedMaskLaw:
        """What the cells' logits mean."""
        match self.config.mask:
            case "cells":
                return Cells(logits)
            case "budget":
                return Budget(logits, self.config.hidden_cells)
            case "smooth":
                return Smooth(logits, self.image_size)
