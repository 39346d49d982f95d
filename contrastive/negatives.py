"""What contrastive losses are made of: similarities within an image, and one sum over all other images.

The sum runs over every pair of rows of the batch, so its matrix is what limits a batch. The matrix is symmetric: only
its tiles on and above the diagonal are made, one at a time, each serves its rows and its columns, and the backward pass
makes them again. Memory is linear in the rows, and half of the products are never taken. Exact: no sampling, no bound.

Symbols: u, unit vectors of k views of n images; s = <u, u'>, cosine similarity; τ, temperature.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

WHOLE = 384
"""Rows up to which the matrix is made in one piece and kept for the backward pass: faster there, and under 1 MiB."""
TILE_CPU, TILE_GPU = 256, 4096
"""Rows of a tile. On a CPU a tile stays in a core's cache; on a GPU few large ones spare launches (not measured)."""


def own_similarities(u: Float[Tensor, "k n d"]) -> Float[Tensor, "k k n"]:
    """Compare each view with all views of its own image.

        out[r, a, i] = <u_ai, u_bi>,  b = (a + r) mod k

    So out[0] is each view with itself, and out[1:] are its k - 1 positives.

    Args:
        u: Unit vectors, k views of n images.

    Returns:
        Cosine similarities in [-1, 1]; in float32 where the inputs are less precise.
    """
    u = _precise(u)
    return torch.stack([(u * u.roll(-r, dims=0)).sum(dim=-1) for r in range(len(u))])


def log_negatives(
    u: Float[Tensor, "k n d"], temperature: float, whole: int = WHOLE, tile: int | None = None
) -> Float[Tensor, "k n"]:
    """Compute for each view the log of its summed exponentials with all views of the other images.

        out[a, i] = log Σ_{j≠i} Σ_b exp(<u_ai, u_bj> / τ)

    Safe for vectors of any finite length and for small temperatures. Derivatives of first order are exact in backward
    and forward mode (torch.func.jvp) and under torch.func.vmap and jacrev; those of second order as well, in backward
    mode, but then all tiles are kept. Products are float32 as torch is told to take them: TF32 only where switched on.

    Args:
        u: Unit vectors, k views of n images.
        temperature: τ > 0.
        whole: Number of rows k n up to which there are no tiles.
        tile: About how many rows a tile has; the default suits the device.

    Returns:
        Log-sums in nats; in float32 where the inputs are less precise. -inf, and without gradient, for a single image,
        which has no negatives.
    """
    k, n, _ = u.shape
    if n == 1:
        return _precise(u).new_full((k, 1), -math.inf)
    with torch.autocast(u.device.type, enabled=False):
        # Image by image, so that what must be left out lies in small blocks on the diagonal. With the square root on
        # both sides the matrix of z zᵀ is that of s / τ, and symmetric to the last bit.
        z = _precise(u).transpose(0, 1).reshape(k * n, -1) / math.sqrt(temperature)
        if k * n <= whole:
            log_sums = _similarities(z, z, k).logsumexp(dim=1)
        else:
            tile = tile or (TILE_CPU if u.device.type == "cpu" else TILE_GPU)
            log_sums = _TiledLogSums.apply(z, k, max(k, tile - tile % k))
    return log_sums.view(n, k).T


class _TiledLogSums(torch.autograd.Function):
    """Row-wise log-sums of exp(z zᵀ) without the k x k blocks on the diagonal, tile by tile."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Float[Tensor, "rows d"], k: int, tile: int) -> Float[Tensor, " rows"]:
        """l_i = log Σ_j exp(s_ij), added up by tiles."""
        log_sums = [block.new_full((len(block),), -math.inf) for block in z.split(tile)]
        for i, j, s in _tiles(z.split(tile), k):
            log_sums[i] = torch.logaddexp(log_sums[i], s.logsumexp(dim=1))
            if i != j:
                log_sums[j] = torch.logaddexp(log_sums[j], s.logsumexp(dim=0))
        return torch.cat(log_sums)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
        """Keep what is linear in the rows, and nothing else."""
        z, ctx.k, ctx.tile = inputs
        ctx.save_for_backward(z, output)
        ctx.save_for_forward(z, output)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, None, None]:
        """With p_ij = exp(s_ij - l_i):  ∂/∂z_i = Σ_j (g_i p_ij + g_j p_ji) z_j."""
        blocks, log_sums, weights = _split(ctx, g[0])
        gradient = [torch.zeros_like(block) for block in blocks]
        with torch.autocast(blocks[0].device.type, enabled=False):
            for i, j, s in _tiles(blocks, ctx.k):
                w = (s - log_sums[i][:, None]).exp() * weights[i][:, None]
                if i != j:
                    w = w + (s - log_sums[j]).exp() * weights[j]
                gradient[i] = torch.addmm(gradient[i], w, blocks[j])
                gradient[j] = torch.addmm(gradient[j], w.T, blocks[i])
        return torch.cat(gradient), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        """dl_i = Σ_j p_ij ds_ij,  ds_ij = <dz_i, z_j> + <z_i, dz_j>."""
        assert tangents[0] is not None
        blocks, log_sums, moves = _split(ctx, tangents[0])
        change = [torch.zeros_like(log_sum) for log_sum in log_sums]
        with torch.autocast(blocks[0].device.type, enabled=False):
            for i, j, s in _tiles(blocks, ctx.k):
                ds = torch.addmm(moves[i] @ blocks[j].T, blocks[i], moves[j].T)
                change[i] = change[i] + ((s - log_sums[i][:, None]).exp() * ds).sum(dim=1)
                if i != j:
                    change[j] = change[j] + ((s - log_sums[j]).exp() * ds).sum(dim=0)
        return torch.cat(change)


def _split(ctx: Any, other: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    """The vectors, their log-sums and another tensor with as many rows, in blocks of a tile's rows."""
    return tuple(tensor.split(ctx.tile) for tensor in (*ctx.saved_tensors, other))


def _tiles(blocks: tuple[Tensor, ...], k: int) -> Iterator[tuple[int, int, Tensor]]:
    """All tiles on and above the diagonal: row block, column block, similarities."""
    for i in range(len(blocks)):
        for j in range(i, len(blocks)):
            yield i, j, _similarities(blocks[i], blocks[j], k if i == j else 0)


def _similarities(rows: Float[Tensor, "r d"], columns: Float[Tensor, "c d"], own: int) -> Float[Tensor, "r c"]:
    """Inner products; -inf in the blocks of `own` rows and columns on the diagonal (0: nowhere)."""
    s = rows @ columns.T
    if not own:
        return s
    image: Int[Tensor, " r"] = torch.arange(len(rows), device=rows.device) // own
    return s.masked_fill_(image[:, None] == image, -math.inf)


def _precise(u: Tensor) -> Tensor:
    """In at least float32: a small temperature magnifies the rounding."""
    return u.to(torch.promote_types(u.dtype, torch.float32))
