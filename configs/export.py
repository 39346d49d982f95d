"""What policy.export is told."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from configs.places import RUN


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a trained policy in forms that run without this project."""

    run: Positional[Path]
    """The run's folder, or its policy.safetensors with the card beside it."""
    out: Path = Path(RUN)
    """Folder for the files, made if missing. RUN is the folder in which the policy lies."""
    program: bool = True
    """Write policy.pt2, a program that PyTorch runs (torch.export)."""
    onnx: bool = True
    """Write policy.onnx; needs the extra `export` (pip install -e '.[export]')."""
