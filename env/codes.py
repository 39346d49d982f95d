"""The law of codes that a policy proposes for the two views, in place of the generator's own random ones."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class CodeLaw:
    """Normal codes of unit variance around a proposed mean, one mean per view.

    The generator knows standard normal codes: bounded means keep the proposals among codes that it was trained on.

    Attributes:
        mean: One row per view.
    """

    mean: Float[Tensor, "n 2 c"]

    def sample(self, generator: torch.Generator) -> Float[Tensor, "n 2 c"]:
        """Draw both codes of each image; no gradient."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.mean.detach() + noise

    def mode(self) -> Float[Tensor, "n 2 c"]:
        """The means."""
        return self.mean.detach()

    def log_prob(self, code: Float[Tensor, "n 2 c"]) -> Float[Tensor, " n"]:
        """Log-density of both codes of each image, in nats; differentiable."""
        return -0.5 * ((code - self.mean).square() + math.log(2 * math.pi)).sum(dim=(1, 2))

    def entropy(self) -> Float[Tensor, " n"]:
        """What stands for the entropy in the bonus: minus the divergence KL(π, N(0, 1)) from the generator's own codes.

        The entropy itself is a constant; the divergence, half the squared length of the means, is what a bonus should
        hold down.
        """
        return -0.5 * self.mean.square().sum(dim=(1, 2))
