"""Backbones: images in, flat features out. A small one for a CPU, and those of torchvision and timm by name.

All start from random weights; nothing is downloaded. Dropout and stochastic depth are switched off: they draw from
global random numbers, so that a resumed run would differ from an uncut one, and they would drown the small differences
that rewards measure.
"""

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from configs.errors import UsageError
from configs.settings import suggestion

SMALL, TIMM = "small", "timm:"
CIFAR_STEM_UP_TO = 64
"""Pixels a side up to which a ResNet keeps its first maps at full size."""
WITHOUT_SIDE_EXITS = {"aux_logits": False, "init_weights": False}
"""For the two models whose training otherwise returns the outputs of auxiliary classifiers, too."""


def build(name: str, width: int, image_size: int) -> nn.Module:
    """Make a backbone with random weights, from the global random numbers, in training mode.

    Args:
        name: small; a classifier of torchvision (`torchvision.models.list_models(module=torchvision.models)`); or
            timm:NAME (`timm.list_models()`).
        width: only for small: channels of its first stage.
        image_size: Pixels a side of the images that it will see; `feature_length` tells whether it takes them.

    Returns:
        Maps n x 3 x h x w to n x f. Apart from small, its state dict has the library's names, and no classifier.

    Raises:
        UsageError: If there is no such backbone (names the nearest), timm is needed and missing, or the backbone
            cannot be made for images of this size.
    """
    if name == SMALL:
        return small(width, image_size)
    network = _from_timm(name, image_size) if name.startswith(TIMM) else _from_torchvision(name, image_size)
    for part in network.modules():
        if isinstance(part, nn.Dropout | nn.Dropout2d | StochasticDepth):
            part.p = 0.0
        elif type(part).__name__ == "DropPath":  # timm's stochastic depth, without importing timm
            part.drop_prob = 0.0  # type: ignore[assignment]
        elif isinstance(getattr(part, "drop_rate", None), float):  # where timm's models call F.dropout
            part.drop_rate = 0.0  # type: ignore[assignment]
    return network


def feature_length(network: nn.Module, name: str, image_size: int) -> int:
    """The number of features of an image, found by a dry run in evaluation mode that leaves no trace.

    Args:
        network: Fresh from `build`; in training mode afterwards.
        name: Its name, for the message.
        image_size: Pixels a side.

    Raises:
        UsageError: If it cannot take such images, or does not end in flat features.
    """
    try:
        with torch.no_grad():
            where = next(network.parameters()).device
            h = network.eval()(torch.zeros(1, 3, image_size, image_size, device=where))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _unfit(name, image_size, error) from error
    network.train()
    if not isinstance(h, Tensor) or h.ndim != 2:
        raise UsageError(f"--contrastive.encoder {name} does not end in one vector per image; choose another")
    return h.shape[1]


def takes_one_size(network: nn.Module) -> bool:
    """Whether images must be of the size that the backbone was made for (its positions are embedded)."""
    card = getattr(network, "pretrained_cfg", {})  # timm hangs it on its models
    return isinstance(network, models.VisionTransformer) or bool(card.get("fixed_input_size"))


def has_cifar_stem(network: nn.Module) -> bool:
    """Whether `cifar_stem` was applied."""
    return isinstance(network, models.ResNet) and isinstance(network.maxpool, nn.Identity)


def head_name(network: nn.Module) -> str:
    """Where torchvision's classifier stood: the dotted name of the last layer that passes everything on."""
    return [name for name, part in network.named_modules() if isinstance(part, nn.Identity)][-1]


def options(name: str, image_size: int) -> dict[str, Any]:
    """What the library's function is given besides the model's name; all else is its default."""
    if name.startswith(TIMM):
        # A model of fixed size is made for the size of the images in place of its own.
        fixed = _timm().get_pretrained_cfg(name.removeprefix(TIMM)).fixed_input_size
        return {"pretrained": False, "num_classes": 0} | ({"img_size": image_size} if fixed else {})
    if name in ("googlenet", "inception_v3"):
        return {"weights": None, **WITHOUT_SIDE_EXITS}
    return {"weights": None} | ({"image_size": image_size} if name.startswith("vit_") else {})


def small(width: int, image_size: int) -> nn.Sequential:
    """Three convolutions, the last map kept whole.

    Not averaged, since a digit is told by where its strokes are (kNN 0.37 averaged, 0.91 whole, after 400 steps on
    decolorized pairs; docs/log.md).

    Args:
        width: Channels of the first stage; the others have twice as many.
        image_size: Pixels a side; the map has a quarter of them.
    """
    w, side = width, -(-image_size // 4)
    return nn.Sequential(*_stage(3, w, 1), *_stage(w, 2 * w, 2), *_stage(2 * w, 2 * w, 2), WholeMap(side))


class WholeMap(nn.Module):
    """Flatten maps into features of one length: the map of a smaller image is enlarged first, by repetition."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        """Return channels x side x side numbers per image."""
        if x.shape[-1] != self.side:
            if x.shape[-1] > self.side:
                raise ValueError(f"the encoder was made for maps of side {self.side}, got {x.shape[-1]}: larger images")
            x = F.interpolate(x, size=(self.side, self.side), mode="nearest")
        return x.flatten(1)


def cifar_stem(network: models.ResNet) -> None:
    """Let a ResNet see small images at full resolution: first a 3 x 3 convolution of stride 1, and no pooling.

    Source: Chen et al. 2020 (SimCLR), appendix B.9, for CIFAR-10's 32 pixels.
    Departure: up to 64 pixels. The convolution is drawn as torchvision draws a ResNet's (He et al. 2015, fan-out).
    """
    first = nn.Conv2d(3, network.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    network.conv1, network.maxpool = first, nn.Identity()


def _stage(before: int, after: int, stride: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Convolution, norm, ReLU; without the convolution's bias, which BatchNorm would cancel."""
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)


def _from_torchvision(name: str, image_size: int) -> nn.Module:
    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(
            f"--contrastive.encoder {name}: there is no such encoder{suggestion(name, [SMALL, *known])}. Give {SMALL}, "
            f"the name of a classifier of torchvision, such as resnet18, or {TIMM}NAME for one of timm"
        )
    try:
        network = models.get_model(name, **options(name, image_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _unfit(name, image_size, error) from error
    if isinstance(network, models.ResNet) and image_size <= CIFAR_STEM_UP_TO:
        cifar_stem(network)
    # The layer that tells classes apart is the last one with weights: linear, or (SqueezeNet) a convolution.
    heads = [dotted for dotted, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    network.set_submodule(heads[-1], nn.Identity())
    return network


def _from_timm(name: str, image_size: int) -> nn.Module:
    timm, model = _timm(), name.removeprefix(TIMM)
    if not timm.is_model(model):
        close = suggestion(model, timm.list_models()).replace("mean ", f"mean {TIMM}")
        raise UsageError(f"--contrastive.encoder {name}: timm has no such model{close}. timm.list_models() names them")
    try:
        return timm.create_model(model, **options(name, image_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _unfit(name, image_size, error) from error


def _timm() -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise UsageError(
            f"--contrastive.encoder {TIMM}NAME needs the package timm ({error}): pip install timm, "
            "or choose an encoder of torchvision, such as resnet18"
        ) from error


def _unfit(name: str, image_size: int, error: Exception) -> UsageError:
    reason = " ".join(str(error).split())[:200]
    return UsageError(
        f"--contrastive.encoder {name} cannot take images of {image_size} x {image_size} pixels ({reason}). "
        "Choose another encoder, such as resnet18, or larger images (--data.size)"
    )
