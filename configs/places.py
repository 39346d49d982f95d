"""Places: in the folder of a run, and at home."""

from pathlib import Path

RUN = "RUN"
"""The first part of a path that begins in a run's folder. (An empty path as the default would be `.`, which is a
place as well.)"""


def in_run(place: Path, run: Path) -> Path:
    """A path with a run's folder in place of `RUN` at its beginning; other paths stay."""
    return run.joinpath(*place.parts[1:]) if place.parts[:1] == (RUN,) else place


def at_home(path: Path) -> Path:
    """A path with the home folder in place of `~` at its beginning, as a shell has it; other paths stay."""
    return path.expanduser() if path.parts[:1] == ("~",) else path
