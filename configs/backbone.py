"""What contrastive.export is told."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Write the encoder of a run as a plain torchvision or timm state dict, and as an ONNX model."""

    run: Positional[Path]
    """The run's folder, such as runs/digits-loss-slope-seed0. The newest checkpoint counts; the run may still go on."""
    out: Path = Path()
    """Folder for the files, made if missing. Empty: the run's."""
    onnx: bool = False
    """Write backbone.onnx, too; needs the extra `export` (pip install -e '.[export]')."""

    def __post_init__(self) -> None:
        """Put the files into the run's folder where no other place is given."""
        if self.out == Path():
            object.__setattr__(self, "out", self.run)
