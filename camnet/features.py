"""Features that a distance can have beside its random ones: of a small classifier, or of LPIPS (VGG16).

Both are only ever added: by themselves, features of a classifier hardly see a color cast, and those of VGG16 are made
for images larger than a CAMNet's coarse modules. docs/camnet-distances.md says which to use when, and what they cost.
"""

import hashlib
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models import vgg16
from tqdm import tqdm

from camnet.distance import STAGES, Features, entering, stages_of, unit_length
from configs.errors import UsageError
from env.images import ImageSet
from training.descent import Descent
from training.origin import Source
from training.schedule import one_cycle
from training.seeding import generator_at, seeded

WIDTH = 32
BATCH = 128
EPOCHS = 3
LEAST_STEPS = 300
"""Steps on a set so small that three epochs are fewer."""
LEARNING_RATE = 3e-3
RECIPE = "docs/camnet-distances.md says how to make one"
LPIPS_PIXELS = 64
"""Smallest side in pixels for which the LPIPS distance is meant."""
TAPS = (3, 8, 15, 22, 29)
"""Where relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 stand in torchvision's VGG16."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of the color channels, as LPIPS normalizes images in [-1, 1]."""


class ClassifierFeatures(nn.Module):
    """Three stages of convolutions that have learned to tell the classes of a set apart; frozen.

    A state dict holds all of them: `ClassifierFeatures().load_state_dict(state)` is the same features bit for bit.

    Attributes:
        seconds: How long the training took (`train_classifier`).
        accuracy: Share of (up to 2,000) training images that it classified rightly in the end.
    """

    name = f"classifier-relu{WIDTH}"

    def __init__(self) -> None:
        """Make room for the filters; `load_state_dict` or `train_classifier` fills it."""
        super().__init__()
        widths = (3, *[WIDTH] * STAGES)
        # Not initialized: filters that are replaced anyway would move the global random numbers.
        self.filters = nn.ModuleList(skip_init(nn.Conv2d, a, b, 3, padding=1) for a, b in pairwise(widths))
        self.requires_grad_(False)
        self.seconds = self.accuracy = float("nan")

    def forward(self, x: Float[Tensor, "n 3 r r"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Unit-length feature vectors of each stage, at r, r / 2 and r / 4 (down to the 1 x 1 map of a tiny image)."""
        return stages_of(self.filters, x)


class Classifier(nn.Module):
    """What is trained: the same stages, each normalized over the batch, and a linear head on the four quadrants."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, *[WIDTH] * STAGES)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(WIDTH) for _ in range(STAGES))
        self.head = nn.Linear(4 * WIDTH, classes)

    def forward(self, x: Float[Tensor, "n 3 r r"]) -> Float[Tensor, "n classes"]:
        """Logits of the classes; r is a multiple of 8."""
        h = x
        for stage, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = F.relu(norm(conv(entering(h, stage))))
        # Pooled evenly: unlike the adaptive kind, that has one order of summation on a GPU, too.
        return self.head(F.avg_pool2d(h, h.shape[-1] // 2).flatten(1))

    def folded(self) -> ClassifierFeatures:
        """The stages with their normalization folded into the filters, without the head."""
        features = ClassifierFeatures()
        for own, conv, norm in zip(features.filters, self.convs, self.norms, strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            weight, bias = fuse_conv_bn_weights(
                conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            own.load_state_dict({"weight": weight, "bias": bias})
        return features.to(self.head.weight.device)


def train_classifier(images: ImageSet, classes: int, steps: int, seed: int) -> ClassifierFeatures:
    """Train a small classifier and keep its features.

    A function of its arguments: weights and batches come from the seed, the global random numbers stay as they were.
    The same images, seed, steps, device and number of threads give the same bits (tested on a CPU; on a GPU
    deterministic convolutions are asked for), so a resumed training may train it again. It reads the labels.

    Args:
        images: The training images; trained where they lie.
        classes: Number of classes; labels lie in [0, classes).
        steps: Gradient steps on batches of 128.
        seed: Draws weights and batches.

    Returns:
        Frozen features, with the seconds that they took and their accuracy.
    """
    start, device = time.perf_counter(), images.pixels.device
    with seeded(seed, "classifier"):
        classifier = Classifier(classes).to(device)
    descent = Descent(classifier, LEARNING_RATE, weight_decay=1e-4, clip=1.0)
    size = min(BATCH, len(images))
    order = torch.empty(0, dtype=torch.long, device=device)
    tf32 = torch.backends.cudnn.allow_tf32  # stays as it is
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
        for step in tqdm(range(steps), desc=f"training {ClassifierFeatures.name}", unit="step", leave=False):
            epoch, position = divmod(step, len(images) // size)
            if position == 0:
                random = generator_at(seed, epoch, "classifier", device)
                order = torch.randperm(len(images), generator=random, device=device)
            index = order[position * size : (position + 1) * size]
            loss = F.cross_entropy(classifier(images.images(index)), images.labels[index])
            descent.step(loss, one_cycle(step / steps))
        accuracy = _accuracy(classifier, images)
    features = classifier.folded()
    features.seconds, features.accuracy = time.perf_counter() - start, accuracy
    return features


class LpipsFeatures(nn.Module):
    """Features of VGG16 with the linear weights of LPIPS: their squared differences are the LPIPS distance; frozen.

    Source: Zhang et al. 2018 (arXiv 1801.03924), Eq. 1, version 0.1 with VGG16. A departure: the length of a feature
    vector v is sqrt(|v|² + 1e-3), as in the rest of the distance, where LPIPS has |v| + 1e-10, of which the gradient is
    not finite at zero.
    """

    name = "lpips-vgg16"
    shift: Tensor
    scale: Tensor

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        """Take over weights: `features.*` as torchvision names those of VGG16, and `lin0` to `lin4` (c,), not negative.

        Raises:
            ValueError: If a tensor is missing, of another shape than expected, or no weight.
        """
        super().__init__()
        with torch.device("meta"):  # neither memory nor random numbers for weights that are replaced
            self.features = vgg16(weights=None, init_weights=False).features[: TAPS[-1] + 1]
        state = self.features.state_dict()
        expected = {f"features.{name}": value.shape for name, value in state.items()}
        expected |= {f"lin{k}": (width,) for k, width in enumerate(self._widths())}
        _require(tensors, expected)
        self.features.load_state_dict({name: tensors[f"features.{name}"].float() for name in state}, assign=True)
        self.requires_grad_(False)
        for k in range(len(TAPS)):
            # Squared with the features' difference, a root becomes the weight itself.
            self.register_buffer(f"root{k}", tensors[f"lin{k}"].float().sqrt().view(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, x: Float[Tensor, "n 3 r r"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Weighted unit-length vectors of the five stages, r to r / 16; fewer stages below 16 pixels."""
        result: list[Tensor] = []
        h = (2 * x - 1 - self.shift) / self.scale
        for position, layer in enumerate(self.features):
            if isinstance(layer, nn.MaxPool2d) and h.shape[-1] == 1:
                break
            h = layer(h)
            if position in TAPS:
                result.append(unit_length(h) * getattr(self, f"root{len(result)}"))
        return result

    def _widths(self) -> list[int]:
        """Channels of the five stages."""
        return [self.features[position - 1].out_channels for position in TAPS]


def lpips_source(path: Path) -> Source:
    """The weights of LPIPS in a local file, as what a training is made of.

    Raises:
        UsageError: If there is no such file.
    """
    return Source(hashlib.sha256(_read_lpips(path)).hexdigest(), f"put the former file back as {path}")


def load_lpips(path: Path) -> LpipsFeatures:
    """Read LPIPS weights from a local safetensors file.

    Raises:
        UsageError: If there is none, it is not safetensors (a pickle is never opened: it can run code), or it does not
            hold these weights.
    """
    blob = _read_lpips(path)
    try:
        return LpipsFeatures(load_tensors(blob))
    except SafetensorError as error:
        raise UsageError(f"--lpips {path}: this is not a safetensors file ({error}); {RECIPE}") from error
    except ValueError as error:
        raise UsageError(f"--lpips {path}: {error}; {RECIPE}") from error


def _read_lpips(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"--lpips {path}: there is no such file; {RECIPE}")
    return path.read_bytes()


def added(kinds: Sequence[Literal["classifier", "lpips"]], images: ImageSet, seed: int, lpips: Path) -> list[Features]:
    """The features that a distance has beside the random ones.

    Args:
        kinds: Which, in order; named twice is named once.
        images: The training images; the features lie on their device.
        seed: Of the classifier.
        lpips: The file of "lpips".

    Raises:
        UsageError: If the file of LPIPS is not usable, or there is only one class.
    """
    return [
        _classifier(images, seed) if kind == "classifier" else _lpips(images, lpips) for kind in dict.fromkeys(kinds)
    ]


def _classifier(images: ImageSet, seed: int) -> Features:
    classes = int(images.labels.max()) + 1
    if classes < 2:
        raise UsageError("--features classifier: the images are all of one class; leave it out")
    steps = max(LEAST_STEPS, EPOCHS * len(images) // BATCH)
    features = train_classifier(images, classes, steps, seed)
    print(
        f"{features.name}: {steps} steps in {features.seconds:.0f} s, {features.accuracy:.1%} of the training images "
        "classified rightly. The distance has seen their labels, and so has whatever is trained by it",
        file=sys.stderr,
    )
    return features


def _lpips(images: ImageSet, path: Path) -> Features:
    if images.pixels.shape[-1] < LPIPS_PIXELS:
        print(
            f"--features lpips: LPIPS is meant for images of {LPIPS_PIXELS} pixels and more, these have "
            f"{images.pixels.shape[-1]}",
            file=sys.stderr,
        )
    return load_lpips(path).to(images.pixels.device)


def _require(tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError that names every tensor that is missing, of a wrong shape or, as a linear weight, no weight."""
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    mismatched = [
        f"{name} {tuple(tensors[name].shape)} in place of {tuple(shape)}"
        for name, shape in expected.items()
        if tensors[name].shape != shape
    ]
    if mismatched:
        raise ValueError(f"it holds tensors of other shapes: {', '.join(mismatched)}")
    unusable = [name for name in expected if not _is_usable(name, tensors[name])]
    if unusable:
        raise ValueError(f"not finite, or negative as a linear weight: {', '.join(unusable)}")


def _is_usable(name: str, tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all() and (tensor.min() >= 0 or not name.startswith("lin")))


@torch.no_grad()
def _accuracy(classifier: Classifier, images: ImageSet) -> float:
    """Share of up to 2,000 images, evenly spread, that are classified rightly; leaves the classifier evaluating."""
    classifier.eval()
    index = torch.linspace(0, len(images) - 1, min(len(images), 2000), device=images.labels.device).long()
    right = [classifier(images.images(some)).argmax(dim=1) == images.labels[some] for some in index.split(BATCH)]
    return torch.cat(right).float().mean().item()
