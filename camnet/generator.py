"""The generator: a cascade of modules, one resolution each, every one with its own code, condition and image head.

Source: Peng and Li, "CAM-Net" (arXiv 2106.09015): cascade, code and condition at every module, intermediate
supervision. Departures: small residual blocks in place of RRDBs; GroupNorm, or no normalization, in place of
InstanceNorm and weight normalization; a two-layer mapping network drawn at unit variance in place of eight layers
scaled down, so that the global code is heard from the start; styles that may differ by region; each head adds a
correction to the image of the module before; features of the condition, drawn without any code, beside the condition
itself; at the first modules a learned prior that chooses among codes (`camnet.prior`).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.code import Candidates, Code, Stage
from camnet.color import Color
from camnet.compiled import compiled
from camnet.condition import Context, condition_at, condition_channels, filled_at, kept_at
from camnet.degraded import Degraded
from camnet.prior import Prior
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
            with torch.no_grad():  # all pixels of a patch begin alike (ICNR, Aitken et al. 2017): no checkerboard
                for parameter in self.head.parameters():
                    parameter.copy_(parameter[:: patch**2].repeat_interleave(patch**2, dim=0))

    def forward(self, condition: Tensor, code: Code, before: Stage) -> Stage:
        """Refine the previous stage (already at this module's resolution) under condition and code."""
        image = self._fold(before.image)
        entered = self.entry(self._beside(condition, image, code.noise, before.features))
        return self._refine(entered, code.style, before.image, self._enter_color(condition, image))

    def enter(self, condition: Tensor, before: Stage) -> Stage:
        """The share of `forward` that no code enters."""
        weight = self.entry.weight
        if self.noise_channels:
            parts = weight[:, : self.known], weight[:, self.known + self.noise_channels :]
            weight = torch.cat([part for part in parts if part.shape[1]], dim=1)
        image = self._fold(before.image)
        seen = self._beside(condition, image, before.features)
        entered = F.conv2d(seen, weight, self.entry.bias, padding=1)
        return Stage(entered, before.image, self._enter_color(condition, image))

    def refine(self, entered: Stage, codes: Code) -> Stage:
        """The rest of `forward`, under m codes for each of n images: (n * m) rows, image by image."""
        m = len(codes) // len(entered.image)
        h = _each(entered.features, m)
        if self.noise_channels:
            weight = self.entry.weight[:, self.known : self.known + self.noise_channels]
            h = h + F.conv2d(codes.noise, weight, padding=1)
        color = None if entered.color is None else _each(entered.color, m)
        return self._refine(h, codes.style, _each(entered.image, m), color)

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
        if self.color is not None and color is not None:
            image = image + self.color(color, image.mean(dim=1, keepdim=True))
        return Stage(features, image)

    def _enter_color(self, condition: Tensor, image: Tensor) -> Tensor | None:
        """What enters the module's colors whatever its code, where these follow its lightness."""
        return None if self.color is None else self.color.enter(self._beside(condition, image))

    def _beside(self, condition: Tensor, *others: Tensor) -> Tensor:
        """All that enters, in the layout of the weights."""
        return beside([part.to(condition.dtype) for part in (condition, *others)], layout_of(self.entry.weight))

    def _fold(self, image: Tensor) -> Tensor:
        """The image at the resolution of the features."""
        return pooled(image, image.shape[-1] // self.patch) if self.patch > 1 else image


class Generator(nn.Module):
    """CAMNet: restores degraded images of the tasks it is configured for; one image for each code."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = nn.ModuleList(CascadeModule(config, k) for k in range(len(config.resolutions)))
        if config.context:
            self.context = Context(config)
        self.priors = nn.ModuleList(Prior(width, config.global_code) for width in config.widths[: len(config.prior)])
        self.precision = torch.float32
        """Floating-point type of the convolutions; images, codes and weights stay in float32."""

    def prepare(self, precision: torch.dtype, compile: bool = False) -> None:
        """Choose how to compute, once the weights lie where they are to stay.

        Args:
            precision: Type of the convolutions.
            compile: Compile the modules, what they are told and `consistent`.
        """
        self.precision = precision
        if next(self.parameters()).device.type == "cuda" or not self.config.norm:  # GroupNorm on a CPU: slower so
            self.to(memory_format=torch.channels_last)
        if compile:
            for level in range(len(self.levels)):
                self._module(level).compile_refinement()
            self.conditions = compiled(self.conditions)  # type: ignore[method-assign]
            self.consistent = compiled(self.consistent)  # type: ignore[method-assign]

    def autocast(self) -> torch.autocast:
        """Where networks compute in the generator's precision."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, self.precision, enabled=self.precision != torch.float32)

    def draw(self, n: int, level: int, generator: torch.Generator) -> Code:
        """Draw n standard normal codes for one module."""
        r, device = self.config.resolutions[level] // self.config.patch, generator.device
        g = self.config.regions_of(level)
        return Code(
            torch.randn(n, self.config.global_code, g, g, generator=generator, device=device),
            torch.randn(n, self.config.spatial_code, r, r, generator=generator, device=device),
        )

    def codes(self, n: int, generator: torch.Generator) -> list[Code | Candidates]:
        """Draw n codes for every module, coarse to fine; candidates where a prior chooses once it sees the image."""
        undecided = [self._candidates(n, level, m, generator) for level, m in enumerate(self.config.prior)]
        return [*undecided, *(self.draw(n, level, generator) for level in range(len(undecided), len(self.levels)))]

    def conditions(self, degraded: Degraded) -> list[Float[Tensor, "n p _ _"]]:
        """What every module is told of the image, at its resolution: condition planes, and context where it is on."""
        conditions = self._told(degraded, self.config.resolutions)
        if not self.config.context:
            return conditions
        with self.autocast():
            context = self.context(conditions[-1])
        return [beside([*both], layout_of(both[1])) for both in zip(conditions, context, strict=True)]

    def told(self, degraded: Degraded) -> Float[Tensor, "n p r r"]:
        """What the finest module is told of each image, but for the context."""
        return self._told(degraded, self.config.resolutions[-1:])[0]

    def start(self, degraded: Degraded) -> Stage:
        """What stands in for a module before the first: no features, the kept colors as the image."""
        r = self.config.resolutions[0]
        image = filled_at(degraded, r) if self.config.fill else kept_at(degraded, r)
        none = image.new_zeros(len(image), 0, r // self.config.patch, r // self.config.patch, dtype=self.precision)
        return Stage(none, image)

    def step(self, level: int, condition: Tensor, code: Code, before: Stage) -> Stage:
        """Run one module on n codes; `before` is the stage of the module before it (or `start`)."""
        with self.autocast():
            return self.levels[level](condition, code, self._enlarged(level, before))

    def enter(self, level: int, condition: Tensor, before: Stage) -> Stage:
        """The share of a step that is the same under every code."""
        with self.autocast():
            return self._module(level).enter(condition, self._enlarged(level, before))

    def refine(self, level: int, entered: Stage, codes: Code) -> Stage:
        """The rest of a step, under m codes for each of n images, given image by image; (n * m) rows out."""
        with self.autocast():
            return self._module(level).refine(entered, codes)

    def preferred(self, level: int, entered: Stage, candidates: Candidates) -> Code:
        """Draw from the learned prior of a module: one of the candidates' styles, region by region."""
        return candidates.drawn(self.priors[level](entered.features, candidates.styles))

    def forward(self, degraded: Degraded, codes: list[Code | Candidates]) -> list[Float[Tensor, "n 3 _ _"]]:
        """Restore: the image of every module, the last one consistent with what was kept.

        Args:
            degraded: n degraded images.
            codes: k codes for each image and module, image by image: n * k in all. Of candidates the prior chooses.

        Returns:
            One image per module, coarse to fine (n * k each); the last in [0, 1] and exact in the kept part.
        """
        conditions, stage, images = self.conditions(degraded), self.start(degraded), []
        many = len(codes[0]) // len(degraded)
        for level, (condition, code) in enumerate(zip(conditions, codes, strict=True)):
            known = _each(condition, many if level else 1)  # the first module is entered once an image
            if isinstance(code, Candidates):
                entered = self.enter(level, known, stage)
                stage = self.refine(level, entered, self.preferred(level, entered, code))
            elif level == 0 and many > 1:
                stage = self.refine(level, self.enter(level, known, stage), code)
            else:
                stage = self.step(level, known, code, stage)
            images.append(stage.image)
        images[-1] = self.consistent(degraded, images[-1])
        return images

    def consistent(self, degraded: Degraded, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Put back what is known, of m restorations of each degraded image, given image by image."""
        return each(degraded, len(restored) // len(degraded)).make_consistent(restored)

    def _candidates(self, n: int, level: int, m: int, generator: torch.Generator) -> Candidates:
        """Draw n codes of a module, with m styles each."""
        code, styles = self.draw(n, level, generator), self.draw(n * m, level, generator).style.unflatten(0, (n, m))
        chance = torch.rand(styles[:, :, 0].shape, generator=generator, device=styles.device)
        return Candidates(styles, code.noise, -(-chance.log()).log())

    def _module(self, level: int) -> CascadeModule:
        module = self.levels[level]
        assert isinstance(module, CascadeModule)
        return module

    def _enlarged(self, level: int, before: Stage) -> Stage:
        """The previous stage at this module's resolution."""
        mode = "bilinear" if self.config.smooth else "nearest"
        return Stage(_double(before.features, mode), _double(before.image, mode)) if level else before

    def _told(self, degraded: Degraded, resolutions: tuple[int, ...]) -> list[Float[Tensor, "n p _ _"]]:
        """The condition planes at some resolutions."""
        planes = self._task_planes(degraded)
        return [condition_at(degraded, planes, r, self.config.patch).to(self.precision) for r in resolutions]

    def _task_planes(self, degraded: Degraded) -> Tensor:
        """The planes of the task in hand among zeros for those of the others."""
        known = self.config.planes
        if degraded.task not in known:
            raise ValueError(f"this generator restores {', '.join(known)}, not {degraded.task}")
        own = degraded.planes()[:, : known[degraded.task]]
        parts = [
            own if task == degraded.task else own.new_zeros(len(own), count, *own.shape[2:])
            for task, count in known.items()
        ]
        return torch.cat(parts, dim=1)


def each(degraded: Degraded, many: int) -> Degraded:
    """Every degraded image `many` times in a row."""
    if many == 1:
        return degraded
    rows = torch.arange(len(degraded), device=degraded.kept.device)
    return degraded.select(rows.repeat_interleave(many))


def layout_of(x: Tensor) -> torch.memory_format:
    """How a tensor lies in memory: channels last or not."""
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def beside(parts: list[Tensor], layout: torch.memory_format) -> Tensor:
    """Channels side by side in a layout; `torch.cat` puts a mixture into the other one, and convolutions copy that."""
    if layout is torch.channels_last:
        return torch.cat([part.movedim(1, -1) for part in parts], dim=-1).movedim(-1, 1)
    return torch.cat(parts, dim=1)


def _each(x: Tensor, many: int) -> Tensor:
    """Every row `many` times in a row. What lies channels last stays so, which `repeat_interleave` forgets."""
    if many == 1:
        return x
    if layout_of(x) is torch.channels_last:
        return x.movedim(1, -1).repeat_interleave(many, dim=0).movedim(-1, 1)
    return x.repeat_interleave(many, dim=0)


def _double(x: Tensor, mode: str) -> Tensor:
    """Upsample by two."""
    return F.interpolate(x, scale_factor=2, mode=mode)
