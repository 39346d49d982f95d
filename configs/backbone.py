"""What contrastive.export is told."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from configs.places import RUN, in_run


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Write the encoder of a run as a plain torchvision or timm state dict, and as an ONNX model."""

    run: Positional[Path]
    """The run's folder, such as runs/digits-loss-slope-seed0. The newest checkpoint counts; the run may still go on."""
    out: Path = Path(RUN)
    """Folder for the files, made if missing. RUN is the run's folder."""
    onnx: bool = False
    """Write backbone.onnx, too; needs the extra `export` (pip install -e '.[export]')."""

    def __post_init__(self) -> None:
        """Put the files into the run's folder where no other place is given."""
        object.__setattr__(self, "out", in_run(self.out, self.run))
