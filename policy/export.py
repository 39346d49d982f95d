"""Export of a trained policy: weights (safetensors) and a card (JSON), nothing that runs code when loaded.

`python -m policy.export runs/NAME` writes programs beside them that run without this project (`policy.portable`), each
compared with the policy before it is written.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from configs.errors import UsageError, as_program
from configs.export import ExportConfig
from configs.places import in_run
from configs.policy import PolicyConfig
from configs.reading import read
from policy import portable
from policy.build import LearnedPolicy, build
from policy.latent import LatentPolicy
from training.exported import Written, sha256, table, write
from training.onnx import INPUT, onnx_bytes, require_onnx, run_onnx
from training.provenance import provenance

WEIGHTS, CARD, PROGRAM, ONNX = "policy.safetensors", "policy.json", "policy.pt2", "policy.onnx"
FORMAT = 2
"""Raised when a card of this version could no longer be read."""
LARGEST_IMAGE = 1024
"""Pixels a side; a card that asks for more is taken for damaged before memory is spent on it."""


def export(network: LearnedPolicy, folder: Path, card: dict[str, Any], renew: bool = True) -> Path:
    """Write a policy and its card, read both back, and compare.

    Each file is written whole or not at all; weights first, so that an interruption in between leaves a pair
    that `load` refuses rather than one that lies.

    Args:
        network: The policy, on any device; unwrapped from any data-parallel shell.
        folder: Where `policy.safetensors` and `policy.json` go; made if missing. Programs that lie
            there stay if they are of the very same policy, and are removed if not.
        card: What to tell about it (run, data, reward, steps, results); anything JSON can hold, kept under `about`.
        renew: As for `training.exported.write`.

    Returns:
        The path of the weights.

    Raises:
        RuntimeError: If what was read back gives other probabilities.
        UsageError: If the weights are not finite, or the file system refuses.
    """
    network = copy.deepcopy(network).cpu()
    files = {WEIGHTS: Written(_weights(network))}
    write(folder, files, CARD, _card(network, card), {PROGRAM, ONNX}, renew)
    _compare(network, load(folder))
    return folder / WEIGHTS


def load(path: Path) -> LearnedPolicy:
    """Read an exported policy, on the CPU; neither unpickles anything nor draws random numbers.

    Args:
        path: The folder, or its `.safetensors` file with the card of the same name beside it.

    Raises:
        UsageError: If anything is missing, damaged, foreign, or does not belong together; names the reason.
    """
    weights_path, card_path = _pair(path)
    weights = _read(weights_path)
    state = _parse_weights(weights_path, weights)
    network = _from_card(card_path, sha256(weights), weights_path)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise UsageError(f"{weights_path} does not fit the architecture in {card_path.name}: {error}") from error
    return network


def programs(network: LearnedPolicy, config: ExportConfig) -> dict[str, Written]:
    """Make the programs that are asked for, and compare what is read back from each with the policy.

    Raises:
        RuntimeError: If one gives other probabilities.
        UsageError: If the policy cannot be traced, or ONNX is not installed.
    """
    if config.onnx:
        require_onnx()
    files: dict[str, Written] = {}
    if not (config.program or config.onnx):
        return files
    program = portable.trace(network)
    if config.program:
        content = portable.as_pt2(program)
        files[PROGRAM] = Written(content, portable.parity(network, portable.run_pt2(content)))
    if config.onnx:
        content = onnx_bytes(program, list(portable.shapes(network)))
        files[ONNX] = Written(content, portable.parity(network, run_onnx(content)))
    return files


def _card(network: LearnedPolicy, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a stranger needs to know to use the files; `write` names these."""
    size = network.image_size
    return {
        "format": FORMAT,
        "policy": asdict(network.config),
        "image_size": size,
        "code_length": _code_length(network),
        "trained_on": about.get("data"),
        "reward": about.get("reward"),
        "input": f"n x 3 x {size} x {size}, RGB: policy.export.load takes floats in [0, 1], programs take bytes "
        f"(uint8, 0 to 255) named {INPUT}",
        "output": "probabilities: mask, downsample by 1, 2, 4, decolorize; code, where it is there: means of proposals",
        "output_shapes": portable.shapes(network),
        "mask_polarity": "1 = hidden",
        "license": "MIT",
        "versions": provenance()["versions"],
        "about": dict(about),
    }


def _weights(network: LearnedPolicy) -> bytes:
    """The weights as a safetensors file."""
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    for name, value in state.items():
        if not value.isfinite().all():
            raise UsageError(f"the policy's weights {name} hold NaN or infinity: export an earlier checkpoint")
    return safetensors.torch.save(state)


def _code_length(network: LearnedPolicy) -> int:
    return network.code_length if isinstance(network, LatentPolicy) else 0


def told(path: Path) -> dict[str, Any]:
    """What a policy's card tells of its run (`export`), by the run's folder or the weights.

    Raises:
        UsageError: If it is missing or damaged.
    """
    about = _parse_card(_pair(path)[1]).get("about")
    return about if isinstance(about, dict) else {}


def _pair(path: Path) -> tuple[Path, Path]:
    """Where weights and card lie, given their folder or the weights."""
    weights = path / WEIGHTS if path.is_dir() else path
    return weights, weights.with_suffix(".json")


def _read(path: Path) -> bytes:
    """The file's bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}. A run writes {WEIGHTS} and {CARD} into its folder when it ends"
        ) from error


def _parse_weights(path: Path, weights: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file; anything else is refused by name."""
    try:
        state = safetensors.torch.load(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is {_kind(weights)}: {error}") from error
    for name, value in state.items():
        if not value.isfinite().all():
            raise UsageError(f"{path}: the weights {name} hold NaN or infinity")
    return state


def _kind(content: bytes) -> str:
    """What a file is that is no safetensors file; asked only then, since such a file can begin like a pickle, too."""
    for magic, kind in ((b"\x80", "a pickle"), (b"PK", "a zip archive of pickles (torch.save's format)")):
        if content.startswith(magic):
            return (
                f"{kind}, which can run code when loaded: it is refused. "
                f"Export the policy again with policy.export, which writes {WEIGHTS} and {CARD}"
            )
    return "truncated, damaged or no safetensors file"


def _parse_card(path: Path) -> dict[str, Any]:
    """A card of this format."""
    try:
        card = json.loads(_read(path))
        version = card["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no policy card, or a damaged one: {error!r}") from error
    if version != FORMAT:
        raise UsageError(f"{path} is of format {version}; this version reads format {FORMAT}")
    return card


def _from_card(path: Path, sha256: str, weights_path: Path) -> LearnedPolicy:
    """An empty network as the card describes it, once the card is known to belong to the weights."""
    card = _parse_card(path)
    try:
        written_for = card["files"][WEIGHTS]["sha256"]
        settings, image_size, code_length = dict(card["policy"]), int(card["image_size"]), int(card["code_length"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no policy card, or a damaged one: {error!r}") from error
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
        with torch.device("meta"):  # only shapes: the weights come from the file
            return build(PolicyConfig(**settings), image_size, code_length)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"{path} describes no policy that can be built: {error}") from error


def _compare(before: LearnedPolicy, after: LearnedPolicy) -> None:
    """Raise unless both say the same of a fixed random batch."""
    images = portable.random_images(before, 8)
    with torch.no_grad():
        p, q = portable.Portable(before)(images), portable.Portable(after)(images)
    for name, value in p.items():
        if not torch.allclose(value, q[name], rtol=0, atol=1e-6):
            raise RuntimeError(f"the exported policy's {name} probabilities differ from the trained one's")


def _require_own(path: Path, weights: bytes) -> None:
    """Refuse to replace another policy by these weights."""
    if path.is_file() and path.read_bytes() != weights:
        raise UsageError(f"{path} holds another policy, which would be lost: choose another --out, or move it away")


def main(argv: list[str]) -> None:
    """Read a policy, make its programs, compare them, write all of it with its card, print what was written."""
    config = read(ExportConfig, argv, prog="python -m policy.export", description=str(ExportConfig.__doc__))
    network, source = load(config.run), _pair(config.run)[0]
    out = in_run(config.out, source.parent)
    about = told(config.run)
    weights = Written(_weights(network))
    if source.resolve() != (out / WEIGHTS).resolve():
        _require_own(out / WEIGHTS, weights.content)
    files = {WEIGHTS: weights, **programs(network, config)}
    write(out, files, CARD, _card(network, about), {PROGRAM, ONNX})
    print(f"{out}: {CARD} and\n{table(files, 'the policy itself')}")


if __name__ == "__main__":
    as_program("policy.export", main, "give the same command again")
