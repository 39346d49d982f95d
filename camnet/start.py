"""What a training of CAMNet begins with and does not keep itself: its images, and the weights of --start."""

from collections.abc import Mapping
from typing import Any

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
        super().__init__(dict(sources), "another --out")
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
