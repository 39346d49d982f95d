"""What camnet.train is told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from configs.checks import require_range
from configs.data import DataConfig


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The cascade: one module a resolution, coarse to fine."""

    resolutions: tuple[int, ...] = (4, 8, 16)
    """Side in pixels of each module's output; each twice the one before, the last the images' own."""
    widths: tuple[int, ...] = (48, 32, 16)
    """Channels of each module; multiples of 8."""
    blocks: int = 2
    """Residual blocks a module."""
    global_code: int = 16
    """Length of each module's global code (what holds everywhere: colors, style)."""
    spatial_code: int = 1
    """Channels of each module's spatial code (what differs from place to place); 0 for none."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if len(self.resolutions) != len(self.widths):
            raise ValueError(
                f"--generator.resolutions and --generator.widths need one entry a module each, "
                f"got {len(self.resolutions)} and {len(self.widths)}"
            )
        if any(fine != 2 * coarse for coarse, fine in zip(self.resolutions, self.resolutions[1:], strict=False)):
            raise ValueError(f"--generator.resolutions: each must be twice the one before, got {self.resolutions}")
        if any(width % 8 for width in self.widths):
            raise ValueError(f"--generator.widths must be multiples of 8 (GroupNorm), got {self.widths}")
        require_range("generator.blocks", self.blocks, 1, 64)
        require_range("generator.global-code", self.global_code, 1, 4096)
        require_range("generator.spatial-code", self.spatial_code, 0, 64)


@dataclass(frozen=True, kw_only=True)
class CamnetConfig:
    """Train CAMNet by conditional IMLE: for every image search the code that restores it best, then regress to it."""

    out: Path = Path("camnet/weights/digits.safetensors")
    """Where the trained weights go; the card with all figures goes beside it, the checkpoint under runs/."""
    seed: int = 0
    """Seed of weights, batches, corruptions and codes."""
    steps: int = 4000
    """Gradient steps. The same command resumes an interrupted training."""
    max_minutes: float = 0.0
    """End after this many minutes with weights exported; 0: no limit."""
    batch: int = 64
    """Images a gradient step."""
    reuse: int = 4
    """Gradient steps on each found set of codes: one search serves batch x reuse images."""
    candidates: tuple[int, ...] = (32, 8, 4)
    """Codes tried an image at each module (m). All ones: plain regression, the control."""
    grid: int = 4
    """Grid of the training masks; the policy's."""
    recolor: bool = False
    """Permute color channels and invert images while training: right where any color may occur, as on digits."""
    learning_rate: float = 2e-3
    """Peak step size of AdamW under a one-cycle schedule."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is exported."""
    pixel_weight: float = 1.0
    """Weight of the pixel L1 term beside the perceptual features in the distance."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU where there is one."""
    data: DataConfig = field(default_factory=DataConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)

    def __post_init__(self) -> None:
        """Check the bounds and the parts against one another."""
        if self.out.suffix != ".safetensors":
            raise ValueError(f"--out must end in .safetensors, got {self.out}")
        if len(self.candidates) != len(self.generator.resolutions):
            raise ValueError(
                f"--candidates needs one count a module: {len(self.generator.resolutions)}, got {len(self.candidates)}"
            )
        if self.generator.resolutions[-1] != self.data.size:
            raise ValueError(
                f"--generator.resolutions must end at --data.size {self.data.size}, got {self.generator.resolutions}"
            )
        for count in self.candidates:
            require_range("candidates", count, 1, 1e5)
        require_range("steps", self.steps, 1, 1e9)
        require_range("batch", self.batch, 2, 1e6)
        require_range("reuse", self.reuse, 1, 1e4)
        require_range("ema", self.ema, 0, 0.999999)
        require_range("learning-rate", self.learning_rate, 0, 1)
        require_range("pixel-weight", self.pixel_weight, 0, 100)
        require_range("max-minutes", self.max_minutes, 0, 1e6)
