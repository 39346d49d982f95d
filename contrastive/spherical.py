"""A linear classifier with one class for each training image, whose vectors lie on the unit sphere.

The note that this project started from asks, beside its contrastive loss: "What about a linear classifier? Projected
onto a unit sphere". Views are compared with one learned vector per image instead of with one another.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LOGITS = 2**22
"""How many logits exist at a time (16 MiB in float32)."""


class Spherical(nn.Module):
    """One class, and one vector w on the unit sphere, for each training image.

        ℓ_i = mean_a -log( exp(<u_ai, w_i> / τ) / Σ_j exp(<u_ai, w_j> / τ) ),  j: all images of the training split

    The normalizing is part of the function, so no optimizer can leave the sphere. Classes are compared in chunks that
    the backward pass makes again: memory is linear in the images and in the views.

    Source: the project's note; instance discrimination with a parametric softmax is Dosovitskiy et al. 2014
    (Exemplar-CNN), on the sphere the baseline of Wu et al. 2018.

    Args:
        images: How many images there are to tell apart.
        dimension: Length of the views' vectors.
        temperature: τ > 0.
    """

    def __init__(self, images: int, dimension: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        # Uniform on the sphere; from torch's global random numbers, as modules do.
        self.weight = nn.Parameter(F.normalize(torch.randn(images, dimension), dim=1))

    def forward(self, u: Float[Tensor, "k n d"], rows: Int[Tensor, " n"], logits: int = LOGITS) -> Float[Tensor, " n"]:
        """Compute each image's loss.

        Args:
            u: Unit vectors, k views of n images.
            rows: Which images they are.
            logits: How many logits may exist at a time.

        Returns:
            Losses in nats, at least 0; log(images) on average before anything is learned and for large τ.
        """
        with torch.autocast(u.device.type, enabled=False):
            u = u.to(torch.promote_types(u.dtype, torch.float32))
            weight = self.weight.to(u.dtype)
            views = u.flatten(0, 1) / self.temperature
            chunks = weight.split(max(1, logits // len(views)))
            # A single chunk is kept for the backward pass; several are made again.
            log_sums = [
                _log_sum(views, chunk)
                if len(chunks) == 1
                else checkpoint(_log_sum, views, chunk, use_reentrant=False, preserve_rng_state=False)
                for chunk in chunks
            ]
            log_sum = torch.stack(log_sums).logsumexp(dim=0).view(u.shape[:2])
            right = (u * F.normalize(weight[rows], dim=1)).sum(dim=-1) / self.temperature
        return (log_sum - right).mean(dim=0)


def _log_sum(views: Float[Tensor, "m d"], weight: Float[Tensor, "c d"]) -> Float[Tensor, " m"]:
    """Each view's log Σ exp over some classes."""
    return (views @ F.normalize(weight, dim=1).T).logsumexp(dim=1)
