"""What CAMNet is trained and measured on: how images are degraded for each task."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from camnet.degraded import Degraded
from camnet.jpeg import compress
from camnet.layout import Layout, Palette, labels_of
from configs.camnet import GeneratorConfig, Task
from env.corruption import FACTORS, Action, Corrupted, corrupt
from env.distribution import fixed_rates

QUALITY = (2.0, 50.0)
"""Lowest and highest JPEG quality in training; drawn log-uniformly."""


@runtime_checkable
class Case(Protocol):
    """One row of a table: images, random numbers and maps of classes, where there are any, to degraded images."""

    def __call__(
        self, x: Float[Tensor, "n 3 h w"], random: torch.Generator, maps: UInt8[Tensor, "n h w"] | None = None
    ) -> Degraded:
        """Degrade images."""


class Tasks:
    """Degrades images for each task that a generator is trained on.

    Layouts are the maps that come with the images; where none do, those of the palette.
    """

    def __init__(self, config: GeneratorConfig, grids: tuple[int, ...], pure: float, palette: Palette | None) -> None:
        self.config, self.grids, self.pure, self.palette = config, grids, pure, palette

    def draw(
        self,
        task: Task,
        x: Float[Tensor, "n 3 h w"],
        random: torch.Generator,
        maps: UInt8[Tensor, "n h w"] | None = None,
    ) -> Degraded:
        """Degrade images as in training."""
        if task == "decompression":
            low, high = (torch.tensor(q).log() for q in QUALITY)
            share = torch.rand(len(x), generator=random, device=x.device)
            return compress(x, (low + share * (high - low)).exp())
        if task == "layout":
            return Layout(self._labels(x, maps), self.config.layout_classes)
        return corrupt(x, training_actions(len(x), self.grids, random, self.config.factors, self.pure))

    def holes(self, x: Float[Tensor, "n 3 h w"], random: torch.Generator) -> Corrupted:
        """Hide cells of images at a rate uniform in [0, 1], and nothing else of them."""
        whole = torch.zeros(len(x), dtype=torch.long, device=x.device)
        ratio = torch.rand(len(x), 1, 1, generator=random, device=x.device)
        return corrupt(x, Action(cells(ratio, self.grids, random), whole, whole.bool()))

    def cases(self) -> dict[str, Case]:
        """The named cases on which a generator is measured."""
        cases: dict[str, Case] = {}
        if "mix" in self.config.tasks:
            grid = self.grids[-1]
            cases |= {"inpainting 50 %": mix_case(grid, 0.5), "colorization": mix_case(grid, 0.0, 1.0)}
            for index in range(1, self.config.factors):
                cases[f"super-resolution x{FACTORS[index]}"] = mix_case(grid, factor=index)
            cases["inpainting 30 % + colorization"] = mix_case(grid, 0.3, 1.0)
        if "decompression" in self.config.tasks:
            cases |= {f"decompression q{q}": jpeg_case(q) for q in (5, 20)}
        if "layout" in self.config.tasks:
            cases["layout"] = lambda x, random, maps=None: self.draw("layout", x, random, maps)
        return cases

    def _labels(self, x: Float[Tensor, "n 3 h w"], maps: UInt8[Tensor, "n h w"] | None) -> Int[Tensor, "n h w"]:
        if maps is not None:
            return labels_of(maps)
        if self.palette is None:
            raise ValueError("images without maps of classes need a palette")
        return self.palette.layout_of(x)


def mix_case(grid: int, mask_ratio: float = 0.0, decolorize: float = 0.0, factor: int = 0) -> Case:
    """Every image alike: cells hidden at random at one rate, color deleted or not, one downsampling factor."""

    def case(x: Tensor, random: torch.Generator, maps: Tensor | None = None) -> Degraded:
        a = fixed_rates(len(x), grid, mask_ratio, decolorize, (0.0, 0.0), x.device).sample(random)
        return corrupt(x, Action(a.mask, torch.full_like(a.downsample, factor), a.decolorize))

    return case


def jpeg_case(quality: int) -> Case:
    """Every image compressed at one quality."""
    return lambda x, random, maps=None: compress(x, torch.full((len(x),), float(quality), device=x.device))


def training_actions(
    n: int, grids: tuple[int, ...], random: torch.Generator, factors: int = 3, pure: float = 0.0
) -> Action:
    """Draw the corruptions that CAMNet learns to restore: every mix that a policy may ask for.

    The mask ratio is uniform in [0, 1] for three images of four and zero for the rest, on a grid drawn for each image;
    half of the images lose their color; 40 % are downsampled, by all factors alike.

    Args:
        n: Images.
        grids: Grids of the masks; the mask returned has the last, of which the others are divisors.
        random: Draws.
        factors: How many of `FACTORS` are used.
        pure: Share of images that lose only one kind of thing: cells, color or detail.
    """
    device = random.device

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, device=device)

    ratio, masked = rand(n, 1, 1), rand(n, 1, 1) < 0.75
    mask = cells(ratio, grids, random)
    decolorize, draw = rand(n) < 0.5, rand(n)
    downsample = torch.zeros(n, dtype=torch.long, device=device)
    for j in range(factors - 1):
        downsample += draw > 0.6 + 0.4 * j / (factors - 1)
    if pure:
        single, kind = rand(n) < pure, torch.randint(3, (n,), generator=random, device=device)
        some = torch.randint(1, max(factors, 2), (n,), generator=random, device=device).clamp(max=factors - 1)
        masked = torch.where(single, kind == 0, masked.flatten()).view(-1, 1, 1)
        decolorize = torch.where(single, kind == 1, decolorize)
        downsample = torch.where(single, some * (kind == 2), downsample)
    return Action(mask & masked, downsample, decolorize)


def cells(ratio: Float[Tensor, "n 1 1"], grids: tuple[int, ...], random: torch.Generator) -> Bool[Tensor, "n g g"]:
    """Hide cells at each image's rate, on a grid drawn for each image; the mask returned has the last grid."""
    n, device = len(ratio), ratio.device
    which = torch.randint(len(grids), (n, 1, 1), generator=random, device=device) if len(grids) > 1 else 0
    mask = torch.zeros(n, grids[-1], grids[-1], dtype=torch.bool, device=device)
    for index, grid in enumerate(grids):
        spread = grids[-1] // grid
        hidden = torch.rand(n, grid, grid, generator=random, device=device) < ratio
        bits = hidden.repeat_interleave(spread, dim=1).repeat_interleave(spread, dim=2)
        mask = mask | (bits & (which == index))
    return mask
