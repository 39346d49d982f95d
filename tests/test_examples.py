"""The examples run as their first lines say, on an exported policy, and learn something."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from configs.policy import PolicyConfig
from policy.build import build
from policy.export import export

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    return export(build(PolicyConfig(width=8), 16), tmp_path / "run", {}).parent


def accuracy(example, run, epochs):
    command = [sys.executable, str(ROOT / "examples" / example), str(run), str(epochs)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(re.search(r"([\d.]+) %$", done.stdout.strip()).group(1))


def test_torchvision(run):
    assert accuracy("train_torchvision.py", run, 2) > 20  # chance: 10


def test_lightly(run):
    pytest.importorskip("lightly")
    assert accuracy("lightly_simclr.py", run, 2) > 20


@pytest.mark.parametrize("example", ["train_torchvision.py", "lightly_simclr.py"])
def test_without_a_run_they_say_how_they_are_used(example):
    if example.startswith("lightly"):
        pytest.importorskip("lightly")
    command = [sys.executable, str(ROOT / "examples" / example)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"python examples/{example} RUN" in done.stderr
    assert "Traceback" not in done.stderr


def test_they_name_their_own_commands():
    for path in (ROOT / "examples").glob("*.py"):
        assert f"python examples/{path.name} " in path.read_text().splitlines()[0]
