"""GradCache: embed a large batch with the memory of a chunk, at the price of a second forward pass.

Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup". Embed the chunks and
keep nothing but the embeddings; take the loss's gradient there, with all negatives; then embed chunk after chunk again
and take the gradient on to the weights. The result is the gradient of the whole batch, exactly, but for layers that
look at the batch: BatchNorm sees a chunk.

Departure: the second pass is `torch.utils.checkpoint`'s, which runs inside an ordinary `loss.backward()`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


def embed_in_chunks(network: nn.Module, x: Float[Tensor, "m c h w"], chunks: int) -> Float[Tensor, "m d"]:
    """Embed a batch chunk by chunk; activations are kept of one chunk at a time, in the backward pass too.

    Rows are k views of n images, view by view (k * n), and chunk c takes the rows c, c + chunks, ...: all views of an
    image fall into one chunk wherever `chunks` divides n, so that they share BatchNorm's statistics.

    Args:
        network: Maps images to embeddings. Its running statistics are moved once by each chunk. With gradients it must
            be in the same mode until the backward pass is over; its weights may be swapped (`functional_call`).
        x: Images, as the network takes them.
        chunks: How many, at least 1.

    Returns:
        The embeddings in the order of the rows.
    """
    parts = [_embed(network, x[c::chunks]) for c in range(chunks)]
    u = parts[0].new_empty(len(x), *parts[0].shape[1:])
    for c, part in enumerate(parts):
        u[c::chunks] = part
    return u


def _embed(network: nn.Module, x: Tensor) -> Tensor:
    """Embed one chunk, to be embedded again in the backward pass.

    What is replayed must be a pure function: it takes the weights as they are now, and moves copies of the buffers, of
    which only the first pass's are put into the network.
    """
    weights: dict[str, Tensor] = dict(network.named_parameters())
    buffers = dict(network.named_buffers())
    before = {name: buffer.clone() for name, buffer in buffers.items()}

    def embed(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        moved = {name: buffer.clone() for name, buffer in before.items()}
        return functional_call(network, (weights, moved), (x,)), moved

    u, moved = checkpoint(embed, x, use_reentrant=False)
    with torch.no_grad():
        for name, buffer in buffers.items():
            buffer.copy_(moved[name])
    return u
