"""Settings of camnet.train that cannot be are refused by the name of their flag."""

import re
from pathlib import Path

import pytest

from configs.camnet import RECIPES, CamnetConfig
from configs.errors import UsageError
from configs.reading import read

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--grids 0", "--grids .* at least 1 cell"),
        ("--grids -4", "--grids .* at least 1 cell"),
        ("--grids 4 0", "--grids .* at least 1 cell"),
        ("--grids", "--grids needs at least one"),
        ("--grids 3", "--grids: .* divide"),
        ("--generator.resolutions", "--generator.resolutions needs at least one"),
        ("--generator.resolutions --generator.widths --candidates", "--generator.resolutions needs at least one"),
        ("--generator.resolutions 0 0 0", "--generator.resolutions"),
        ("--generator.widths", "--generator.widths"),
        ("--generator.widths 0 0 0", "--generator.widths .* at least 8"),
        ("--generator.widths 8 -8 8", "--generator.widths .* at least 8"),
        ("--generator.widths 8 12 8", "--generator.widths .* multiples of 8"),
        ("--generator.norm False --generator.widths 8 0 8", "--generator.widths must be at least 1"),
        ("--candidates", "--candidates needs one count per module"),
        ("--candidates 4 0 1", "--candidates must lie in"),
        ("--seed -1", r"--seed must lie in"),
        ("--reject 1.5", r"--reject must lie in \[0, 1\]"),
        ("--data.size 32", r"must end at --data.size 32, got .*: give for example --generator.resolutions 4 8 16 32,"),
        ("--data cifar10", r"must end at --data.size 32, got .*: for 32 pixels take --config .*camnet_cifar10.yaml"),
        (f"--config {RECIPES[64]} --data.size 96", f"for 96 pixels take --config {RECIPES[96]}"),
        (f"--config {RECIPES[64]} --data.size 80", "for example --generator.resolutions 10 20 40 80, and as many"),
    ],
)
def test_a_setting_that_cannot_be_is_named(flags, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UsageError, match=message):
        read(CamnetConfig, flags.split(), prog="camnet.train", description="")


@pytest.mark.parametrize("size", RECIPES)
def test_the_recipes_that_are_named_are_for_their_size(size):
    config = read(CamnetConfig, ["--config", str(ROOT / RECIPES[size])], prog="camnet.train", description="")
    assert config.data.size == config.generator.resolutions[-1] == size


@pytest.mark.parametrize("size", [32, 48, 80, 128])
@pytest.mark.parametrize("patch", [1, 2])
def test_the_resolutions_that_are_proposed_can_be_taken(size, patch):
    flags = ["--data", "imagefolder", "--data.size", str(size), "--generator.patch", str(patch)]
    if size == 32:
        flags[1] = "digits"
    with pytest.raises(UsageError, match="give for example") as caught:
        read(CamnetConfig, flags, prog="camnet.train", description="")
    proposed = re.search(r"--generator\.resolutions ([0-9 ]+),", str(caught.value))[1].split()
    flags += ["--generator.resolutions", *proposed]
    flags += ["--generator.widths", *["8"] * len(proposed), "--candidates", *["1"] * len(proposed)]
    assert read(CamnetConfig, flags, prog="camnet.train", description="").generator.resolutions[-1] == size


def test_without_groups_to_normalize_any_width_will_do():
    flags = "--generator.norm False --generator.widths 12 7 1"
    assert read(CamnetConfig, flags.split(), prog="camnet.train", description="").generator.widths == (12, 7, 1)
