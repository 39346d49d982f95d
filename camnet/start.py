"""What a training of CAMNet begins with and does not keep itself: its images, and the weights of --start."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from camnet.generator import Generator
from configs.camnet import CamnetConfig, GeneratorConfig
from configs.errors import UsageError
from training.origin import Origin, Source


class Start(Origin):
    """Holds a training to its images, and remembers which weights it began with.

    The file of --start may be moved or replaced while the training lasts: checkpoints keep what is to be said of it.

    Args:
        sources: As `Origin` takes them.

    Attributes:
        before: What the training's card keeps of the card of the weights that it began with; empty: it began with none,
            or its checkpoint is of a version that did not keep this.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        super().__init__(dict(sources), "an --out of another name")
        self.before: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return super().state_dict() | {"before": self.before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare the sources, and take up what was kept.

        Raises:
            UsageError: If a source is another one.
        """
        super().load_state_dict(state)
        self.before = state.get("before", {})


def take_over(weights: dict[str, Tensor], generator: Generator, name: str) -> str:
    """Copy the weights that have a place of their name and shape in a generator.

    A module that decided on colors and is to decide on lightness alone has its head's mean over the colors.

    Args:
        weights: By name.
        generator: Gets them.
        name: Where they come from, for the message.

    Returns:
        How many were taken, as a sentence.

    Raises:
        UsageError: If less than half of the cascade's would be taken: then it is another network. (Painter and colorist
            may be new to it.)
    """
    own = generator.state_dict()
    of_lightness = filter(generator.config.colors_follow, range(len(generator.levels)))
    heads = {f"levels.{level}.head.{part}" for level in of_lightness for part in ("weight", "bias")}
    weights = {key: _lightness_of(value, own[key]) if key in heads else value for key, value in weights.items()}
    fitting = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
    cascade = [key for key in own if not key.startswith(("painter.", "colorist."))]
    known = sum(key in fitting for key in cascade)
    if 2 * known < len(cascade):
        raise UsageError(
            f"--start {name}: only {known} of this generator's {len(cascade)} tensors are among its weights in the "
            "same shape; compare --generator.widths and --generator.tasks"
        )
    generator.load_state_dict(own | fitting)
    return f"{len(fitting)} of {len(own)} tensors taken over, the others drawn"


def require_heard_alike(there: GeneratorConfig, config: CamnetConfig) -> None:
    """Refuse to leave modules as they are and run them under other settings, of which their weights tell nothing.

    Args:
        there: Settings that the weights of --start were trained with.
        config: A training that leaves a part of the network as it is.

    Raises:
        UsageError: If one differs; names it.
    """
    here = config.generator
    left = range(config.only_first, len(here.resolutions))
    pairs: dict[str, tuple[Any, Any]] = {
        "resolutions": (there.resolutions, here.resolutions),
        "smooth": (there.smooth, here.smooth),
        "fill": (there.fill, here.fill),
        "regions": (tuple(map(there.regions_of, left)), tuple(map(here.regions_of, left))),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise UsageError(
                f"{config.only}: --start {config.start} was trained with --generator.{name} {_spelled(theirs)}, not "
                f"{_spelled(ours)}, and what is left as it is would restore otherwise; give --generator.{name} as there"
            )


def _spelled(value: Any) -> str:
    """A setting as it is typed."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _lightness_of(head: Tensor, own: Tensor) -> Tensor:
    """The mean over red, green and blue of a head's rows, where its place has a third of them; else as it is."""
    if len(head) != 3 * len(own) or head.shape[1:] != own.shape[1:]:
        return head
    return head.unflatten(0, (3, -1)).mean(dim=0)
