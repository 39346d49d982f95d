"""Settings that contradict one another are refused with a remedy, and different runs get different folders."""

import re
import shlex
from pathlib import Path

import pytest

from configs.errors import UsageError
from configs.reading import read
from configs.run import RunConfig

ROOT = Path(__file__).parents[2]


def parse(*argv: str) -> RunConfig:
    return read(RunConfig, argv, prog="run_rl.py", description="Test.")


def commands() -> list[list[str]]:
    """The flags of each line of the README that begins a run."""
    lines = [line.split("#")[0] for line in (ROOT / "README.md").read_text().splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("python run_rl.py ")]


def test_the_readmes_commands_get_folders_of_their_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = [parse(*flags).run_name for flags in [[], *commands()]]
    assert names[0] == "digits-loss-slope-seed0"
    assert len(names) > 8
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


@pytest.mark.parametrize(
    ("flags", "strength"),
    [
        ([], 0.0),
        (["--policy", "none", "--reward", "none"], 0.0),
        (["--data", "cifar10"], 0.5),
        (["--data", "cifar10", "--policy", "random", "--reward", "none"], 0.5),
        (["--data", "cifar10", "--policy", "none", "--reward", "none"], 1.0),
        (["--data", "cifar10", "--augment.strength", "0.25"], 0.25),
        (["--policy", "none", "--reward", "none", "--augment.strength", "0.75"], 0.75),
    ],
    ids=str,
)
def test_photographs_are_augmented_by_half_beside_generated_views_and_in_full_without(flags, strength):
    assert parse(*flags).augment_strength == strength


def test_a_name_says_what_is_not_the_default_and_is_a_plain_file_name():
    flags = ["--generator", "runs/my own.safetensors", "--contrastive.encoder", "timm:resnet10t", "--views", "all"]
    assert parse(*flags, "--loss", "dcl").run_name == "digits-loss-slope-all-dcl-timm_resnet10t-my_own-seed0"
    assert parse(*flags, "--name", "mine").run_name == "mine"
    assert parse("--algorithm", "ppo", "--seed", "3").run_name == "digits-loss-slope-ppo-seed3"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--policy.estimator", "evolution", "--policy.perturbations", "64", "--schedule.batch", "32"],
            r"--policy\.perturbations 64 .* --schedule\.batch 32",
        ),
        (
            ["--policy", "random", "--reward", "none", "--policy.estimator", "evolution"],
            r"--policy random has nothing .* leave --policy\.estimator evolution out",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(flags, said):
    with pytest.raises(UsageError, match=said):
        parse(*flags)


@pytest.mark.parametrize(
    "flags",
    [
        ["--policy.estimator", "evolution", "--policy.perturbations", "32", "--schedule.batch", "32"],
        ["--augment.strength", "0"],
        ["--augment.crop", "edge", "--augment.strength", "0.5"],
        ["--augment.crop", "edge", "--reward.reference.kind", "expert"],
        ["--augment.crop", "edge", "--data", "cifar10"],
    ],
)
def test_what_can_be_meant_is_not(flags):
    assert not parse(*flags).cautions


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--augment.crop", "edge"], ["--augment.crop changes nothing"]),
        (["--data", "cifar10", "--augment.strength", "0", "--augment.rotation", "5"], ["--augment.rotation changes"]),
        (["--algorithm", "ppo", "--policy.ratio-range", "0.3", "0.3", "--reward.scaling", "none"], ["--algorithm ppo"]),
        (["--data", "imagefolder"], ["--contrastive.encoder small is meant for images up to 32 pixels, these have 64"]),
        (["--reward", "cooperative", "--augment.blur", "0.5"], ["--reward cooperative", "--augment.blur changes"]),
    ],
)
def test_what_changes_nothing_is_said_and_runs(flags, said):
    cautions = parse(*flags).cautions
    assert [caution.startswith(words) for caution, words in zip(cautions, said, strict=True)] == [True] * len(said)


def test_what_stable_baselines_does_not_hear_is_named():
    (caution,) = parse("--algorithm", "a2c", "--policy.ratio-weight", "3", "--reward.scaling", "none").cautions
    assert caution.endswith("of its own: --policy.ratio-weight, --reward.scaling changes nothing")
    assert not parse("--algorithm", "a2c").cautions
