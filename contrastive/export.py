"""Export of a learned backbone: `python -m contrastive.export runs/NAME`.

`backbone.safetensors` is a plain state dict of torchvision or timm, `backbone.json` its card, which tells how to load
it; `backbone.onnx` is a program. Nothing in them runs code when loaded, and none needs this project, except that the
weights of the encoder small are loaded by its code.
"""

import copy
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from configs.backbone import BackboneConfig
from configs.errors import UsageError, as_program
from configs.reading import read
from contrastive import backbones, portable, trained
from contrastive.encoder import Learner
from training.exported import Written, standing, table, write
from training.onnx import INPUT, require_onnx
from training.provenance import provenance
from training.seeding import seeded

WEIGHTS, CARD, ONNX = "backbone.safetensors", "backbone.json", "backbone.onnx"
FORMAT = 1
"""Raised when a card of this version could no longer be read."""


def export(learner: Learner, folder: Path, about: dict[str, Any], onnx: bool = False, renew: bool = True) -> Path:
    """Write a learner's backbone and its card, each compared with the learner before it is written.

    Each file is written whole or not at all, the card last.

    Args:
        learner: On any device, in any mode; left as it is.
        folder: Where the files go; made if missing. An ONNX file of another backbone is removed.
        about: What to tell about it (run, data, steps, accuracies); anything JSON can hold.
        onnx: Write `backbone.onnx`, too.
        renew: As for `training.exported.write`.

    Returns:
        The path of the weights.

    Raises:
        RuntimeError: If what was read back gives other features.
        UsageError: If the weights are not finite, the backbone cannot be traced, ONNX is not installed, or the file
            system refuses.
    """
    write(folder, _files(learner, onnx), CARD, _card(learner, about), {ONNX}, renew)
    return folder / WEIGHTS


def _files(learner: Learner, onnx: bool) -> dict[str, Written]:
    if onnx:
        require_onnx()
    learner.encoder.train(learner.encoder.training)  # some of timm's keep what cannot be copied until they are told
    backbone = copy.deepcopy(learner.encoder).cpu().eval()
    files = {WEIGHTS: _weights(learner, backbone)}
    if onnx:
        content = portable.as_onnx(backbone, learner.image_size)
        files[ONNX] = Written(content, portable.parity(backbone, learner.image_size, portable.read_onnx(content)))
    return files


def _weights(learner: Learner, backbone: nn.Module) -> Written:
    """The weights as a safetensors file, of which a fresh backbone was made that gives the same features."""
    state = {name: value.contiguous() for name, value in backbone.state_dict().items()}
    for name, value in state.items():
        if not value.isfinite().all():
            raise UsageError(f"the backbone's weights {name} hold NaN or infinity: export an earlier checkpoint")
    content = safetensors.torch.save(state)
    with seeded(0, "export"):
        fresh = backbones.build(learner.config.encoder, learner.config.width, learner.image_size)
    fresh.load_state_dict(safetensors.torch.load(content))
    images = portable.random_images(learner.image_size, 8)
    with torch.no_grad():
        before, after = (portable.Portable(network.eval())(images) for network in (backbone, fresh))
    if not torch.equal(before, after):
        raise RuntimeError("the exported backbone's features differ from the learner's")
    return Written(content)


def _card(learner: Learner, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a stranger needs to know to use the files; `write` names these."""
    name, size, backbone = learner.config.encoder, learner.image_size, learner.encoder
    versions = provenance()["versions"] | (
        {"timm": metadata.version("timm")} if name.startswith(backbones.TIMM) else {}
    )
    return {
        "format": FORMAT,
        "encoder": name,
        "image_size": size,
        "any_size": not (name == backbones.SMALL or backbones.takes_one_size(backbone)),
        "stem": "cifar" if backbones.has_cifar_stem(backbone) else "its own",
        "features": learner.feature_length,
        "normalization": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "input": f"n x 3 x {size} x {size}, RGB floats in [0, 1]: {WEIGHTS} takes (x - mean) / std, "
        f"{ONNX} takes x, named {INPUT}, and gives {portable.OUTPUT}",
        "load": _how_to_load(learner, backbone),
        "versions": versions,
        "about": dict(about),
    }


def _how_to_load(learner: Learner, backbone: nn.Module) -> list[str]:
    """Lines of Python that end in features of `images` in [0, 1]."""
    if learner.config.encoder == backbones.SMALL:
        library, make = "contrastive.backbones", [f"small({learner.config.width}, {learner.image_size})"]
    elif learner.config.encoder.startswith(backbones.TIMM):
        library, make = "timm", [f"create_model({_arguments(learner)})"]
    else:
        library, make = "torchvision", [f"models.get_model({_arguments(learner)})", *_surgery(backbone)]
    make[0] = f"net = {library}.{make[0]}"
    read = f'net.load_state_dict(safetensors.torch.load_file("{WEIGHTS}"))'
    imports = [f"import {package}" for package in ("safetensors.torch", "torch", library)]
    return [*imports, *make, read, "features = net.eval()(2 * images - 1)"]


def _arguments(learner: Learner) -> str:
    """What the library's function was given."""
    name = learner.config.encoder
    given = backbones.options(name, learner.image_size).items()
    return ", ".join([f'"{name.removeprefix(backbones.TIMM)}"', *(f"{key}={value}" for key, value in given)])


def _surgery(backbone: nn.Module) -> list[str]:
    """What was done to torchvision's model."""
    stem = ["net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)", "net.maxpool = torch.nn.Identity()"]
    head = f'net.set_submodule("{backbones.head_name(backbone)}", torch.nn.Identity())'
    return [*(stem if backbones.has_cifar_stem(backbone) else []), head]


def _about(folder: Path, found: trained.Trained) -> dict[str, Any]:
    """What a checkpoint tells of its learner."""
    run = found.config
    return {
        "run": folder.resolve().name,
        "steps": found.step,
        "seed": run.seed,
        "data": run.data.told(),
        "policy": run.policy.name,
        "reward": run.reward.name,
        "loss": run.contrastive.loss,
    }


def main(argv: list[str]) -> None:
    """Read the run's learner, write its backbone, print what was written."""
    config = read(BackboneConfig, argv, prog="python -m contrastive.export", description=str(BackboneConfig.__doc__))
    found = trained.load(config.run, torch.device("cpu"))
    files = _files(found.learner, config.onnx)
    # A run that has ended left a card with its figures, which hold only for its last weights.
    ended = standing(config.run, CARD, {WEIGHTS: files[WEIGHTS]})
    about = _about(config.run, found) | ended.get("about", {})
    write(config.out, files, CARD, _card(found.learner, about), {ONNX})
    print(f"{config.out}: {CARD} and\n{table(files, 'none')}")


if __name__ == "__main__":
    as_program("contrastive.export", main, "give the same command again")
