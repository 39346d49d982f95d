"""Which decorruptions make a pair: the learner itself chooses among candidates, without gradient."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from configs.views import ViewsConfig
from contrastive.contrast import Contrast
from contrastive.encoder import Learner


def least_similar(u: Float[Tensor, "k n d"]) -> Int[Tensor, "2 n"]:
    """Choose each image's two most different views: smallest cosine similarity; the first such pair on a tie.

    Args:
        u: Unit vectors of k views of n images, k at least 2.

    Returns:
        Which two views, the earlier first.
    """
    i, j = torch.triu_indices(len(u), len(u), offset=1, device=u.device)
    return _pair((u[i] * u[j]).sum(dim=-1).argmin(dim=0), i, j)


def highest_loss(
    u: Float[Tensor, "k n d"], loss: Callable[[Float[Tensor, "2 n d"]], Float[Tensor, " n"]]
) -> Int[Tensor, "2 n"]:
    """Choose each image's hardest pair of views.

    Source: Ferreira et al. 2025, "Beyond Random Augmentations: Pretraining with Hard Views" (HVP): the loss of every
    pair, with the other images in the same two views as negatives. Departure: the views are decorruptions.

    Args:
        u: Unit vectors of k views of n images, k at least 2.
        loss: Per-image loss of two views.

    Returns:
        Which two views, the earlier first.
    """
    i, j = torch.triu_indices(len(u), len(u), offset=1, device=u.device)
    # Pair by pair: the similarities of all pairs at once would be k² / 2 times those of the learner's own step.
    losses = torch.stack([loss(torch.stack([u[a], u[b]])) for a in range(len(u)) for b in range(a + 1, len(u))])
    return _pair(losses.argmax(dim=0), i, j)


def _pair(index: Int[Tensor, " n"], i: Int[Tensor, " p"], j: Int[Tensor, " p"]) -> Int[Tensor, "2 n"]:
    return torch.stack([i[index], j[index]])


class Choice:
    """Shows the learner all candidates, and leaves the pair that it finds most different, or hardest.

    The look leaves no trace: no gradient, and BatchNorm's running statistics stay as they are. BatchNorm normalizes by
    the candidates themselves, which is how the learner sees them in training and what makes smaller images comparable.

    Args:
        learner: Whose opinion is asked.
        contrast: Its loss, for `hard`.
        config: most-different or hard, and how precisely to look.
    """

    def __init__(self, learner: Learner, contrast: Contrast, config: ViewsConfig) -> None:
        self.learner, self.contrast, self.config = learner, contrast, config

    @torch.no_grad()
    def __call__(self, candidates: Float[Tensor, "k n 3 h w"], rows: Int[Tensor, " n"]) -> Float[Tensor, "2 n 3 h w"]:
        """Choose two views of each image.

        Args:
            candidates: k decorruptions of each image, in [0, 1].
            rows: Which training images they are.
        """
        u = self.look(candidates)
        if self.config.name == "most-different":
            chosen = least_similar(u)
        else:
            chosen = highest_loss(u, lambda pair: self.contrast(pair, rows))
        return candidates[chosen, torch.arange(candidates.shape[1], device=chosen.device)]

    @torch.no_grad()
    def look(self, candidates: Float[Tensor, "k n 3 h w"]) -> Float[Tensor, "k n d"]:
        """The candidates' unit vectors, as precisely as configured, in float32."""
        x = candidates.flatten(0, 1)
        if self.config.scoring_scale > 1:
            x = F.avg_pool2d(x, self.config.scoring_scale)
        state = dict(self.learner.named_parameters()) | {
            name: buffer.clone() for name, buffer in self.learner.named_buffers()
        }
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.config.scoring_bfloat16):
            u = functional_call(self.learner, state, (x,))
        return u.float().unflatten(0, candidates.shape[:2])
