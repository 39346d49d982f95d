"""One module of the cascade: condition, code and the module before in; features and an image out.

Departures from CAM-Net (arXiv 2106.09015): small residual blocks in place of RRDBs; GroupNorm, or no normalization, in
place of InstanceNorm and weight normalization; a two-layer mapping network drawn at unit variance in place of eight
layers scaled down, so that the global code is heard from the start; styles that may differ by region; the head adds a
correction to the image of the module before, which may be one of lightness alone (`camnet.color`).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.channels import beside, convolved, layout_of, repeated_rows
from camnet.code import Code, Stage
from camnet.color import Color
from camnet.compiled import compiled
from camnet.condition import condition_channels
from configs.camnet import GeneratorConfig
from env.resize import pooled

SILU_GAIN = 1.68
"""What undoes the damping of SiLU: 1 / sqrt(E[silu(x)^2]) for standard normal x."""


class Block(nn.Module):
    """Residual block whose features are scaled and shifted by the mapped style (FiLM), region by region."""

    def __init__(self, width: int, mapped: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width) if norm else nn.Identity()
        self.film = nn.Linear(mapped, 2 * width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.normal_(self.film.weight, std=0.5 * SILU_GAIN / mapped**0.5)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Float[Tensor, "n c r r"], mapped: Float[Tensor, "n g g m"]) -> Float[Tensor, "n c r r"]:
        """Add the block's correction to x."""
        film = self.film(mapped).movedim(-1, 1)
        if film.shape[-1] > 1:
            film = F.interpolate(film, x.shape[-1], mode="bilinear")
        scale, shift = film.chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm(x), 1 + scale)
        return x + self.conv2(F.silu(self.conv1(F.silu(h))))


def mapping(code: int, mapped: int) -> nn.Sequential:
    """The mapping network of a style.

    Drawn so that every layer has unit variance: a mapping that damps leaves the code unheard at the start, and a search
    among codes that change nothing finds nothing to learn from.
    """
    first, second = nn.Linear(code, mapped), nn.Linear(mapped, mapped)
    nn.init.normal_(first.weight, std=code**-0.5)
    nn.init.normal_(second.weight, std=SILU_GAIN * mapped**-0.5)
    for layer in (first, second):
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.SiLU(), second, nn.SiLU())


class CascadeModule(nn.Module):
    """One module: condition, code and the previous module's features in; features and an image out."""

    def __init__(self, config: GeneratorConfig, index: int) -> None:
        super().__init__()
        width, patch = config.widths[index], config.patch
        before = config.widths[index - 1] if index else 0
        mapped = 4 * config.global_code
        channels = 1 if config.colors_follow(index) else 3  # that its code decides: lightness, or red, green and blue
        self.patch = patch
        self.map = mapping(config.global_code, mapped)
        self.known, self.noise_channels = condition_channels(config) + width * config.context + 3, config.spatial_code
        self.entry = nn.Conv2d(self.known + self.noise_channels + before, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, mapped, config.norm) for _ in range(config.blocks))
        self.head = nn.Conv2d(width, channels * patch**2, 3, padding=1)
        self.color = Color(self.known, width, patch) if channels == 1 else None
        if patch > 1:
            alike_in_patches(self.head, patch)

    def forward(self, condition: Tensor, code: Code, before: Stage) -> Stage:
        """Refine the previous stage (already at this module's resolution) under condition and code."""
        image = self._fold(before.image)
        seen = beside([condition, image, code.noise, before.features], self._layout, condition.dtype)
        entered = self.entry(seen)
        return self._refine(entered, code.style, before.image, self._enter_color(condition, image))

    def enter(self, condition: Tensor, before: Stage) -> Stage:
        """The share of `forward` that no code enters; there may be k stages before for each condition."""
        image, weight = self._fold(before.image), self.entry.weight
        if self.noise_channels:
            parts = weight[:, : self.known], weight[:, self.known + self.noise_channels :]
            weight = torch.cat([part for part in parts if part.shape[1]], dim=1)
        entered = convolved(condition, [image, before.features], weight, self.entry.bias, self._layout)
        return Stage(entered, before.image, self._enter_color(condition, image))

    def refine(self, entered: Stage, codes: Code) -> Stage:
        """The rest of `forward`, under m codes for each of n images: (n * m) rows, image by image."""
        m = len(codes) // len(entered.image)
        h = repeated_rows(entered.features, m)
        if self.noise_channels:
            weight = self.entry.weight[:, self.known : self.known + self.noise_channels]
            h = h + F.conv2d(codes.noise, weight, padding=1)
        color = None if entered.for_color is None else repeated_rows(entered.for_color, m)
        return self._refine(h, codes.style, repeated_rows(entered.image, m), color)

    def compile_refinement(self) -> None:
        """Compile the part that takes the time: blocks and head."""
        self._refine = compiled(self._refine)  # type: ignore[method-assign]

    def _refine(self, features: Tensor, style: Tensor, image: Tensor, color: Tensor | None) -> Stage:
        """The part that hears the style: blocks and head."""
        mapped = self.map(style.movedim(1, -1))
        for block in self.blocks:
            features = block(features, mapped)
        correction = self.head(F.silu(features))
        if self.patch > 1:
            correction = F.pixel_shuffle(correction, self.patch)
        image = image + correction  # in float32, as the image is
        if self.color is not None:
            assert color is not None
            image = image + self.color(color, image.mean(dim=1, keepdim=True))
        return Stage(features, image)

    def _enter_color(self, condition: Tensor, image: Tensor) -> Tensor | None:
        """What enters the module's colors whatever its code, where these follow its lightness."""
        return None if self.color is None else self.color.enter(condition, image, self._layout)

    @property
    def _layout(self) -> torch.memory_format:
        """That of the weights."""
        return layout_of(self.entry.weight)

    def _fold(self, image: Tensor) -> Tensor:
        """The image at the resolution of the features."""
        return pooled(image, image.shape[-1] // self.patch) if self.patch > 1 else image


@torch.no_grad()
def alike_in_patches(head: nn.Conv2d, patch: int) -> None:
    """Let all pixels of a patch begin alike (ICNR, Aitken et al. 2017): no checkerboard where a head draws patches."""
    for parameter in head.parameters():
        parameter.copy_(parameter[:: patch**2].repeat_interleave(patch**2, dim=0))
