"""The cascade: modules of one resolution each, every one with its own code, condition and image head.

Source: Peng and Li, "CAM-Net" (arXiv 2106.09015): cascade, code and condition at every module, intermediate
supervision. Departures: features of the condition, drawn without any code, beside the condition itself; at the first
modules a learned prior that chooses among codes (`camnet.prior`); and those of a module (`camnet.module`).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camnet.channels import beside, layout_of
from camnet.code import Candidates, Code, Stage, luck_of
from camnet.compiled import compiled
from camnet.condition import Context, condition_at, filled_at, kept_at
from camnet.degraded import Degraded, each
from camnet.module import CascadeModule
from camnet.prior import Prior
from configs.camnet import GeneratorConfig


class Cascade(nn.Module):
    """The modules: restore degraded images of the tasks they are configured for; one image for each code."""

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
        return [beside([*both], layout_of(both[1]), self.precision) for both in zip(conditions, context, strict=True)]

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
        """Draw from the learned prior of a module, at its temperature: one of the candidates' styles, by region."""
        scores = self.priors[level](entered.features, candidates.styles)
        return candidates.drawn(scores / self.config.prior_temperature)

    def forward(self, degraded: Degraded, codes: list[Code | Candidates]) -> list[Float[Tensor, "n 3 _ _"]]:
        """Restore: the image of every module, the last one consistent with what was kept.

        Args:
            degraded: n degraded images.
            codes: k codes for each image and module, image by image: n * k in all. Of candidates the prior chooses.
                Codes of the first modules alone: only these are run.

        Returns:
            One image per code, coarse to fine (n * k each); that of the last module is in [0, 1] and exact in the kept
            part.
        """
        conditions, stage, images = self.conditions(degraded), self.start(degraded), []
        many = len(codes[0]) // len(degraded)
        for level, (condition, code) in enumerate(zip(conditions, codes, strict=False)):
            if many == 1 and isinstance(code, Code):
                stage = self.step(level, condition, code, stage)
            else:  # what depends on the image alone is computed once, whatever the number of its codes
                entered = self.enter(level, condition, stage)
                chosen = self.preferred(level, entered, code) if isinstance(code, Candidates) else code
                stage = self.refine(level, entered, chosen)
            images.append(stage.image)
        if len(images) == len(self.levels):
            images[-1] = self.consistent(degraded, images[-1])
        return images

    def consistent(self, degraded: Degraded, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Put back what is known, of m restorations of each degraded image, given image by image."""
        return each(degraded, len(restored) // len(degraded)).make_consistent(restored)

    def _candidates(self, n: int, level: int, m: int, generator: torch.Generator) -> Candidates:
        """Draw n codes of a module, with m styles each."""
        code, styles = self.draw(n, level, generator), self.draw(n * m, level, generator).style.unflatten(0, (n, m))
        return Candidates(styles, code.noise, luck_of(styles, generator))

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


def _double(x: Tensor, mode: str) -> Tensor:
    """Upsample by two."""
    return F.interpolate(x, scale_factor=2, mode=mode)
