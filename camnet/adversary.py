"""The generator's adversary: a discriminator in training, and what it makes of restorations of drawn codes.

IMLE asks restorations to be near the truth. What cannot be known is nearest while it is vague, and no fixed distance
holds all that photographs have in common; a discriminator learns it from the photographs. IMLE and it complete each
other: IMLE sees that every photograph can be had from some code, and looks at the codes that its search takes; the
discriminator looks at codes as they are drawn, and sees that none restores what no photograph is.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from camnet.discriminator import REACH, Discriminator, pair_loss, roughness
from camnet.generator import Generator
from configs.camnet import CamnetConfig
from training.checkpoint import load_into
from training.descent import Descent
from training.ranks import Ranks
from training.seeding import seeded

PENALTY = 0.0125
"""Weight of `roughness`, of photographs and restorations each."""
BETAS = (0.0, 0.99)
"""Of the discriminator's Adam: what it climbs moves, so it keeps no momentum (Karras et al., arXiv 1710.10196)."""


class Adversary:
    """A discriminator that learns, at the generator's step size, to tell its restorations from photographs."""

    def __init__(self, config: CamnetConfig, where: torch.device, ranks: Ranks) -> None:
        """Draw the discriminator.

        Args:
            config: Of the training.
            where: Its device.
            ranks: The processes that train together.
        """
        with seeded(config.seed, "discriminator"):
            self.discriminator = Discriminator(config.generator).to(where)
        self.descent = Descent(self.discriminator, config.learning_rate, clip=1.0, ranks=ranks, betas=BETAS)

    def contest(
        self,
        generator: Generator,
        condition: Float[Tensor, "n p r r"],
        truth: Float[Tensor, "n 3 h h"],
        made: Float[Tensor, "n 3 h h"],
        random: torch.Generator,
        share: float,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Let the discriminator learn from restorations with drawn codes, then ask it.

        Args:
            generator: What is judged; only its precision is asked for.
            condition: What it is told of the images (`Generator.told`).
            truth: The photographs.
            made: Its restorations, with gradient.
            random: Draws noise.
            share: Step size as a share of the learning rate.

        Returns:
            The generator's loss, with gradient, and what the discriminator's was before its step; both log 2 where
            nobody can tell.
        """
        pairs = torch.cat([truth, made.detach()])
        noise = REACH * torch.randn(pairs.shape, generator=random, device=pairs.device)
        scores, moved = self._scores(generator, torch.cat([pairs, pairs + noise]), condition).chunk(2)
        loss = pair_loss(*scores.chunk(2))
        self.descent.step(loss + 2 * PENALTY * roughness(scores, moved), share)
        self.discriminator.requires_grad_(False)
        real, fake = self._scores(generator, torch.cat([truth, made]), condition).chunk(2)
        self.discriminator.requires_grad_(True)
        return pair_loss(fake, real), loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"discriminator": self.discriminator.state_dict(), "descent": self.descent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            UsageError: If it holds another discriminator than this version's.
        """
        load_into(self.discriminator, state["discriminator"], "the checkpoint's discriminator")
        self.descent.load_state_dict(state["descent"])

    def _scores(self, generator: Generator, x: Tensor, condition: Tensor) -> Float[Tensor, "n q q"]:
        """Scores of images of which several have the same conditions, in the generator's precision."""
        with generator.autocast():
            return self.discriminator(x, condition.repeat(len(x) // len(condition), 1, 1, 1)).float()
