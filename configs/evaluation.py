"""What camnet.evaluate is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from configs.checks import require_range

GENERATOR = "GENERATOR"
"""Stands for the generator's short name at the end of the folder's."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Measure a frozen generator on each case of each task that it was trained on."""

    generator: str = "digits"
    """Shipped weights by name, or the path of a .safetensors file. Its card says which images it is measured on."""
    against: tuple[str, ...] = ()
    """Further weights, named likewise, measured on the same degraded images: one more row per case. Also erase, mean,
    blur or noise (what something plain in place of a generator is worth), or your own package.module:factory."""
    split: Literal["validation", "test"] = "test"
    """Which images: validation for choosing between settings, test for figures that are reported."""
    images: int = 1000
    """How many of them, evenly spread over the split; 0: all."""
    k: int = 16
    """Restorations of each image (K)."""
    batch: int = 8
    """Images restored at once, K times each. The codes drawn depend on it. 8 fit a CPU's cache (100 take half as long
    again); on a GPU more are faster."""
    amp: bool = False
    """Run CAMNet in bfloat16: faster on a GPU, and on a CPU that knows it; figures move in the third digit."""
    seed: int = 0
    """Draws degradations, codes and the classifier of --features."""
    features: tuple[Literal["classifier", "lpips"], ...] = ()
    """Features to compare by besides the random ones, which trainings descend: of a small classifier, trained first on
    the training images (another --seed, another classifier), or of VGG16, from --lpips. Fréchet distances are taken on
    the first of them alone; with lpips they want several thousand images."""
    lpips: Path = Path()
    """Local safetensors file with LPIPS weights, for --features lpips; docs/camnet-distances.md says how to make it."""
    cases: tuple[str, ...] = ()
    """Cases by name, such as colorization or 'inpainting 50 %'. Empty: all that the generator is trained for."""
    out: Path = Path("runs", f"evaluate-{GENERATOR}")
    """Folder for figures.json, table.md and sheet.png, which are overwritten. GENERATOR is the generator's short
    name."""
    data_root: Annotated[Path, arg(aliases=["--data.root"])] = Path("data")
    """Where the image files lie, as in camnet.train --data.root; set, size, classes and split are the card's."""
    download: Annotated[bool, arg(aliases=["--data.download"])] = False
    """Download the set into the root if it is not there (cifar10, cifar100, stl10)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure; auto takes the GPU where there is one."""

    def __post_init__(self) -> None:
        """Name the folder after the generator where none is given, and check the bounds."""
        if not self.generator:
            raise ValueError("--generator needs the name of shipped weights or the path of a .safetensors file")
        if self.out.name == f"evaluate-{GENERATOR}":
            object.__setattr__(self, "out", self.out.with_name(f"evaluate-{stem(self.generator)}"))
        if ("lpips" in self.features) != (self.lpips != Path()):
            raise ValueError("--features lpips and --lpips FILE need one another")
        require_range("images", self.images, 0, 1e9)
        require_range("k", self.k, 2, 1000)
        require_range("batch", self.batch, 1, 1e5)
        require_range("seed", self.seed, 0, 2**31)


def stem(generator: str) -> str:
    """The short name of weights: the file's, without folder and ending."""
    return Path(generator).name.removesuffix(".safetensors")
