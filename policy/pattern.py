"""AutoDropout's policy: one learned pattern of rectangles for all images."""

from jaxtyping import Float
from torch import Tensor, nn

from configs.policy import PolicyConfig
from env.distribution import CorruptionDistribution, log_rates, logit
from env.masks.pattern import PARAMETERS, Pattern
from policy.trunk import Rates


class PatternPolicy(nn.Module):
    """Rates that no image changes: a category for each parameter of the pattern, beside detail and color.

    Source: Pham and Le 2021, "AutoDropout" (there a Transformer writes one such pattern for each layer of a network).
    Departures: the pattern hides pixels, not activations; its parameters are independent, one table of logits each; it
    is paid at every step, not once per training.

    Attributes:
        config: Its settings.
        image_size: Side of the square images it takes, in pixels.
    """

    def __init__(self, config: PolicyConfig, image_size: int) -> None:
        super().__init__()
        self.config, self.image_size = config, image_size
        self.tables = nn.ModuleList(Rates([0.0] * parameter.count) for parameter in PARAMETERS)
        self.downsample_rates = Rates(log_rates(config.downsample))
        self.decolorize_rates = Rates([logit(config.decolorize)])

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> CorruptionDistribution:
        """Give all images the same distribution."""
        n = len(x)
        return CorruptionDistribution(
            mask=Pattern(tuple(table() for table in self.tables), n, self.image_size),
            downsample_logits=self.downsample_rates().expand(n, -1),
            decolorize_logits=self.decolorize_rates().expand(n),
        )
