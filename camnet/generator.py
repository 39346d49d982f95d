"""The generator: the cascade of modules, and what finishes its work, a painter of holes and a colorist.

Both look at what the cascade restored. They work on those restorations alone that need it, and look once at what looks
the same in all restorations of an image.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from camnet.bilinear import MAPS, colors
from camnet.cascade import Cascade
from camnet.code import Candidates, Code, luck_of
from camnet.colorist import Colorist, Seen, with_lightness
from camnet.compiled import compiled
from camnet.degraded import Degraded, each
from camnet.exemplars import completed
from camnet.painter import Painter, Sketch, in_holes
from camnet.parts import in_parts
from camnet.taste import HIDDEN as TASTED
from configs.camnet import GeneratorConfig
from env.resize import enlarged
from env.rows import remade


class Generator(Cascade):
    """CAMNet: restores degraded images of the tasks it is configured for; one image for each code."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        self.colorist = Colorist(config.colorist, config.global_code) if config.colorist else None
        self.painter = Painter(config.painter, config.global_code) if config.painter else None

    def prepare(self, precision: torch.dtype, compile: bool = False) -> None:
        """Choose how to compute (`Cascade.prepare`); `see` of painter and colorist is compiled, too."""
        super().prepare(precision, compile)
        for part in (self.painter, self.colorist):
            if part and compile:
                part.see = compiled(part.see)  # type: ignore[assignment]

    def codes(self, n: int, generator: torch.Generator) -> list[Code | Candidates]:
        """Draw n codes for every module, coarse to fine, then for painter and colorist, where there are such.

        They are candidates where a prior, or taste, chooses once it sees the image.
        """
        codes = super().codes(n, generator)
        if self.painter:
            codes.append(self.painter_codes(n, generator))
        if self.colorist:
            codes.append(self._color_candidates(n, generator))
        return codes

    def painter_codes(self, n: int, generator: torch.Generator) -> Code:
        """Draw n codes of the painter: styles, and what decides between exemplars, where fills are made of such."""
        style, side = self.painter_styles(n, generator), self.config.resolutions[-1]
        if not self.config.exemplars:
            return Code(style, style[:, :0])
        return Code(style, torch.randn(n, 2, side, side, generator=generator, device=generator.device))

    def painter_styles(self, n: int, generator: torch.Generator) -> Float[Tensor, "n z g g"]:
        """Draw n styles of the painter."""
        length, regions = self.config.global_code, self.config.painter_regions
        return torch.randn(n, length, regions, regions, generator=generator, device=generator.device)

    def forward(
        self, degraded: Degraded, codes: list[Code | Candidates], exemplars: bool = True
    ) -> list[Float[Tensor, "n 3 _ _"]]:
        """Restore: the image of every module, the last one finished and consistent with what was kept.

        Args:
            degraded: n degraded images.
            codes: As in `Cascade.forward`; then k for each image of painter and colorist, of whose candidates taste
                chooses. Codes of the modules alone: painter and colorist are not run.
            exemplars: Whether fills are put together from exemplars, where the settings have such; a training, which
                needs the gradient of what was painted, does without.

        Returns:
            As `Cascade.forward`.

        Raises:
            ValueError: If there are more codes than what hears them, or for one of painter and colorist.
        """
        of_modules, of_finishers = codes[: len(self.levels)], codes[len(self.levels) :]
        fill = self.filled if exemplars else self.painted
        both = ((fill, self.painter), (self.recolored, self.colorist))
        finishers = [finished for finished, part in both if part]
        if of_finishers and len(of_finishers) != len(finishers):
            raise ValueError(
                f"{len(codes)} codes for {len(self.levels)} modules and {len(finishers)} that finish their work "
                "(painter, colorist): one each"
            )
        images = super().forward(degraded, of_modules)
        for finished, code in zip(finishers, of_finishers, strict=False):
            images[-1] = finished(degraded, images[-1], code)
        return images

    def filled(
        self, degraded: Degraded, restored: Float[Tensor, "nk 3 h w"], codes: Code | Candidates
    ) -> Float[Tensor, "nk 3 h w"]:
        """Fill the holes of restorations anew, in sight of what is visible in them; the rest stays.

        Args:
            degraded: n degraded images.
            restored: k restorations of each, image by image.
            codes: Of the painter, one for each restoration.
        """
        painted, turns = self.painted(degraded, restored, codes), self.config.exemplars
        if degraded.task != "mix" or not turns:
            return painted
        assert isinstance(codes, Code)
        hidden, luck = each(degraded, len(restored) // len(degraded)).hidden, codes.noise

        def complete(rows: Tensor | slice) -> Tensor:
            return completed(painted[rows], hidden[rows], luck[rows], turns)

        return remade(painted, hidden.flatten(1).any(dim=1), complete)

    def painted(
        self, degraded: Degraded, restored: Float[Tensor, "nk 3 h w"], codes: Code | Candidates
    ) -> Float[Tensor, "nk 3 h w"]:
        """As `filled`, by the painter alone, which a gradient reaches."""
        if degraded.task != "mix":
            return restored
        many = len(restored) // len(degraded)
        hidden, else_lost = each(degraded, many).hidden, degraded.planes().flatten(1).any(dim=1)
        first = _first_alike(~else_lost, many)

        def fill(rows: Tensor | slice) -> Tensor:
            seen, back = _looks(first, rows)
            sketch = self.sketch(restored[seen], hidden[seen]).select(back)
            return in_holes(self.filling(sketch, codes.select(rows)), restored[rows], hidden[rows])

        largest = max(MAPS, 3 * self.config.painter_regions**2)  # channels: maps, or images of the regions
        return _remade_in_parts(restored, hidden.flatten(1).any(dim=1), fill, largest * restored.shape[-1] ** 2)

    def sketch(self, image: Float[Tensor, "n 3 h h"], hidden: Float[Tensor, "n 1 h h"]) -> Sketch:
        """What the painter sees in images with holes."""
        assert self.painter is not None
        with self.autocast():
            return self.painter.see(image, hidden)

    def filling(self, sketch: Sketch, codes: Code | Candidates) -> Float[Tensor, "n 3 h h"]:
        """What the painter makes of it, in [0, 1]; it means something in the holes alone."""
        assert self.painter is not None
        assert isinstance(codes, Code)
        return sketch.painted(self.painter.fields(sketch, codes.style.unsqueeze(1))).squeeze(1).clamp(0, 1)

    def recolored(
        self, degraded: Degraded, restored: Float[Tensor, "nk 3 h w"], codes: Code | Candidates
    ) -> Float[Tensor, "nk 3 h w"]:
        """Color restorations anew whose images had lost all color, from their lightness; the others stay.

        Args:
            degraded: n degraded images.
            restored: k restorations of each, image by image.
            codes: Of the colorist, one for each restoration.
        """
        if degraded.task != "mix":
            return restored
        many, lightness = len(restored) // len(degraded), restored.mean(dim=1, keepdim=True)
        every, is_gray = each(degraded, many), degraded.planes()[:, 0].flatten() > 0
        else_lost = degraded.planes()[:, 1:].flatten(1).any(dim=1) | degraded.hidden.flatten(1).any(dim=1)
        first = _first_alike(~else_lost, many)

        def recolor(rows: Tensor | slice) -> Tensor:
            looked, back = _looks(first, rows)
            seen = self.seen(lightness[looked]).select(back)
            return self.consistent(every.select(rows), self.coloring(seen, lightness[rows], codes.select(rows)))

        side = restored.shape[-1]
        numbers = max(MAPS * (side // 2) ** 2, TASTED * self.config.schemes * (side // 8) ** 2)  # taste sees an eighth
        return _remade_in_parts(restored, is_gray.repeat_interleave(many), recolor, numbers)

    def seen(self, lightness: Float[Tensor, "n 1 h h"]) -> Seen:
        """What the colorist sees in lightness."""
        assert self.colorist is not None
        with self.autocast():
            return self.colorist.see(lightness)

    def coloring(
        self, seen: Seen, lightness: Float[Tensor, "n 1 h h"], codes: Code | Candidates
    ) -> Float[Tensor, "n 3 h h"]:
        """What the colorist makes of it; not in [0, 1] where a color is too strong for its lightness."""
        assert self.colorist is not None
        if isinstance(codes, Candidates):
            schemes = self.colorist.chosen(seen, codes, self.config.taste_temperature)
        else:
            schemes = self.colorist.schemes(seen.whole, codes.style.flatten(1).unsqueeze(1))
        return with_lightness(lightness, enlarged(colors(seen.maps, schemes).squeeze(1)))

    def _color_candidates(self, n: int, generator: torch.Generator) -> Candidates:
        """Draw n codes of the colorist."""
        shape = (n, self.config.schemes, self.config.global_code, 1, 1)
        styles = torch.randn(shape, generator=generator, device=generator.device)
        return Candidates(styles, styles[:, 0, :0], luck_of(styles, generator))


def _first_alike(alike: Bool[Tensor, " n"], many: int) -> Int[Tensor, " nk"]:
    """For each of many restorations of n images, the first that looks the same: itself where they are not alike."""
    own = torch.arange(len(alike) * many, device=alike.device)
    return torch.where(alike.repeat_interleave(many), own // many * many, own)


def _remade_in_parts(
    x: Tensor, needed: Bool[Tensor, " n"], remake: Callable[[Tensor | slice], Tensor], numbers: int
) -> Tensor:
    """As `remade`, of so many rows at once as suit the device; `numbers` are in the largest map of a row."""

    def remade_rows(rows: Tensor | slice) -> Tensor:
        def work(part: slice) -> Tensor:
            return remake(part if isinstance(rows, slice) else rows[part])

        count = len(x) if isinstance(rows, slice) else len(rows)
        return torch.cat(in_parts(work, count, 4 * numbers, x.device))

    return remade(x, needed, remade_rows)


def _looks(first: Int[Tensor, " nk"], rows: Tensor | slice) -> tuple[Tensor | slice, Tensor | slice]:
    """At which restorations to look for those at some rows, and where among them those of each row are.

    All rows (a slice): at each. To learn how many look the same, the host would have to wait for the device.
    """
    return (rows, rows) if isinstance(rows, slice) else first[rows].unique(return_inverse=True)
