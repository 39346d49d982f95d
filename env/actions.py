"""What an agent outside sees and does: the spaces of the Gymnasium faces, and an action as a row of integers.

A row holds the mask's bits, row by row (1 = hidden), then the index of the downsampling factor, then decolorize.
"""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Int
from torch import Tensor

from env.corruption import FACTORS, Action

CHOICES = 3
"""Downsampling factors that an agent chooses from: the first of `FACTORS`, 1, 2 and 4."""


def space(grid: int) -> spaces.MultiDiscrete:
    """The space of actions, as Stable-Baselines3's algorithms take it.

    Args:
        grid: Cells per side of the mask.
    """
    return spaces.MultiDiscrete([2] * grid**2 + [CHOICES, 2])


def observation_space(size: int) -> spaces.Box:
    """The space of images: RGB bytes, channels first.

    Args:
        size: Side in pixels.
    """
    return spaces.Box(0, 255, (3, size, size), np.uint8)


def to_vector(action: Action) -> Int[Tensor, "n d"]:
    """Write each action as a row of integers; what the mask was drawn from and proposed codes have no place in it."""
    tail = torch.stack([action.downsample, action.decolorize.long()], dim=1)
    return torch.cat([action.mask.flatten(1).long(), tail], dim=1)


def from_vector(vector: Int[Tensor, "n d"], grid: int) -> Action:
    """Read actions from rows of integers; the host does not wait for the device, so values are not checked.

    Args:
        vector: Elements of `space(grid)`.
        grid: Cells per side of the mask.

    Raises:
        ValueError: If the rows are of another length.
    """
    if vector.shape[1] != grid**2 + 2:
        raise ValueError(f"a {grid} x {grid} grid needs {grid**2 + 2} integers per action, got {vector.shape[1]}")
    return Action(
        mask=vector[:, :-2].bool().view(-1, grid, grid),
        downsample=vector[:, -2].long(),
        decolorize=vector[:, -1].bool(),
    )


def decoded(vector: Int[np.ndarray, " d"], grid: int) -> dict[str, Any]:
    """Say what one action deletes, for people.

    Args:
        vector: An element of `space(grid)`.
        grid: Cells per side of the mask.

    Returns:
        mask: The grid of bits, True = hidden. mask_ratio: Share of hidden cells. factor: By how much the side shrinks.
        decolorize: Whether color is deleted.
    """
    mask = vector[:-2].astype(bool).reshape(grid, grid)  # a copy
    return {
        "mask": mask,
        "mask_ratio": float(mask.mean()),
        "factor": FACTORS[vector[-2]],
        "decolorize": bool(vector[-1]),
    }
