"""The contrastive loss that a run was told to use."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from configs.contrastive import ContrastiveConfig
from configs.errors import UsageError
from contrastive import losses
from contrastive.spherical import Spherical

LARGEST_EXPONENT = 30
"""exp of more than 88 is no number in float32. The norm of a gradient sums squares, which have twice the exponent of
the loss; the rest is room for 1 / temperature and the sums."""


class Contrast(nn.Module):
    """Contrastive losses image by image, as the settings choose.

    Args:
        config: The learner's settings.
        images: How many images the training split has; only `spherical` needs to know, and only it has parameters.

    Raises:
        UsageError: If RINCE's exponential, or its gradient's norm, would leave the range of float32.
    """

    def __init__(self, config: ContrastiveConfig, images: int) -> None:
        super().__init__()
        self.config = config
        if config.loss == "spherical":
            self.spherical = Spherical(images, config.projection, config.temperature)
        if config.loss == "rince" and config.rince_q / config.temperature > LARGEST_EXPONENT:
            raise UsageError(
                f"--loss rince computes exp(q / temperature): --contrastive.rince-q {config.rince_q:g} over "
                f"--contrastive.temperature {config.temperature:g} must be at most {LARGEST_EXPONENT}; "
                "lower q or raise the temperature"
            )

    def forward(self, u: Float[Tensor, "k n d"], rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Compute each image's loss.

        Args:
            u: Unit vectors, k >= 2 views of n images.
            rows: Which images of the training split they are; only `spherical` asks.

        Returns:
            Losses, at least in float32; docs/losses.md has units and ranges.
        """
        c = self.config
        match c.loss:
            case "ntxent" | "supcon" | "stablerep":
                return losses.ntxent(u, c.temperature)
            case "paper":
                return losses.paper(u, c.temperature)
            case "l-in":
                return losses.l_in(u, c.temperature)
            case "sincere":
                return losses.sincere(u, c.temperature)
            case "dcl":
                return losses.dcl(u, c.temperature)
            case "rince":
                return losses.rince(u, c.temperature, c.rince_q, c.rince_lambda)
            case "cosine-pull":
                return losses.cosine_pull(u, c.temperature, c.pull)
            case "spherical":
                return self.spherical(u, rows)
