"""Nested state as two flat halves that need no pickle: named tensors, and an outline that JSON can hold."""

from typing import Any

import torch
from torch import Tensor


def split(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Take the tensors out of nested dicts, lists and tuples.

    Args:
        state: Dicts (keys str or int), lists and tuples of tensors and of str, int, float, bool, None.

    Returns:
        Dense copies of the tensors on the CPU, by their path joined with "/"; and the outline for `join`.

    Raises:
        TypeError: If the state holds anything else; names where.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _outline(state, "state", tensors)


def join(tensors: dict[str, Tensor], outline: Any) -> Any:
    """Undo `split`.

    Args:
        tensors: The named tensors.
        outline: The outline, as JSON returned it.

    Returns:
        The nested state; int keys and tuples come back as such.
    """
    if not isinstance(outline, dict):
        return outline
    ((kind, content),) = outline.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: join(tensors, value) for key, value in content}
    items = [join(tensors, value) for value in content]
    return tuple(items) if kind == "tuple" else items


def _outline(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # The number keeps names apart where a key itself contains a slash.
        name = place if place not in tensors else f"{place}#{len(tensors)}"
        # A copy of its own: safetensors refuses tensors that share memory or have gaps.
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"a checkpoint's keys must be str or int, got {key!r} in {place}")
        # Pairs, because JSON would turn int keys into texts.
        return {"dict": [[key, _outline(item, f"{place}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_outline(item, f"{place}/{index}", tensors) for index, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}, found at {place}")
