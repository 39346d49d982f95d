"""The frozen decorruptor g: loaded once, never trained, never random by itself.

Codes are explicit; the same weights, input and codes give the same images. One image never influences another.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from camnet.generator import Code, Generator
from configs.camnet import GeneratorConfig
from configs.errors import UsageError
from env.corruption import Corrupted
from training.atomic import write_atomically

SHIPPED = Path(__file__).parent / "weights"


class FrozenGenerator:
    """CAMNet as a fixed operator g(x̃, z).

    Attributes:
        card: What the weights are: settings, training command, hash, hardware, time, figures.
    """

    def __init__(self, generator: Generator, card: dict[str, Any]) -> None:
        """Freeze a generator: no gradient, evaluation mode."""
        self._generator = generator.eval().requires_grad_(False)
        self.card = card

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self._generator.parameters()).device

    @property
    def size(self) -> int:
        """Side in pixels of the images it restores."""
        return self._generator.config.resolutions[-1]

    def codes(self, n: int, random: torch.Generator) -> list[Code]:
        """Draw n latent codes (a global and a spatial part for each module)."""
        return self._generator.codes(n, random)

    @torch.no_grad()
    def restore(self, corrupted: Corrupted, codes: list[Code]) -> Float[Tensor, "n 3 h w"]:
        """Restore each image with its code; what was kept is kept exactly. In [0, 1], free of gradient."""
        return self._generator(corrupted, codes)[-1]

    def two_views(
        self, corrupted: Corrupted, random: torch.Generator
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]:
        """Decorrupt twice with independent codes: v1 = g(x̃, z1), v2 = g(x̃, z2), in one forward pass of 2n."""
        v1, v2 = self.restore(corrupted.repeated(2), self.codes(2 * len(corrupted), random)).chunk(2)
        return v1, v2

    def sha256(self) -> str:
        """Hash of the weights as they lie in memory now; equal before and after a run."""
        digest = hashlib.sha256()
        for name, value in sorted(self._generator.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def save(generator: Generator, path: Path, card: dict[str, Any]) -> None:
    """Write weights (safetensors) and, beside them, their card (JSON)."""
    state = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    blob = save_tensors(state)
    card = card | {"file_sha256": hashlib.sha256(blob).hexdigest(), "mask_polarity": "1 = hidden"}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, blob)
    write_atomically(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())


def load(name: str, device: torch.device) -> FrozenGenerator:
    """Load shipped weights by name, or any by the path of their .safetensors file.

    Raises:
        UsageError: If there are none, the file or its card is damaged, or it is not safetensors (a pickle is never
            opened: it can run code).
    """
    path = Path(name) if name.endswith(".safetensors") else SHIPPED / f"{name}.safetensors"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors")))
        raise UsageError(
            f"--generator {name}: no such weights; give a .safetensors file or one of: {shipped or 'none shipped'}"
        )
    blob = path.read_bytes()
    try:
        card = json.loads(path.with_suffix(".json").read_text())
        config = GeneratorConfig(**{k: _tupled(v) for k, v in card["generator"].items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"--generator {name}: the card {path.with_suffix('.json')} is missing or damaged ({error})"
        ) from error
    if hashlib.sha256(blob).hexdigest() != card.get("file_sha256"):
        raise UsageError(f"--generator {name}: {path} does not match the hash in its card: damaged or exchanged")
    try:
        generator = Generator(config)
        generator.load_state_dict(load_tensors(blob))
    except (SafetensorError, RuntimeError) as error:
        raise UsageError(f"--generator {name}: {path} does not hold these weights ({error})") from error
    return FrozenGenerator(generator.to(device), card)


def _tupled(value: Any) -> Any:
    """JSON has lists where the settings have tuples."""
    return tuple(value) if isinstance(value, list) else value
