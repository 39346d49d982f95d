"""Contrastive losses of k views per image, image by image; their means over the images are the papers' losses.

All are small formulas over three quantities of anchor a, a view of an image (in logits, that is divided by τ):

    p_ab    similarity with another view b of the same image, a positive; there are k - 1
    N_a     log-sum of the exponentials over all views of all other images, the negatives
    D_a     log-sum over positives and negatives together: log(Σ_b exp p_ab + exp N_a)

Unless said otherwise an image's loss is the mean over its k anchors and, inside, over their k - 1 positives, in nats.
Vectors are expected to have length 1. With one image there is nothing to be told apart: see each function.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from contrastive.negatives import log_negatives, own_similarities


def ntxent(u: Float[Tensor, "k n d"], temperature: float) -> Float[Tensor, " n"]:
    """Compute NT-Xent: how well each view finds each other view of its image among all others of the batch.

        ℓ = mean_ab (D_a - p_ab)

    Source: Chen et al. 2020 (SimCLR), Eq. 1, over all ordered pairs of views of an image. For more than two views this
    is Khosla et al. 2020 (SupCon), Eq. 2, L_out, where a class is an image; and Tian et al. 2023 (StableRep), the
    cross-entropy between the softmax over all other views and the uniform distribution over the positives. All
    three are one function.

    Args:
        u: Unit vectors, k >= 2 views of n images.
        temperature: τ > 0.

    Returns:
        Losses in nats, at least log(k - 1); for one image and k = 2, 0.

    Raises:
        ValueError: If there are fewer than two views.
    """
    p = _positives(u, temperature)
    return (_log_denominator(p, log_negatives(u, temperature)) - p).mean(dim=(0, 1))


def l_in(u: Float[Tensor, "k n d"], temperature: float) -> Float[Tensor, " n"]:
    """Compute L_in: how well each view finds any other view of its image.

        ℓ = mean_a (D_a - log mean_b exp p_ab)

    The gradient goes to the positives in proportion to exp p_ab: a positive that is already near takes most of it.
    With two views it is NT-Xent.

    Source: Khosla et al. 2020 (SupCon), Eq. 3.

    Args:
        u: Unit vectors, k >= 2 views of n images.
        temperature: τ > 0.

    Returns:
        Losses in nats, at least log(k - 1).

    Raises:
        ValueError: If there are fewer than two views.
    """
    p = _positives(u, temperature)
    together = p.logsumexp(dim=0) - math.log(len(p))
    return (_log_denominator(p, log_negatives(u, temperature)) - together).mean(dim=0)


def paper(u: Float[Tensor, "k n d"], temperature: float) -> Float[Tensor, " n"]:
    """Compute the loss of the note that this project started from, as written there.

        ℓ_i = -log( Σ_{a,b=1..k} exp(s_ab / τ) / Z ),  Z: the same sum over all ordered pairs of views of the batch

    i = j is in both sums, so each view with itself, too, and k exp(1 / τ) of the numerator is constant. With two views
    and q = exp((s_12 - 1) / τ) the pull on the pair is q / (1 + q) of what it would be without these terms: half where
    the views agree, next to nothing where they do not. Like L_in it is the log of a sum over positives, so that with
    more views the nearest pair takes most of what is left. All images share one Z.

    Source: the project's note, where sim is left open; here it is cosine similarity over τ.

    Args:
        u: Unit vectors, k >= 2 views of n images.
        temperature: τ > 0.

    Returns:
        Losses in nats, above 0 and on average above log n, which images that are told apart approach; 2 log n if all
        vectors are equal, 0 for one image.

    Raises:
        ValueError: If there are fewer than two views.
    """
    _require_views(u)
    own = (own_similarities(u) / temperature).logsumexp(dim=(0, 1))
    log_z = torch.cat([own, log_negatives(u, temperature).flatten()]).logsumexp(dim=0)
    return log_z - own


def sincere(u: Float[Tensor, "k n d"], temperature: float) -> Float[Tensor, " n"]:
    """Compute SINCERE: NT-Xent pair by pair, where an anchor's other positives are not in the denominator.

        ℓ = mean_ab (log(exp p_ab + exp N_a) - p_ab)

    So views of an image never push one another away. With two views it is NT-Xent.

    Source: Feeney and Hughes 2023, "SINCERE: Supervised Information Noise-Contrastive Estimation REvisited", as in
    the authors' code (tufts-ml/SupContrast, revised_losses.py).

    Args:
        u: Unit vectors, k >= 2 views of n images.
        temperature: τ > 0.

    Returns:
        Losses in nats, at least 0; 0 for one image.

    Raises:
        ValueError: If there are fewer than two views.
    """
    p = _positives(u, temperature)
    return (torch.logaddexp(p, log_negatives(u, temperature)) - p).mean(dim=(0, 1))


def dcl(u: Float[Tensor, "k n d"], temperature: float) -> Float[Tensor, " n"]:
    """Compute the decoupled contrastive loss: only negatives in the denominator.

        ℓ = mean_ab (N_a - p_ab)

    The pull on a pair no longer fades as it comes near; small batches suffer less.

    Source: Yeh et al. 2022, "Decoupled Contrastive Learning", the unweighted loss L_DC; all views of the anchor's image
    leave the denominator.

    Args:
        u: Unit vectors, k >= 2 views of n images.
        temperature: τ > 0.

    Returns:
        Losses in nats, of any sign; -inf for one image.

    Raises:
        ValueError: If there are fewer than two views.
    """
    p = _positives(u, temperature)
    return (log_negatives(u, temperature) - p).mean(dim=(0, 1))


def rince(u: Float[Tensor, "k n d"], temperature: float, q: float, weight: float) -> Float[Tensor, " n"]:
    """Compute robust InfoNCE: a pair that does not belong together, and stays far apart, has little say.

        ℓ = mean_ab [ -exp(q p_ab) / q + (λ (exp p_ab + exp N_a))^q / q ]

    Each positive stands alone with the anchor's negatives, as in SINCERE; for two views that is the authors' loss. For
    q -> 0 its gradient becomes SINCERE's (and the loss SINCERE + log λ). For larger q the gradient grows like
    exp(q p_ab): near pairs count most, and its size, which changes with q / τ, needs a learning rate of its own.

    Source: Chuang et al. 2022, "Robust Contrastive Learning against Noisy Views", as in the authors' code for SimCLR
    (chingyaoc/RINCE, simclr_module.py: pos + neg in the denominator).

    Args:
        u: Unit vectors, k >= 2 views of n images.
        temperature: τ > 0. exp(q / τ) has to be a number: q / τ below 88; so has its gradient's norm: below 40.
        q: In (0, 1]; 1 is the most tolerant.
        weight: λ > 0, of the denominator.

    Returns:
        Losses, dimensionless and of any sign.

    Raises:
        ValueError: If there are fewer than two views.
    """
    p = _positives(u, temperature)
    log_denominator = math.log(weight) + torch.logaddexp(p, log_negatives(u, temperature))
    return ((q * log_denominator).exp() - (q * p).exp()).mean(dim=(0, 1)) / q


def cosine_pull(u: Float[Tensor, "k n d"], temperature: float, weight: float) -> Float[Tensor, " n"]:
    """Compute NT-Xent of the first two views, and pull all further views to them.

        ℓ = NT-Xent(u_1, u_2) + w mean_{c>2, a∈{1,2}} |u_c - u_a|²,  |u_c - u_a|² = 2 - 2 <u_c, u_a>

    Further views have no negatives, so they can only be pulled; with two views there is nothing to pull, and the loss
    is NT-Xent.

    Source: Zeng et al. 2024 (CLSP), whose code (dewenzeng/clsp, train_simclr_clsp.py) pulls one synthetic third view
    to the first. Departures: to both of the first two, half as much each, so that their order does not matter; and
    several further views, averaged.

    Args:
        u: Unit vectors, k >= 2 views of n images.
        temperature: τ > 0, of NT-Xent.
        weight: w >= 0, of the pull; CLSP's is 1.

    Returns:
        Losses, at least 0.

    Raises:
        ValueError: If there are fewer than two views.
    """
    pair = ntxent(u[:2], temperature)
    if len(u) == 2:
        return pair
    with torch.autocast(u.device.type, enabled=False):
        u = u.to(pair.dtype)
        cosine = (u[:2].mean(dim=0) * u[2:]).sum(dim=-1)
    return pair + weight * (2 - 2 * cosine).mean(dim=0)


def _positives(u: Float[Tensor, "k n d"], temperature: float) -> Float[Tensor, "k-1 k n"]:
    """p: each view's similarities with the other views of its image, in logits."""
    _require_views(u)
    return own_similarities(u)[1:] / temperature


def _log_denominator(p: Float[Tensor, "positives k n"], log_negatives: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
    """D: log-sum over positives and negatives."""
    return torch.cat([p, log_negatives[None]]).logsumexp(dim=0)


def _require_views(u: Float[Tensor, "k n d"]) -> None:
    """Without a second view there is no positive."""
    if len(u) < 2:
        raise ValueError(f"A contrastive loss needs at least two views of each image, got {len(u)}.")
