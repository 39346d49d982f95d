"""The generator: a cascade of modules, one resolution each, every one with its own code, condition and image head.

Source: Peng and Li, "CAM-Net" (arXiv 2106.09015): cascade, code and condition at every module, intermediate
supervision. Departures: small residual blocks in place of RRDBs; GroupNorm in place of InstanceNorm and weight
normalization; a two-layer mapping network, plainly initialized, in place of eight layers scaled down, so that the
global code is heard early; each head adds a correction to the image of the module before.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from configs.camnet import GeneratorConfig
from env.corruption import FACTORS, Corrupted, make_consistent

CONDITION_PLANES = 3 + 1 + 1 + len(FACTORS) - 1
"""Kept colors, hidden, decolorized, and one plane for each downsampling factor above 1."""


@dataclass(frozen=True)
class Code:
    """The latent code of one module.

    Attributes:
        everywhere: Global part, standard normal.
        here: Spatial part at the module's resolution, standard normal (zero channels where switched off).
    """

    everywhere: Float[Tensor, "n zg"]
    here: Float[Tensor, "n zs _ _"]

    def select(self, index: Tensor) -> "Code":
        """The codes at the given rows."""
        return Code(self.everywhere[index], self.here[index])

    def __len__(self) -> int:
        return len(self.everywhere)


@dataclass(frozen=True)
class Stage:
    """What one module leaves to the next: features and image at its resolution (both n, ., r, r)."""

    features: Tensor
    image: Tensor

    def select(self, index: Tensor) -> "Stage":
        """The rows at the given index."""
        return Stage(self.features[index], self.image[index])


class Block(nn.Module):
    """Residual block whose normalized features are scaled and shifted by the mapped code (FiLM)."""

    def __init__(self, width: int, mapped: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.film = nn.Linear(mapped, 2 * width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)  # blocks start near the identity
            self.film.weight.normal_(0, 0.5 / mapped**0.5)
            self.film.bias.zero_()

    def forward(self, x: Float[Tensor, "n c r r"], mapped: Float[Tensor, "n m"]) -> Float[Tensor, "n c r r"]:
        """Add the block's correction to x."""
        scale, shift = self.film(mapped)[:, :, None, None].chunk(2, dim=1)
        h = self.norm(x) * (1 + scale) + shift
        return x + self.conv2(F.silu(self.conv1(F.silu(h))))


class CascadeModule(nn.Module):
    """One module: condition, code and the previous module's features in; features and an image out."""

    def __init__(self, config: GeneratorConfig, index: int) -> None:
        super().__init__()
        width = config.widths[index]
        before = config.widths[index - 1] if index else 0
        mapped = 4 * config.global_code
        self.map = nn.Sequential(nn.Linear(config.global_code, mapped), nn.SiLU(), nn.Linear(mapped, mapped), nn.SiLU())
        self.entry = nn.Conv2d(CONDITION_PLANES + 3 + config.spatial_code + before, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, mapped) for _ in range(config.blocks))
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, condition: Tensor, code: Code, before: Stage) -> Stage:
        """Refine the previous stage (already at this module's resolution) under condition and code."""
        features = self.entry(torch.cat([condition, before.image, code.here, before.features], dim=1))
        mapped = self.map(code.everywhere)
        for block in self.blocks:
            features = block(features, mapped)
        return Stage(features, before.image + self.head(F.silu(features)))


class Generator(nn.Module):
    """CAMNet: restores any mix of hidden cells, downsampling and decolorization; one image for each code."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = nn.ModuleList(CascadeModule(config, k) for k in range(len(config.resolutions)))

    def draw(self, n: int, level: int, generator: torch.Generator) -> Code:
        """Draw n standard normal codes for one module."""
        r, device = self.config.resolutions[level], generator.device
        return Code(
            torch.randn(n, self.config.global_code, generator=generator, device=device),
            torch.randn(n, self.config.spatial_code, r, r, generator=generator, device=device),
        )

    def codes(self, n: int, generator: torch.Generator) -> list[Code]:
        """Draw n codes for every module, coarse to fine."""
        return [self.draw(n, level, generator) for level in range(len(self.levels))]

    def conditions(self, corrupted: Corrupted) -> list[Float[Tensor, "n p _ _"]]:
        """The condition planes at every module's resolution."""
        return [condition_at(corrupted, r) for r in self.config.resolutions]

    def start(self, condition: Float[Tensor, "n p r r"]) -> Stage:
        """What stands in for a module before the first: no features, the kept colors as the image."""
        return Stage(condition[:, :0], condition[:, :3])

    def step(self, level: int, condition: Tensor, code: Code, before: Stage) -> Stage:
        """Run one module; `before` is the stage of the module before it (or `start`)."""
        if level:
            before = Stage(_double(before.features), _double(before.image))
        return self.levels[level](condition, code, before)

    def forward(self, corrupted: Corrupted, codes: list[Code]) -> list[Float[Tensor, "n 3 _ _"]]:
        """Restore: the image of every module, the last one consistent with what was kept.

        Args:
            corrupted: n corrupted images with their planes.
            codes: n codes for each module.

        Returns:
            One image a module, coarse to fine; the last in [0, 1] and exact in the kept part.
        """
        conditions = self.conditions(corrupted)
        stage, images = self.start(conditions[0]), []
        for level, (condition, code) in enumerate(zip(conditions, codes, strict=True)):
            stage = self.step(level, condition, code, stage)
            images.append(stage.image)
        images[-1] = make_consistent(images[-1], corrupted)
        return images


def condition_at(corrupted: Corrupted, resolution: int) -> Float[Tensor, "n p r r"]:
    """Pool the corrupted image and its planes to a module's resolution.

    Kept colors are averaged over visible pixels alone, or the zeros of hidden ones would bleed into coarse modules.
    """
    kernel = corrupted.kept.shape[-1] // resolution
    hidden = F.avg_pool2d(corrupted.hidden, kernel)
    kept = F.avg_pool2d(corrupted.kept, kernel) / (1 - hidden).clamp(min=1e-6)
    action = corrupted.action
    flags = [action.decolorize] + [action.downsample == index for index in range(1, len(FACTORS))]
    planes = torch.stack(flags, dim=1).float()[:, :, None, None].expand(-1, -1, resolution, resolution)
    return torch.cat([kept, hidden, planes], dim=1)


def _double(x: Tensor) -> Tensor:
    """Upsample by two, nearest."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
