r"""Corruption: what an action deletes from an image, and how a restoration keeps the rest exactly.

A corruption is the orthogonal projection P = M D Y of an image x: Y averages the color channels (decolorize), D
averages blocks of s x s pixels (downsample), M zeroes hidden cells (mask). A block that a hidden cell touches is hidden
whole, so the three commute and P P = P. The corrupted image is P x; what it deleted is x - P x. A restoration x̂ is made
consistent by putting back what was kept: P x + t (x̂ - P x̂), where 0 <= t <= 1 shrinks the free part just enough to stay
in [0, 1]. That adds one constant per block, whose borders would show; so most of the way is gone before, smoothly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from configs.camnet import Task
from env.resize import enlarged, halved, repeated, smallest
from env.rows import Rows, remade

FACTORS = (1, 2, 4, 8, 16)
"""Downsampling factors an action chooses from by index; one that does not divide the image's side acts
as the largest that does. A policy chooses among the first three."""

SMOOTH_ROUNDS = 4
"""Corrections without borders between blocks before the one that is exact (`_approach`)."""


@dataclass(frozen=True)
class Action(Rows):
    """What to delete from each of n images.

    Attributes:
        mask: 1 = hidden; one bit per cell of a g x g grid.
        downsample: Index into `FACTORS`.
        decolorize: True deletes color.
        drawn: What the mask was made from, where its bits do not tell the policy what it drew.
        code: Numbers that the policy proposes for the codes of the two views, instead of random ones.
    """

    mask: Bool[Tensor, "n g g"]
    downsample: Int[Tensor, " n"]
    decolorize: Bool[Tensor, " n"]
    drawn: Tensor | None = None
    code: Float[Tensor, "n 2 c"] | None = None

    def __len__(self) -> int:
        return len(self.mask)


@dataclass(frozen=True)
class Corrupted(Rows):
    """A corrupted image and the planes that say what was deleted.

    Attributes:
        kept: P x, in [0, 1]; zero where hidden.
        hidden: 1 = hidden, for each pixel.
        action: What was deleted.
    """

    task: ClassVar[Task] = "mix"
    kept: Float[Tensor, "n 3 h w"]
    hidden: Float[Tensor, "n 1 h w"]
    action: Action

    def __len__(self) -> int:
        return len(self.kept)

    def planes(self) -> Float[Tensor, "n p 1 1"]:
        """What was deleted everywhere, one 0-or-1 plane each: color, then each downsampling factor above 1."""
        action = self.action
        flags = [action.decolorize] + [action.downsample == index for index in range(1, len(FACTORS))]
        return torch.stack(flags, dim=1).float()[:, :, None, None]

    def touched(self) -> Bool[Tensor, "n 1 h w"]:
        """The pixels from which something was deleted."""
        return self.hidden.bool() | (self.action.decolorize | (self.action.downsample > 0)).view(-1, 1, 1, 1)

    def make_consistent(self, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Put back exactly what was kept (`make_consistent`)."""
        return make_consistent(restored, self)

    def residual(self, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Largest absolute deviation of each image's kept part."""
        return (_project(restored, self.hidden, self.action) - self.kept).abs().amax(dim=(1, 2, 3))


def to_pixels(mask: Bool[Tensor, "n g g"], size: int) -> Float[Tensor, "n 1 h w"]:
    """Spread the bits of a grid over the pixels of its cells (1 = hidden)."""
    cell = size // mask.shape[-1]
    return mask.float().repeat_interleave(cell, dim=1).repeat_interleave(cell, dim=2).unsqueeze(1)


def corrupt(x: Float[Tensor, "n 3 h w"], action: Action) -> Corrupted:
    """Delete from each image what its action says: x̃ = P x.

    Hidden pixels, deleted color and deleted detail cannot influence the result.

    Args:
        x: Images in [0, 1], square.
        action: One corruption per image.

    Returns:
        The corrupted images with their planes. An action that deletes nothing returns the images bit for bit.

    Raises:
        ValueError: If the grid does not divide the images into cells of equal size.
    """
    size, grid = x.shape[-1], action.mask.shape[-1]
    if size % grid:
        raise ValueError(f"a {grid} x {grid} grid does not divide images of {size} x {size} pixels")
    hidden = to_pixels(action.mask, size)
    for index, factor in _factors(size):
        if (size // grid) % factor:  # a cell may hide a part of a block
            chosen = (action.downsample >= index).view(-1, 1, 1, 1)
            hidden = torch.where(chosen, to_pixels(F.max_pool2d(hidden, factor)[:, 0].bool(), size), hidden)
    return Corrupted(kept=_project(x, hidden, action), hidden=hidden, action=action)


def make_consistent(restored: Float[Tensor, "n 3 h w"], corrupted: Corrupted) -> Float[Tensor, "n 3 h w"]:
    """Put back exactly what the corruption kept: x̂ -> P x + t (x̂ - P x̂), once x̂ has come near by itself.

    Where detail was deleted, x̂ is first brought near smoothly (`_approach`), or the borders of the blocks would show.
    t is one factor per block (the largest in [0, 1] that keeps the block's pixels in [0, 1]), so P of the result is
    P x: bit for bit where only cells were hidden, to rounding where means over color or blocks were kept.
    Differentiable.

    Args:
        restored: x̂, any range.
        corrupted: What was kept.

    Returns:
        Images in [0, 1] whose kept part is that of the original.
    """
    hidden, action = corrupted.hidden, corrupted.action
    restored = _approached(restored, corrupted)
    free = restored - _means(restored, action)  # deleted where visible
    limit = torch.where(free > 0, 1 - corrupted.kept, corrupted.kept)
    # How far each value may go along its free part before it leaves [0, 1]; what does not move is no limit.
    room = torch.where(free.abs() > 1e-6, limit / free.abs().clamp(min=1e-6), 1.0)
    shrink = _blockwise(smallest, room.amin(dim=1, keepdim=True), action.downsample)
    visible = corrupted.kept + shrink.clamp(max=1) * free
    deletes = (action.decolorize | (action.downsample > 0)).view(-1, 1, 1, 1)
    visible = torch.where(deletes, visible.clamp(0, 1), corrupted.kept)  # the clamp only mends rounding
    return torch.where(hidden.bool(), restored.clamp(0, 1), visible)


def _approached(restored: Float[Tensor, "n 3 h w"], corrupted: Corrupted) -> Float[Tensor, "n 3 h w"]:
    """Bring images near whose detail was deleted (`_approach`); the others stay as they are."""
    if not _factors(restored.shape[-1]):
        return restored
    coarse = corrupted.action.downsample > 0
    return remade(restored, coarse, lambda rows: _approach(restored[rows], corrupted.select(rows)))


def _approach(restored: Float[Tensor, "n 3 h w"], corrupted: Corrupted) -> Float[Tensor, "n 3 h w"]:
    """Bring block means near what was kept, within [0, 1]: a few rounds of x̂ <- clamp(x̂ + B (P x - P x̂)).

    B enlarges one value per block bilinearly, by two again and again: no border between blocks in what it adds. And a
    block of which a few pixels leave [0, 1] loses these alone, not the contrast of the whole. What the rounds leave is
    mostly what alternates from block to block.
    """
    action, nearer = corrupted.action, restored
    gray = action.decolorize.view(-1, 1, 1, 1)
    # All at half resolution: a block is never smaller.
    kept, hidden = halved(corrupted.kept), corrupted.hidden[:, :, ::2, ::2].bool()
    for _ in range(SMOOTH_ROUNDS):
        missing = (kept - halved(nearer)).masked_fill(hidden, 0)
        missing = torch.where(gray, missing.mean(dim=1, keepdim=True), missing)
        missing = _blockwise(halved, missing, action.downsample - 1, spread=enlarged)
        nearer = (nearer + enlarged(missing)).clamp(0, 1)
    return nearer


def _project(x: Float[Tensor, "n 3 h w"], hidden: Float[Tensor, "n 1 h w"], action: Action) -> Float[Tensor, "n 3 h w"]:
    """P x = M D Y x. Selects, never multiplies, so that hidden values (NaN too) cannot leak."""
    return _means(x, action).masked_fill(hidden.bool(), 0)


def _means(x: Float[Tensor, "n 3 h w"], action: Action) -> Float[Tensor, "n 3 h w"]:
    """D Y x: gray where color was deleted, means of blocks where detail was."""
    gray = action.decolorize.view(-1, 1, 1, 1)
    return _blockwise(halved, torch.where(gray, x.mean(dim=1, keepdim=True), x), action.downsample)


def _blockwise(
    pool: Callable[[Tensor], Tensor],
    x: Float[Tensor, "n c h w"],
    downsample: Int[Tensor, " n"],
    spread: Callable[[Tensor], Tensor] = repeated,
) -> Float[Tensor, "n c h w"]:
    """Pool each image over blocks of its own factor and spread the values over the blocks.

    Pools by 2 again and again (pairwise sums: little rounding), then spreads from coarse to fine: each image's values
    wait at the resolution of its factor, and all are doubled together.
    """
    pooled = [x]
    for _ in _factors(x.shape[-1]):
        pooled.append(pool(pooled[-1]))
    result = pooled[-1]
    for index in reversed(range(len(pooled) - 1)):
        result = torch.where((downsample > index).view(-1, 1, 1, 1), spread(result), pooled[index])
    return result


def _factors(size: int) -> list[tuple[int, int]]:
    """Index and value of the factors above 1 that divide an image's side; each is twice the one before."""
    return [(index, factor) for index, factor in enumerate(FACTORS) if factor > 1 and size % factor == 0]
