"""Every shipped YAML file is valid, and a typo in one never passes silently."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from configs.camnet import CamnetConfig
from configs.errors import UsageError
from configs.reading import read
from configs.run import RunConfig

FILES = sorted(Path(configs.__file__).parent.glob("*.yaml"))


def parse(file: Path, like: str) -> Any:
    kind = CamnetConfig if like.startswith("camnet_") else RunConfig
    return read(kind, ["--config", str(file)], prog="test", description="")


def test_there_are_files():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_shipped_file_parses(file):
    parse(file, file.name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_typo_stops_with_the_right_key(file, tmp_path):
    key = next(iter(yaml.safe_load(file.read_text())))
    typo = tmp_path / "typo.yaml"
    typo.write_text(file.read_text().replace(f"{key}:", f"{key}x:"))
    with pytest.raises(UsageError, match=rf"{key}x is not a setting; the nearest valid key is {key}"):
        parse(typo, file.name)
