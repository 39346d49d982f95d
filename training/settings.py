"""The settings of a run of run_rl.py, read back from its folder."""

from pathlib import Path

from configs.errors import UsageError
from configs.reading import read
from configs.run import RunConfig
from training.folder import SETTINGS


def run_settings(folder: Path) -> RunConfig:
    """Read what a run was told.

    Args:
        folder: The run's folder, such as runs/digits-loss-slope-seed0; the run need not have ended.

    Raises:
        UsageError: If there is no such run, or its settings cannot be read.
    """
    file = folder / SETTINGS
    if not file.is_file():
        raise UsageError(f"{folder} is no run's folder: it holds no {SETTINGS}. Name one below runs/")
    try:
        return read(RunConfig, ["--config", str(file)], prog="run", description="")
    except (UsageError, SystemExit) as error:
        raise UsageError(
            f"{file} holds no valid settings of run_rl.py ({error}); restore it, or name another"
        ) from error
