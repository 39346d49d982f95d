"""What camnet.train is told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from configs.checks import require_range
from configs.data import DataConfig

Task = Literal["mix", "decompression", "layout"]
RECIPES = {
    32: "configs/camnet_cifar10.yaml",
    64: "configs/camnet_imagefolder.yaml",
    96: "configs/camnet_imagefolder96.yaml",
}
"""Settings for photographs that ship, by the size of the images in pixels."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The cascade: one module per resolution, coarse to fine."""

    resolutions: tuple[int, ...] = (4, 8, 16)
    """Side in pixels of each module's output; each twice the one before, the last the images' own."""
    widths: tuple[int, ...] = (48, 32, 16)
    """Channels of each module; with --generator.norm True multiples of 8."""
    blocks: int = 2
    """Residual blocks per module."""
    global_code: int = 16
    """Length of a style: the part of each module's code that scales and shifts its features."""
    regions: tuple[int, ...] = ()
    """Regions a side, for each module: every region has a style of its own, and training searches codes region by
    region. 1: one style for the whole image, which colors above all should have. Empty: 1 for all modules."""
    lightness_only: int = 0
    """How many of the modules, the finest ones, decide by their codes on lightness alone; their colors follow it. For
    photographs: where many regions choose colors one by one, restorations have splotches."""
    spatial_code: int = 1
    """Channels of each module's spatial code (what differs from place to place); 0 for none."""
    patch: Literal[1, 2] = 1
    """Side in pixels of the patches that a module works on: with 2 its features have half the resolution of its
    image, so it can be wider for the same time."""
    context: bool = False
    """Whether the modules also see features of the condition, which a network without codes draws from fine to coarse
    (once per image, however many codes are tried)."""
    norm: bool = True
    """Whether blocks begin with GroupNorm. Without it they take two thirds of the time on a CPU."""
    prior: tuple[int, ...] = ()
    """Learned prior: how many codes the first modules draw, to choose one of them as the search would; one entry for
    each module that has a prior. Empty: whatever is drawn is taken."""
    prior_temperature: float = 1.0
    """1: the prior chooses codes as often as the search would. Less: likely ones more often still, so that fewer
    restorations are in odd colors, and two of an image are more alike. Has no part in training the prior."""
    colorist: tuple[int, ...] = ()
    """Channels of a network that colors images which have lost all color, once their lightness is restored: at a half,
    a quarter, ... of the images' resolution, at least 3 of them. Its code, one for the whole image, chooses a scheme of
    colors for the things that it tells apart. Empty: their colors are those that the modules choose."""
    painter: tuple[int, ...] = ()
    """Channels of a network that fills holes in sight of the whole image, once its detail is restored, given as for
    --generator.colorist. Its code decides in what restorations differ there. Empty: holes are filled by the modules
    alone, place by place."""
    painter_regions: int = 1
    """Regions a side: every region has a style of the painter's own; from one to the next fills go over smoothly. More
    regions: restorations differ more. 1: one style for the whole image."""
    exemplars: int = 0
    """Turns in which what was painted is put together anew from pieces of what is visible in the image: sharp where the
    painter is soft. Has no weights and no part in training. 0: fills are what the painter made of them."""
    schemes: int = 32
    """Color schemes among which the colorist chooses, and as many that training tries for each image; 1: plain
    regression, the control."""
    taste_temperature: float = 1.0
    """As --generator.prior-temperature, for the colorist's choice among schemes: less leaves out wild colors, and some
    variety with them. Has no part in training but in what a discriminator sees (--adversarial-weight)."""
    smooth: bool = False
    """Whether features and images are enlarged bilinearly between modules, not pixel by pixel."""
    fill: bool = False
    """Whether the first module begins with holes filled by the mean of what is visible around them, not with black."""
    factors: int = 3
    """How many downsampling factors of 1, 2, 4, 8, 16 the generator is told apart; 3: up to 4."""
    tasks: tuple[Task, ...] = ("mix",)
    """What it restores. mix: hidden cells, downsampling, decolorization and any mix of them, what a policy asks for.
    decompression: JPEG. layout: synthesis from a map of classes. A task named twice gets twice the training."""
    layout_classes: int = 8
    """Classes of the layout task."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not self.resolutions:
            raise ValueError("--generator.resolutions needs at least one module")
        if len(self.resolutions) != len(self.widths):
            raise ValueError(
                f"--generator.resolutions and --generator.widths need one entry per module, "
                f"got {len(self.resolutions)} and {len(self.widths)}"
            )
        if any(fine != 2 * coarse for coarse, fine in zip(self.resolutions, self.resolutions[1:], strict=False)):
            raise ValueError(f"--generator.resolutions: each must be twice the one before, got {self.resolutions}")
        if self.resolutions[0] % self.patch or self.resolutions[0] < 2 * self.patch:
            raise ValueError(
                f"--generator.resolutions must begin with a multiple of {self.patch}, at least {2 * self.patch}, got "
                f"{self.resolutions}"
            )
        if self.regions and len(self.regions) != len(self.resolutions):
            raise ValueError(
                f"--generator.regions needs one count per module: {len(self.resolutions)}, got {len(self.regions)}"
            )
        for resolution, regions in zip(self.resolutions, self.regions, strict=False):
            if regions < 1 or resolution // self.patch % regions:
                raise ValueError(
                    f"--generator.regions: each must divide its module's side in patches; {regions} does not divide "
                    f"{resolution // self.patch}"
                )
        self._check_prior()
        self._check_widths()
        self._check_finishing()
        if not self.tasks:
            raise ValueError("--generator.tasks needs at least one of mix, decompression, layout")
        require_range("generator.lightness-only", self.lightness_only, 0, len(self.resolutions) - 1)
        require_range("generator.blocks", self.blocks, 1, 64)
        require_range("generator.global-code", self.global_code, 1, 4096)
        require_range("generator.spatial-code", self.spatial_code, 0, 64)
        require_range("generator.factors", self.factors, 1, 5)
        require_range("generator.layout-classes", self.layout_classes, 2, 255)

    def _check_prior(self) -> None:
        """Refuse a choice among less than two codes, and for modules that there are not."""
        if len(self.prior) > len(self.resolutions):
            raise ValueError(
                f"--generator.prior needs at most one count per module: {len(self.resolutions)}, got {len(self.prior)}"
            )
        for count in self.prior:
            require_range("generator.prior", count, 2, 1e5)
        require_range("generator.prior-temperature", self.prior_temperature, 0.01, 100)

    def _check_finishing(self) -> None:
        """Refuse a painter or colorist that could not look at the images, or has none to finish."""
        require_range("generator.schemes", self.schemes, 1, 1e5)
        require_range("generator.taste-temperature", self.taste_temperature, 0.01, 100)
        require_range("generator.painter-regions", self.painter_regions, 1, self.resolutions[-1] // 4)
        require_range("generator.exemplars", self.exemplars, 0, 100)
        if self.exemplars and not self.painter:
            raise ValueError("--generator.exemplars: nothing is painted: give --generator.painter, or 0 exemplars")
        for flag, widths, does in (
            ("--generator.painter", self.painter, "fills holes"),
            ("--generator.colorist", self.colorist, "colors images"),
        ):
            if not widths:
                continue
            if len(widths) < 3 or min(widths) < 1:
                raise ValueError(f"{flag} needs at least 3 widths, each at least 1, got {widths}")
            smallest = 2 ** len(widths)
            if self.resolutions[-1] % smallest:
                raise ValueError(
                    f"{flag}: {len(widths)} widths halve the images as often, and {smallest} does not divide their "
                    f"{self.resolutions[-1]} pixels; give fewer"
                )
            if "mix" not in self.tasks:
                raise ValueError(f"{flag} {does} of the mix task: add mix to --generator.tasks")

    def _check_widths(self) -> None:
        """Refuse modules without channels, and channels that do not make GroupNorm's 8 groups."""
        if self.norm and any(width < 8 or width % 8 for width in self.widths):
            raise ValueError(f"--generator.widths must be multiples of 8 (GroupNorm), at least 8, got {self.widths}")
        if min(self.widths) < 1:
            raise ValueError(f"--generator.widths must be at least 1, got {self.widths}")

    def regions_of(self, level: int) -> int:
        """Regions a side at a module."""
        return self.regions[level] if self.regions else 1

    def colors_follow(self, level: int) -> bool:
        """Whether a module's code decides on lightness alone."""
        return level >= len(self.resolutions) - self.lightness_only

    @property
    def planes(self) -> dict[Task, int]:
        """Condition planes of each task, in the order in which they enter: color and factors, quality, classes."""
        count: dict[Task, int] = {"mix": self.factors, "decompression": 1, "layout": self.layout_classes}
        return {task: n for task, n in count.items() if task in self.tasks}


@dataclass(frozen=True, kw_only=True)
class CamnetConfig:
    """Train CAMNet by conditional IMLE: for every image search the code that restores it best, then regress to it."""

    out: Path = Path("runs/digits.safetensors")
    """Where the trained weights go; the card with all figures goes beside it, the checkpoint under runs/."""
    seed: int = 0
    """Seed of weights, batches, corruptions and codes."""
    start: str = ""
    """Weights to begin with: a shipped name or the path of a .safetensors file. Tensors of equal name and shape are
    taken (from 32 to 64 pixels: all but the new module's), the others drawn. Empty: all are drawn."""
    steps: int = 4000
    """Gradient steps. The same command resumes an interrupted training."""
    max_minutes: float = 0.0
    """End after this many minutes, annealed and with weights exported: the step size follows the clock where the
    minutes will be over before the steps. 0: no limit."""
    batch: int = 64
    """Images per gradient step."""
    group: int = 4
    """Batches searched together."""
    reuse: int = 1
    """Gradient steps on each found code: a round is one search and group x reuse steps."""
    candidates: tuple[int, ...] = (32, 8, 4)
    """Codes tried per image at each module (m). All ones: plain regression, the control."""
    paintings: int = 32
    """Codes of the painter tried for each image (--generator.painter). 1: plain regression, the control."""
    adaptive: float = 0.0
    """Adaptive IMLE: before each further pass over a round's images, search again for this share of them, those whose
    loss has fallen most; the rest keep their codes. Needs --reuse 2 or more. In [0, 1]."""
    reject: float = 0.0
    """RS-IMLE: leave out candidates that are nearer to the truth than this share of the median distance of the image's
    candidates, again at every module. 0: take the nearest. In [0, 1]."""
    only_first: int = 0
    """Train only the first modules, so many, with their priors, and leave the rest of the network as --start has it.
    They choose colors and what fills large holes, and a step takes a small part of the time. 0: train all of it."""
    only_colorist: bool = False
    """Train only the colorist (--generator.colorist), and leave the rest of the network as --start has it, without
    running it: colors in minutes."""
    only_painter: bool = False
    """Train only the painter (--generator.painter), likewise: what fills holes, in half an hour. --adversarial-weight:
    against a discriminator that looks at what it fills."""
    only_prior: bool = False
    """Leave the network as --start has it and learn only its prior (--generator.prior): minutes, not hours."""
    grids: tuple[int, ...] = (4,)
    """Grids of the training masks, drawn image by image; each divides the last."""
    pure: float = 0.0
    """Share of images in the mix task that lose one thing only: cells, color or detail."""
    recolor: bool = False
    """Permute color channels and invert images while training: right where any color may occur, as on digits."""
    flip: bool = False
    """Mirror half of the images while training: right for photographs."""
    learning_rate: float = 2e-3
    """Peak step size of AdamW under a one-cycle schedule."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is exported; after t steps at most (1 + t) / (10 + t)."""
    features: tuple[Literal["classifier", "lpips"], ...] = ()
    """Features that the training distance adds to its random ones. classifier: of a small classifier, trained first on
    the same images. lpips: of VGG16, from --lpips."""
    lpips: Path = Path()
    """Local safetensors file with LPIPS weights, for --features lpips; docs/camnet-distances.md says how to make it."""
    pixel_weight: float = 1.0
    """Weight of the pixel L1 term beside the perceptual features in the distance."""
    grid_weight: float = 0.0
    """Weight of what repeats every 4 pixels in the difference: keeps dots and stripes out of restorations."""
    texture_weight: float = 0.0
    """Weight of local amplitudes, frequency by frequency: how strong a texture is, not where its light and dark pixels
    lie. Without it what cannot be known is restored as a blur; too much of it paints texture for its own sake."""
    adversarial_weight: float = 0.0
    """Weight of a discriminator, trained beside the generator, to which restorations of drawn codes should look like
    photographs: sharp where the distance alone leaves a blur, at a price in PSNR and two thirds more time a step.
    Begin with weights that restore (--start), and slowly: --learning-rate 0.0003 --adversarial-weight 0.5 went well,
    faster or heavier ones painted patterns, stripes and speckles. 0: none."""
    amp: bool = False
    """Run the generator in bfloat16 (autocast); distance, projection and weights stay in float32 (a GPU's convolutions:
    TF32)."""
    compile: bool = False
    """Compile modules and distance (torch.compile): slow to start, meant for long trainings on a GPU. Needs a C++
    compiler."""
    log_every: int = 10
    """Rounds between points of the curves."""
    picture_every: int = 100
    """Rounds between sample sheets and validation figures in TensorBoard."""
    measured: int = 200
    """Validation images behind the card's figures, which take some minutes at the end."""
    layouts: Literal["palette", "maps"] = "palette"
    """Where the maps of the layout task come from. palette: classes of color, found by k-means. maps: a file
    name_mask.png beside each image of --data imagefolder; docs/camnet.md says how it has to look."""
    unlabeled: bool = False
    """Train on the 100,000 unlabeled images of --data stl10, too."""
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
                f"--candidates needs one count per module: {len(self.generator.resolutions)}, got "
                f"{len(self.candidates)}"
            )
        if self.generator.resolutions[-1] != self.data.size:
            raise ValueError(
                f"--generator.resolutions must end at --data.size {self.data.size}, got {self.generator.resolutions}: "
                + self._for_another_size()
            )
        if not self.grids or min(self.grids) < 1:
            raise ValueError(f"--grids needs at least one, of at least 1 cell a side, got {self.grids}")
        if any(self.grids[-1] % grid for grid in self.grids) or self.data.size % self.grids[-1]:
            raise ValueError(
                f"--grids: each must divide the last, and the last --data.size {self.data.size}, got {self.grids}"
            )
        if self.data.size % 2 ** (self.generator.factors - 1):
            raise ValueError(
                f"--generator.factors {self.generator.factors} means downsampling by up to "
                f"{2 ** (self.generator.factors - 1)}, which does not divide --data.size {self.data.size}"
            )
        self._check_prior()
        self._check_only_first()
        self._check_only_finishing()
        if self.adaptive and self.reuse < 2:
            raise ValueError("--adaptive searches again between passes: it needs --reuse 2 or more")
        if ("lpips" in self.features) != (self.lpips != Path()):
            raise ValueError("--features lpips and --lpips FILE need one another")
        self._check_images()
        for count in self.candidates:
            require_range("candidates", count, 1, 1e5)
        require_range("paintings", self.paintings, 1, 1e5)
        require_range("seed", self.seed, 0, 2**31)
        require_range("steps", self.steps, 1, 1e9)
        require_range("batch", self.batch, 2, 1e6)
        require_range("group", self.group, 1, 1e4)
        require_range("reuse", self.reuse, 1, 1e4)
        require_range("adaptive", self.adaptive, 0, 1)
        require_range("reject", self.reject, 0, 1)
        require_range("pure", self.pure, 0, 1)
        require_range("ema", self.ema, 0, 0.999999)
        require_range("learning-rate", self.learning_rate, 0, 1)
        require_range("pixel-weight", self.pixel_weight, 0, 100)
        require_range("grid-weight", self.grid_weight, 0, 1000)
        require_range("texture-weight", self.texture_weight, 0, 1000)
        require_range("adversarial-weight", self.adversarial_weight, 0, 1000)
        require_range("log-every", self.log_every, 1, 1e9)
        require_range("picture-every", self.picture_every, 1, 1e9)
        require_range("measured", self.measured, 1, 1e9)
        require_range("max-minutes", self.max_minutes, 0, 1e6)

    def _check_prior(self) -> None:
        """Refuse a prior that would have nothing to learn from, and a training of nothing."""
        if min(self.candidates[: len(self.generator.prior)], default=2) < 2:
            raise ValueError(
                "--generator.prior learns what the search chooses: the modules that have one need --candidates 2 or "
                f"more, got {self.candidates}; or give --generator.prior without any number"
            )
        if self.only_prior and not (self.start and self.generator.prior):
            raise ValueError("--only-prior True needs weights, --start, and a prior to learn, --generator.prior")
        if self.only_prior and self.adversarial_weight:
            raise ValueError("--only-prior True learns without a discriminator: leave out --adversarial-weight")

    def _check_only_first(self) -> None:
        """Refuse a training of some modules that has none to leave, or nothing to learn with."""
        require_range("only-first", self.only_first, 0, len(self.generator.resolutions) - 1)
        if self.only_first and not self.start:
            raise ValueError(
                "--only-first leaves the finer modules as they are: it needs weights that have them, --start"
            )
        if self.only_first and (self.only_prior or self.adversarial_weight):
            raise ValueError(
                "--only-first: the prior alone is learned by --only-prior True without it, and a discriminator "
                "(--adversarial-weight) looks at what the finest module restores; leave one of the two out"
            )
        if self.only_first and len(self.generator.prior) > self.only_first:
            raise ValueError(
                f"--only-first {self.only_first} leaves the prior of the next module (--generator.prior) with nothing "
                "to learn from; train at least as many modules as have one"
            )

    def _check_only_finishing(self) -> None:
        """Refuse a training of painter or colorist alone that has none, or something else to train besides."""
        for flag, widths in (("painter", self.generator.painter), ("colorist", self.generator.colorist)):
            if self.only != f"--only-{flag}":
                continue
            if not (self.start and widths):
                raise ValueError(f"--only-{flag} True needs weights, --start, and what to train, --generator.{flag}")
        several = [flag for flag, is_given in self._only.items() if is_given]
        if len(several) > 1 and (self.only_painter or self.only_colorist):
            raise ValueError(f"{' and '.join(several)}: each leaves all else as it is; give one of them")
        if self.only_colorist and self.adversarial_weight:
            raise ValueError("--only-colorist True learns without a discriminator: leave out --adversarial-weight")

    def _for_another_size(self) -> str:
        """What to change where the modules do not end at the size of the images."""
        size = self.data.size
        if self.data.name != "digits" and size in RECIPES:
            return f"for {size} pixels take --config {RECIPES[size]}"
        sides = [size]
        while sides[0] % (2 * self.generator.patch) == 0 and sides[0] >= 8:
            sides.insert(0, sides[0] // 2)
        return (
            f"give for example --generator.resolutions {' '.join(map(str, sides))}, and as many entries each of "
            "--generator.widths, --candidates and --generator.regions (of which each divides its module's side in "
            "patches)"
        )

    def _check_images(self) -> None:
        """Refuse images that do not have what is asked of them."""
        if self.layouts == "maps" and self.data.name != "imagefolder":
            raise ValueError(
                f"--layouts maps: only the images of --data imagefolder can have maps, not {self.data.name}"
            )
        if self.layouts == "maps" and "layout" not in self.generator.tasks:
            raise ValueError("--layouts maps is for the layout task: add layout to --generator.tasks")
        if self.unlabeled and self.data.name != "stl10":
            raise ValueError(f"--unlabeled True: only --data stl10 has unlabelled images, not {self.data.name}")
        if self.unlabeled and self.data.classes:
            raise ValueError(
                "--unlabeled True: nobody knows which unlabelled images are of --data.classes; leave one out"
            )
        if self.unlabeled and "classifier" in self.features:
            raise ValueError("--unlabeled True: --features classifier learns from labels; leave one of the two out")

    @property
    def only(self) -> str:
        """The flag that leaves a part of the network as --start has it; empty: all of it is trained."""
        return next((flag for flag, is_given in self._only.items() if is_given), "")

    @property
    def _only(self) -> dict[str, bool]:
        """The flags that leave parts of the network as they are, and whether they are given."""
        return {
            "--only-prior": self.only_prior,
            "--only-first": self.only_first > 0,
            "--only-painter": self.only_painter,
            "--only-colorist": self.only_colorist,
        }

    @property
    def searched(self) -> int:
        """How many modules the search tries codes of: those that learn from it."""
        if self.only_prior:
            return len(self.generator.prior)
        return self.only_first or len(self.generator.resolutions)

    @property
    def map_classes(self) -> int:
        """How many classes the maps beside the images may have; 0: no maps are read."""
        return self.generator.layout_classes if self.layouts == "maps" else 0

    @property
    def stride(self) -> int:
        """Gradient steps of one round: one search and what is learned from it."""
        return self.group * self.reuse
