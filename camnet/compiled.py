"""torch.compile for the functions in which a training of CAMNet spends its time."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
VERSIONS = 8
"""Compiled versions of a function that are kept, as many as torch by itself keeps: with and without gradient, of images
that need one and of others, of batches of several sizes."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function when it is first called. Slow to start; needs a C++ compiler."""
    # torch counts versions by code, not by object: what all modules run the same would share one module's limit.
    torch._dynamo.config.recompile_limit += VERSIONS
    return torch.compile(function)
