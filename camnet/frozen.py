"""The frozen decorruptor g: loaded once, never trained, never random by itself.

Codes are explicit; the same weights, input and codes give the same images. One image never influences another.
"""

import hashlib
import importlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from camnet.code import Candidates, Code
from camnet.decorruptor import Decorruptor, codes_per_image, weights_sha256
from camnet.degraded import Degraded
from camnet.fills import KINDS, Fill
from camnet.fit import history
from camnet.generator import Generator
from configs.camnet import GeneratorConfig
from configs.data import DataConfig
from configs.errors import UsageError
from configs.places import at_home
from configs.typed import typed
from training.atomic import explained, write_atomically
from training.seeding import seeded

SHIPPED = Path(__file__).parent / "weights"
PHOTOGRAPHS = {32: "cifar10", 64: "imagefolder", 96: "imagefolder96"}
"""Shipped weights for photographs, by their size in pixels."""
PRECISIONS = (torch.float32, torch.bfloat16)
HALVED = ("painter.", "colorist.")
"""Beginnings of the names of weights that files have in half precision."""


class FrozenGenerator(Decorruptor):
    """CAMNet as a fixed operator g(x̃, z).

    Promised on a CPU, and tested on the shipped weights (largest absolute difference, pixels in [0, 1]):

    - Equal weights, images, codes and batch give equal results, bit for bit.
    - The other images of the batch, and how many codes an image has, change nothing by more than 1e-5 (measured 9e-7).
      But in holes that are filled from exemplars rounding may decide between two that look alike: up to 0.1, RMS 1e-3
      (measured 0.02 and 1.4e-4; in most images not at all).
    - bfloat16 stays within 0.05 of float32, RMS 0.003 (measured 0.016 and 0.0012); what was kept is as exact. In holes
      that are filled from exemplars the RMS alone is promised (measured 0.0023; single pixels differ by 0.4). And where
      a learned prior finds two styles as good, rounding may decide between them, and then all colors differ (2 of 1,000
      restorations on CIFAR-10).

    Attributes:
        card: What the weights are: settings, training command, hash, hardware, time, figures.
        size: Side in pixels of the images it restores.
        tasks: What it was trained to restore; another task is refused.
        factors: How many of the downsampling factors `env.corruption.FACTORS` it can distinguish. A factor beyond them
            is restored as if nothing were known of it; `camnet.fit` refuses what lacks any that a policy uses.
    """

    consistent = True

    def __init__(self, generator: Generator, card: dict[str, Any]) -> None:
        """Freeze a generator: no gradient, evaluation mode."""
        self._generator = generator.eval().requires_grad_(False)
        config = generator.config
        self.size, self.tasks, self.factors = config.resolutions[-1], config.tasks, config.factors
        self._is_whole = [config.regions_of(k) == 1 for k in range(len(config.resolutions))]
        self._is_whole += [config.painter_regions == 1] if config.painter else []
        self._is_whole += [True] if config.colorist else []
        self.proposable = config.global_code * sum(self._is_whole)
        self.card = card

    def codes(self, n: int, random: torch.Generator) -> list[Code | Candidates]:
        """Draw n latent codes: a global and a spatial part for each module, several where a prior is to choose."""
        return self._generator.codes(n, random)

    @torch.no_grad()
    def restore(self, degraded: Degraded, codes: list[Code | Candidates]) -> Float[Tensor, "nk 3 h w"]:
        """Restore each image once for each of its codes; what was kept is kept exactly.

        Args:
            degraded: n degraded images.
            codes: k codes for each, image by image; what depends only on the image is computed once.

        Returns:
            Images in [0, 1], float32, free of gradient; a learner may keep them for its backward pass.

        Raises:
            ValueError: If the task is none that it was trained on, or the codes are no multiple of the images.
        """
        codes_per_image(len(codes[0]), len(degraded))
        return self._generator(degraded, codes)[-1]

    def with_proposal(self, codes: list[Code | Candidates], proposed: Float[Tensor, "m c"]) -> list[Code | Candidates]:
        """Replace the styles that hold for the whole image, coarse to fine, then painter's and colorist's.

        Where a prior was to choose, the proposal is the choice.
        """
        parts = iter(proposed[:, :, None, None].split(self._generator.config.global_code, dim=1))
        return [Code(next(parts), code.noise) if one else code for code, one in zip(codes, self._is_whole, strict=True)]

    @property
    def settings(self) -> GeneratorConfig:
        """Those of the network."""
        return self._generator.config

    def state_dict(self) -> dict[str, Tensor]:
        """The weights by name, for a training that begins with them."""
        return self._generator.state_dict()

    def sha256(self) -> str:
        """Hash of the weights as they lie in memory now; equal before and after a run, and for every precision."""
        return weights_sha256(self._generator)


def save(generator: Generator, path: Path, card: dict[str, Any]) -> None:
    """Write weights (safetensors) and, beside them, their card (JSON; paths become text).

    Those of `HALVED` are written in half precision, which moves restorations little (of the colorist by 1.1e-4).
    """
    state = {name: _on_disk(name, value.detach().cpu()).contiguous() for name, value in generator.state_dict().items()}
    blob = save_tensors(state)
    card = card | {"file_sha256": hashlib.sha256(blob).hexdigest(), "mask_polarity": "1 = hidden"}
    text = json.dumps(card, indent=2, default=_text_of_path) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, blob)
    write_atomically(path.with_suffix(".json"), text.encode())


def _on_disk(name: str, value: Tensor) -> Tensor:
    """A weight in the precision in which files have it."""
    return value.half() if name.startswith(HALVED) else value


def require_place(path: Path) -> None:
    """Refuse, before the work, a place where weights cannot be written, or must not be.

    Raises:
        UsageError: If they would replace shipped weights, or the file system refuses.
    """
    if path.is_file() and path.resolve().parent == SHIPPED.resolve():
        raise UsageError(
            f"--out {path}: these weights are shipped, and whatever names {path.stem} would silently get others. Write "
            f"to --out runs/{path.name}; a generator is named by its path as well"
        )
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def provenance_of(path: Path) -> object:
    """What the card of a file of weights tells of where they come from; None where there is none that can be read."""
    try:
        return json.loads(path.with_suffix(".json").read_text()).get("provenance")
    except (OSError, ValueError, AttributeError):
        return None


def load(
    name: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    compile: bool = False,
    flag: str = "--generator",
) -> FrozenGenerator:
    """Load shipped weights by name, or any by the path of their .safetensors file.

    Args:
        name: Name or path; the card lies beside the weights.
        device: Where to.
        dtype: Type of the convolutions, float32 or bfloat16; images, codes and weights stay in float32.
        compile: Compile it: slow to start, faster in long runs. Needs a C++ compiler.
        flag: What the name was given with, for messages.

    Raises:
        UsageError: If there are none, the file or its card is damaged, or it is not safetensors (a pickle is never
            opened: it can run code).
        ValueError: If `dtype` is another.
    """
    if dtype not in PRECISIONS:
        raise ValueError(f"the generator runs in float32 or bfloat16, not in {dtype}")
    path = _path_of(name, flag)
    config, card = _read_card(f"{flag} {name}", path.with_suffix(".json"))
    blob = path.read_bytes()
    if hashlib.sha256(blob).hexdigest() != card.get("file_sha256"):
        raise UsageError(
            f"{flag} {name}: {path} does not match the hash in its card: damaged or exchanged, or a training was ended "
            "between writing the two; the same command of camnet.train writes both again"
        )
    try:
        with seeded(0, "generator"):  # or what is built after it would depend on how its weights are first drawn
            generator = Generator(config)
        generator.load_state_dict(load_tensors(blob))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{flag} {name}: {path} does not hold these weights ({reason})") from error
    generator.to(device).prepare(dtype, compile)
    return FrozenGenerator(generator, card)


def resolve(name: str, data: DataConfig, flag: str = "--generator") -> str:
    """What --generator auto stands for: the digits' own weights, or those for photographs of the size; others stay.

    Raises:
        UsageError: If none are shipped for these images.
    """
    if name != "auto":
        return name
    shipped = "digits" if data.name == "digits" else PHOTOGRAPHS.get(data.size)
    if shipped is None:
        raise UsageError(
            f"{flag} auto: no generator is shipped for images of {data.size} pixels, only of "
            f"{', '.join(map(str, PHOTOGRAPHS))}: change --data.size; or train one with python -m camnet.train "
            f"--config configs/camnet_imagefolder.yaml, then {flag} PATH; or take a fill: {', '.join(KINDS)}"
        )
    return shipped


def find(
    name: str,
    data: DataConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    flag: str = "--generator",
) -> Decorruptor:
    """The decorruptor that --generator (of camnet.evaluate also --against) names.

    Args:
        name: auto (see `resolve`); a fill of `camnet.fills`; package.module:factory, one's own; else as for `load`.
        data: The images that it is for.
        device: Where it is to live.
        dtype: Type of CAMNet's convolutions (`load`).
        flag: What the name was given with, for messages.

    Raises:
        UsageError: If there is none of that name, or it does not load.
    """
    name = resolve(name, data, flag)
    for kind in KINDS:
        if name == kind:
            return Fill(kind, data.size)
    if ":" in name and not name.endswith(".safetensors"):
        return _made(name, device, flag)
    _path_of(name, flag, f", a fill ({', '.join(KINDS)}) or package.module:factory")
    return load(name, device, dtype, flag=flag)


def _made(name: str, device: torch.device, flag: str) -> Decorruptor:
    """Import a module and call its factory; what goes wrong inside the factory is shown as it is."""
    module, _, function = name.partition(":")
    try:
        factory: Callable[[torch.device], object] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{flag} {name}: cannot import {function} from {module} ({error}); is its folder on PYTHONPATH?"
        ) from error
    if not callable(factory):
        raise UsageError(f"{flag} {name}: {function} is no function that takes a device")
    made = factory(device)
    if not isinstance(made, Decorruptor):
        raise UsageError(
            f"{flag} {name} returned {type(made).__name__}, not a camnet.decorruptor.Decorruptor "
            "(docs/bring-your-own.md)"
        )
    return made


def _path_of(name: str, flag: str, others: str = "") -> Path:
    """The file of weights that a name or path means; `others` says what else might be meant."""
    path = at_home(Path(name)) if name.endswith(".safetensors") else SHIPPED / f"{name}.safetensors"
    if path.is_file():
        return path
    if Path(name).is_file():
        raise UsageError(
            f"{flag} {name}: not a .safetensors file; other files of weights are mostly pickles, which can run "
            "code when opened, and are refused"
        )
    shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors")))
    raise UsageError(
        f"{flag} {name}: no such weights; give a .safetensors file or the name of shipped ones "
        f"({shipped or 'none'}){others}"
    )


def _read_card(given: str, path: Path) -> tuple[GeneratorConfig, dict[str, Any]]:
    """The settings of the generator in a card, and the card; `given` is what named it, for the message."""
    try:
        card = json.loads(path.read_text())
        config = typed(GeneratorConfig, card["generator"])
        for link in history(card):
            names, splits = link.get("class_names", []), link.get("splits")
            if not (
                isinstance(link.get("data", {}), dict) and isinstance(names, list) and isinstance(splits or [], list)
            ):
                raise TypeError("it does not name the images that it was trained on")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{given}: the card {path} is missing or damaged ({error})") from error
    return config, card


def _text_of_path(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a card cannot hold a {type(value).__name__}")
