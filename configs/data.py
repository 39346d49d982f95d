"""Which images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from configs.checks import require_range
from configs.errors import UsageError
from configs.places import at_home
from configs.settings import nearest

OWN_SIZE = {"digits": 16, "cifar10": 32, "cifar100": 32, "stl10": 96, "imagefolder": 64}
"""The side that --data.size 0 stands for, by --data.name."""
SHOWN = 20
"""Classes that a complaint lists before it breaks off (CIFAR-100 has 100, ImageNet 1,000)."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The image set, its resolution and its fixed split."""

    name: Annotated[
        Literal["digits", "cifar10", "cifar100", "stl10", "imagefolder"],
        arg(aliases=["--data"]),
    ] = "digits"
    """digits: scikit-learn's 1,797 real handwritten digits, each drawn once in two random colors (no download).
    cifar10, cifar100, stl10: tested on the official test images, 10 % of the training images held out for validation;
    of stl10 only the labeled images are used (camnet.train can take the others, too). imagefolder: your own images,
    one folder per class, or such folders below train/ and test/ (or val/); with no train/, 80 % are for training, 5 %
    for validation, 15 % for test. A file name_mask.png beside name.jpg is its map of classes, and never an image."""
    root: Annotated[Path, arg(aliases=["--data-root"])] = Path("data")
    """Where the files lie. cifar10, cifar100, stl10: the folder that holds cifar-10-batches-py, cifar-100-python or
    stl10_binary. imagefolder: the folder that holds one folder per class. digits needs none."""
    download: bool = False
    """Download the set into the root if it is not there (cifar10, cifar100, stl10). Without it nothing ever is."""
    size: int = 0
    """Side of the square images in pixels; 0: the set's own (digits 16, cifar 32, stl10 96, imagefolder 64). digits: 16
    or 32; others: a multiple of 8 from 16 to 512. Generators are shipped for digits of 16 and photographs of 32,
    64 and 96 pixels."""
    classes: tuple[str, ...] = ()
    """Use only these classes, by name or by number, from 0 in the set's own order; they are renumbered in the order
    given. Empty: all."""
    seed: int = 0
    """Draws the colors and the train / validation / test split. Apart from the run's seed, so that every run is
    tested on the same images, which the shipped generator has never seen."""

    def __post_init__(self) -> None:
        """Put the set's own size for 0 and check the bounds."""
        if self.size == 0:
            object.__setattr__(self, "size", OWN_SIZE[self.name])
        if self.name == "digits" and self.size not in (16, 32):
            raise ValueError(f"--data.size must be 16 or 32 with --data digits, got {self.size}")
        if self.size % 8 or not 16 <= self.size <= 512:
            raise ValueError(f"--data.size must be a multiple of 8 from 16 to 512, got {self.size}")
        if self.download and self.name == "imagefolder":
            raise ValueError("--data.download True: there is nothing to download for --data imagefolder")
        require_range("data.seed", self.seed, 0, 2**31)

    def in_folder(self, root: str) -> "DataConfig":
        """The same images, their files in another folder; an empty text leaves it at the one that is set."""
        return replace(self, root=at_home(Path(root))) if root else self

    def as_json(self) -> dict[str, Any]:
        """The settings by name as JSON holds them: the folder as text."""
        return asdict(self) | {"root": str(self.root)}

    def told(self) -> dict[str, Any]:
        """The settings that say which images these are, by name, as cards keep them: not where the files lie."""
        return {name: value for name, value in asdict(self).items() if name not in ("root", "download")}

    def chosen(self, names: Sequence[str]) -> tuple[int, ...]:
        """Find the classes to use among those of the set.

        Args:
            names: All classes of the set, in its own order.

        Returns:
            Positions in `names`, in the order of --data.classes; all of them where that is empty.

        Raises:
            UsageError: If a class is not in the set, or is given twice (also once by name and once by number).
        """
        found: list[int] = []
        for word in self.classes:
            position = _position(word, names)
            if position is None:
                raise UsageError(
                    f"--data.classes {word}: --data {self.name} has no such class; the nearest is "
                    f"{nearest(word, names)}. Valid are {_listed(names)}"
                )
            if position in found:
                raise UsageError(f"--data.classes {word}: the class {names[position]} is given twice; keep one of them")
            found.append(position)
        return tuple(found) if self.classes else tuple(range(len(names)))


def _position(word: str, names: Sequence[str]) -> int | None:
    """Look a class up by name, else by number."""
    if word in names:
        return names.index(word)
    if _numbered(names) and word.isdecimal() and int(word) < len(names):
        return int(word)
    return None


def _numbered(names: Sequence[str]) -> bool:
    """Whether a number stands for a position; not where a name is a number, or 1 could mean two classes."""
    return not any(name.isdecimal() for name in names)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    numbers = f", or their numbers 0 to {len(names) - 1}" if _numbered(names) else ""
    return ", ".join(names[:SHOWN]) + more + numbers
