"""The benchmark trains its controls as the generator was trained, or says why it cannot."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from benchmarks import camnet_against_regression as benchmark
from camnet import frozen

OWN = json.loads((frozen.SHIPPED / "digits.json").read_text())["file_sha256"]


def asked(monkeypatch, *flags):
    """The commands of the controls, none of which is run."""
    commands = []
    monkeypatch.setattr(benchmark, "train_once", lambda argv, out: commands.append(argv) or out.parent.mkdir())
    monkeypatch.setattr(sys, "argv", ["camnet_against_regression.py", *flags, "--only", "steps"])
    with pytest.raises(FileNotFoundError):  # the control's card
        benchmark.main()
    return commands[0]


def test_a_control_is_trained_by_the_command_of_the_card(weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ["--seed", "3", "--data.root", "its own folder", "--candidates", "9", "3", "2"]
    card = {"command": f"python -m camnet.train {shlex.join(command)}", "steps": 12, "seconds": 3.0}
    given = ["--generator", weights("made", card=card)]
    control = asked(monkeypatch, *given)
    assert control[: len(command)] == command
    assert control[len(command) :] == [
        *("--steps", "12", "--max-minutes", "0", "--candidates", "1", "1", "1", "--generator.prior"),
        *("--generator.schemes", "1", "--paintings", "1", "--out", str(Path("runs/made_m1_steps.safetensors"))),
    ]
    Path("runs").rmdir()
    moved = asked(monkeypatch, *given, "--data-root", "elsewhere")
    assert moved[len(command) : len(command) + 2] == ["--data.root", "elsewhere"]


@pytest.mark.parametrize(
    ("part", "one"),
    [("colorist", ("--generator.schemes", "1")), ("painter", ("--paintings", "1"))],
)
def test_the_control_of_a_part_tries_one_and_has_the_same_cascade(part, one, weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = f"--start {weights('start')} --only-{part} True --generator.{part} 8 8 8"
    sha256 = json.loads((tmp_path / "start.json").read_text())["file_sha256"]
    card = {"command": f"python -m camnet.train {command}", "steps": 12, "seconds": 3.0}
    control = asked(monkeypatch, "--generator", weights("made", card=card | {"before": {"file_sha256": sha256}}))
    assert control[len(command.split()) :] == [
        *("--steps", "12", "--max-minutes", "0", *one),
        *("--out", str(Path("runs/made_m1_steps.safetensors"))),
    ]


def test_where_only_a_prior_was_learned_the_weights_before_are_asked_for(weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = "--start before.safetensors --only-prior True --generator.prior 8"
    card = {"command": f"python -m camnet.train {command}", "steps": 12, "seconds": 3.0}
    monkeypatch.setattr(sys, "argv", ["camnet_against_regression.py", "--generator", weights("made", card=card)])
    with pytest.raises(SystemExit, match=r"learned a prior, .* the weights that it began with, before\.safetensors"):
        benchmark.main()


def test_what_several_processes_trained_has_no_fair_control_of_one(weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    card = {"command": "python -m camnet.train", "steps": 12, "seconds": 3.0, "provenance": {"ranks": 4}}
    monkeypatch.setattr(sys, "argv", ["camnet_against_regression.py", "--generator", weights("made", card=card)])
    with pytest.raises(SystemExit, match=r"made\.safetensors: 4 processes trained it together"):
        benchmark.main()


@pytest.mark.parametrize("card", [{}, {"before": None}, {"before": {"command": "of old"}}])
def test_a_card_that_is_too_old_to_tell_the_beginning_wants_a_word(card):
    benchmark.require_start("", card, asserted=False)
    with pytest.raises(SystemExit, match=r"too old to tell .* Give their file with --start"):
        benchmark.require_start("digits", card, asserted=False)
    benchmark.require_start("digits", card, asserted=True)


@pytest.mark.parametrize("asserted", [True, False])
def test_other_weights_than_those_of_the_beginning_are_refused(asserted):
    benchmark.require_start("digits", {"before": {"file_sha256": OWN}}, asserted)
    with pytest.raises(SystemExit, match=r"--start digits: not the weights .* \(SHA-256 0f0f\)"):
        benchmark.require_start("digits", {"before": {"file_sha256": "0f0f"}}, asserted)
