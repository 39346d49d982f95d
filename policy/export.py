"""Export of a trained policy: weights (safetensors) and a card (JSON), nothing that runs code when loaded."""

import copy
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from configs.errors import UsageError
from configs.run import PolicyConfig
from policy.network import PolicyNetwork
from training.atomic import write_atomically

WEIGHTS, CARD = "policy.safetensors", "policy.json"
FORMAT = 1
"""Raised when a card of this version could no longer be read."""
LARGEST_IMAGE = 1024
"""Pixels a side; a card that asks for more is taken for damaged before memory is spent on it."""


def export(network: PolicyNetwork, folder: Path, card: dict[str, Any]) -> Path:
    """Write a policy and its card, read both back, and compare.

    Each file is written whole or not at all; weights first, so that an interruption in between leaves a pair
    that `load` refuses rather than one that lies.

    Args:
        network: The policy, on any device; unwrapped from any data-parallel shell.
        folder: Where `policy.safetensors` and `policy.json` go; made if missing.
        card: What to tell about it (run, steps, results); anything JSON can hold, kept under `about`.

    Returns:
        The path of the weights.

    Raises:
        RuntimeError: If what was read back gives other probabilities.
        UsageError: If the weights are not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    weights = safetensors.torch.save(state)
    record = {
        "format": FORMAT,
        "policy": asdict(network.config),
        "image_size": network.image_size,
        "input": "n x 3 x image_size x image_size, RGB in [0, 1]",
        "output": "probabilities: mask (n, grid, grid), downsample by 1, 2, 4 (n, 3), decolorize (n)",
        "mask_polarity": "1 = hidden",
        "sha256": hashlib.sha256(weights).hexdigest(),
        "about": card,
    }
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CARD, (json.dumps(record, indent=2) + "\n").encode())
    _compare(copy.deepcopy(network).cpu(), load(folder))
    return folder / WEIGHTS


def load(path: Path) -> PolicyNetwork:
    """Read an exported policy, on the CPU; neither unpickles anything nor draws random numbers.

    Args:
        path: The folder, or its `.safetensors` file with the card of the same name beside it.

    Raises:
        UsageError: If anything is missing, damaged, foreign, or does not belong together; names the reason.
    """
    weights_path = path / WEIGHTS if path.is_dir() else path
    weights = _read(weights_path)
    state = _parse_weights(weights_path, weights)
    card_path = weights_path.with_suffix(".json")
    network = _from_card(card_path, hashlib.sha256(weights).hexdigest(), weights_path)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise UsageError(f"{weights_path} does not fit the architecture in {card_path.name}: {error}") from error
    return network


def _read(path: Path) -> bytes:
    """The file's bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _parse_weights(path: Path, weights: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file; anything else is refused by name."""
    for magic, kind in ((b"\x80", "a pickle"), (b"PK", "a zip archive of pickles (torch.save's format)")):
        if weights.startswith(magic):
            raise UsageError(
                f"{path} is {kind}, which can run code when loaded: it is refused. "
                f"Export the policy again with policy.export, which writes {WEIGHTS} and {CARD}"
            )
    try:
        state = safetensors.torch.load(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is truncated, damaged or no safetensors file: {error}") from error
    for name, value in state.items():
        if not value.isfinite().all():
            raise UsageError(f"{path}: the weights {name} hold NaN or infinity")
    return state


def _from_card(path: Path, sha256: str, weights_path: Path) -> PolicyNetwork:
    """An empty network as the card describes it, once the card is known to belong to the weights."""
    try:
        card = json.loads(_read(path))
        written_for, version = card["sha256"], card["format"]
        settings, image_size = dict(card["policy"]), int(card["image_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no policy card, or a damaged one: {error!r}") from error
    if version != FORMAT:
        raise UsageError(f"{path} is of format {version}; this version reads format {FORMAT}")
    if written_for != sha256:
        raise UsageError(
            f"{weights_path} is not the file that {path.name} was written for (SHA-256 {sha256[:12]}..., "
            f"the card says {str(written_for)[:12]}...): "
            "one of the two was changed or comes from another export"
        )
    # JSON has no tuples, and the configuration is made of them.
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    try:
        if image_size > LARGEST_IMAGE:
            raise ValueError(f"image_size {image_size} is above {LARGEST_IMAGE}")
        with torch.device("meta"):  # shapes alone: the weights come from the file
            return PolicyNetwork(PolicyConfig(**settings), image_size)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} describes no policy that can be built: {error}") from error


def _compare(before: PolicyNetwork, after: PolicyNetwork) -> None:
    """Raise unless both give the same probabilities on a fixed random batch."""
    size = before.image_size
    images = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p, q = before(images).probabilities(), after(images).probabilities()
    for name, value in p.items():
        if not torch.allclose(value, q[name], rtol=0, atol=1e-6):
            raise RuntimeError(f"the exported policy's {name} probabilities differ from the trained one's")
