"""Bad input ends in one sentence that names the cause and a status that is not zero, never in a traceback."""

import json
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import run_rl
from camnet import frozen
from configs.errors import UsageError
from env import reference
from policy import export

ROOT = Path(__file__).parents[1]
TINY = [
    *("--config", str(ROOT / "configs" / "smoke.yaml"), "--device", "cpu", "--name", "tiny", "--steps", "6"),
    *("--schedule.batch", "16", "--schedule.warmup", "1", "--schedule.checkpoint-every", "2"),
    *("--reward.reference.batch", "16"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One thread, and nothing that costs time and changes no claim."""
    monkeypatch.setattr(reference, "DRAWS", 1)
    monkeypatch.setattr("env.pictures.draw", lambda sheets, path: None)
    monkeypatch.setattr("training.curves.draw", lambda history, panels, path: None)
    monkeypatch.setattr("contrastive.accuracies.linear_accuracy", lambda *_: 0.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run run_rl.py as the command that it is; returns what it complained of."""

    def call(*flags: str) -> str:
        monkeypatch.setattr(sys, "argv", ["run_rl.py", *flags])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / "run_rl.py"), run_name="__main__")
        assert stop.value.code not in (None, 0)
        # Python itself prints a text and exits with status 1.
        complaint = stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err
        assert "Traceback" not in complaint
        assert complaint.strip()
        return complaint

    return call


def sentence(complaint: str) -> str:
    assert complaint.startswith("run_rl.py: ")
    assert "\n" not in complaint
    return complaint


def test_the_shell_sees_one_line_and_a_status(tmp_path):
    done = subprocess.run(
        [sys.executable, "run_rl.py", "--reward", "nonsense", "--runs", str(tmp_path / "runs")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("run_rl.py: --reward must be one of ")
    assert "loss-slope" in line
    assert "'nonsense'" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--reward", "nonsense"], ["--reward", "nonsense", "loss-slope"]),
        (["--reward", "loss-slop"], ["did you mean loss-slope?"]),
        (["--policy.mask-ratio", "1.5"], ["--policy.mask-ratio", "[0, 1]", "1.5"]),
        (["--schedule.batch", "1"], ["--schedule.batch", "1"]),
        (
            ["--reward.credit", "batch", "--reward.baseline", "batch"],
            ["exactly zero gradient", "--reward.baseline ema"],
        ),
        (["--policy", "random"], ["--policy random", "--reward none"]),
        (["--policy.grid", "32"], ["--policy.grid 32", "16 x 16"]),
        (["--policy.grid", "3"], ["--policy.grid", "power of two"]),
        (["--policy", "crop", "--reward", "none", "--policy.from", "x"], ["--policy crop", "--policy.from"]),
        (["--policy.from", "nowhere"], ["nowhere", "cannot read"]),
        (["--policy", "latent", "--generator", "blur"], ["--policy latent", "blur", "CAMNet"]),
        (["--reward", "knn", "--reward.baseline", "batch"], ["--reward knn", "exactly zero gradient", "ema"]),
        (["--reward.credit", "batch", "--reward.baseline", "rloo:2"], ["exactly zero gradient"]),
        (["--reward.baseline", "rloo"], ["--reward.baseline", "rloo:K"]),
        (["--reward.baseline", "rloo:1"], ["rloo:K", "[2, 64]"]),
        (["--reward.baseline", "mean"], ["--reward.baseline", "critic", "'mean'"]),
        (["--reward", "prediction-gain", "--reward.baseline", "greedy"], ["greedy", "prediction-gain", "adversarial"]),
        (["--policy.estimator", "disarm", "--policy.mask", "smooth"], ["disarm", "--policy.mask cells"]),
        (["--policy.estimator", "evolution", "--reward.credit", "batch"], ["evolution", "--reward.credit image"]),
        (["--policy.estimator", "disarm", "--reward.baseline", "ema"], ["disarm", "takes no --reward.baseline"]),
        (["--algorithm", "ppo", "--reward.credit", "batch"], ["--algorithm ppo", "centers rewards"]),
        (["--algorithm", "a2c", "--policy", "autodropout"], ["--algorithm a2c", "--policy learned"]),
        (["--algorithm", "ppo", "--reward.baseline", "ema"], ["--algorithm ppo", "critic"]),
        (["--config"], ["--config"]),
        (["--config", "/nowhere.yaml"], ["/nowhere.yaml", "No such file"]),
        (["--schedule.batch", "5000"], ["--schedule.batch 5000", "training images"]),
        (["--data.size", "32", "--policy.grid", "4"], ["--generator digits", "16 pixels", "--data.size"]),
        (["--generator", "digit"], ["--generator digit", "digits"]),
    ],
)
def test_a_bad_flag_is_named_with_its_remedy(command, tmp_path, flags, parts):
    complaint = sentence(command(*TINY, "--runs", str(tmp_path), *flags))
    for part in parts:
        assert part in complaint


@pytest.mark.parametrize("flags", [["--rewart", "none"], ["--steps", "many"], ["stray"]])
def test_a_flag_that_does_not_parse_is_shown(command, tmp_path, flags):
    complaint = command(*TINY, "--runs", str(tmp_path / "runs"), *flags)
    assert flags[0].lstrip("-") in complaint
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("schedule:\n  batsh: 16\n", ["line 2", "batsh", "schedule.batch"]),
        ("reward: nonsense\n", ["line 1", "nonsense", "loss-slope"]),
        ("seed: [\n", ["not valid YAML"]),
        ("!!python/object/apply:os.system ['true']\n", ["settings.yaml"]),
        ("", ["key: value"]),
    ],
)
def test_a_bad_file_is_named_with_key_and_line(command, tmp_path, text, parts):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    complaint = sentence(command("--config", str(file), "--runs", str(tmp_path / "runs")))
    for part in [str(file), *parts]:
        assert part in complaint
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a file that is no folder")
def test_a_place_that_cannot_hold_runs_is_named(command):
    complaint = sentence(command(*TINY, "--runs", "/dev/null/runs"))
    assert "/dev/null/runs" in complaint
    assert "--runs" in complaint.split("/dev/null/runs", 1)[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place_is_named(command, tmp_path):
    tmp_path.chmod(0o500)
    complaint = sentence(command(*TINY, "--runs", str(tmp_path)))
    assert str(tmp_path) in complaint
    assert "--runs" in complaint


def test_another_runs_folder_is_refused_with_the_differing_flags(command, tmp_path):
    run_rl.main([*TINY, "--runs", str(tmp_path)])
    before = {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir() if path.is_file()}
    complaint = command(*TINY, "--runs", str(tmp_path), "--seed", "7", "--policy.mask-ratio", "0.123")
    assert "--seed: stored 0, now 7" in complaint
    assert "--policy.mask-ratio: stored" in complaint
    assert "now 0.123" in complaint
    assert "--name OTHER" in complaint
    assert "batch" not in complaint  # nothing that agrees
    assert {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir() if path.is_file()} == before


def test_a_folder_that_is_no_run_is_refused_and_left_alone(command, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.tex").write_text("years of work")
    assert "thesis.tex" in sentence(command(*TINY, "--runs", str(tmp_path)))
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("damage", ["truncated", "emptied", "altered", "pickled"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, capsys, damage):
    flags = [*TINY, "--runs", str(tmp_path)]
    run_rl.main(flags)
    folder = tmp_path / "tiny"
    policy = (folder / "policy.safetensors").read_bytes()
    newest, older = folder / "checkpoints" / "step_00000006.safetensors", "step_00000004.safetensors"
    assert (folder / "checkpoints" / older).exists()
    blob = newest.read_bytes()
    match damage:
        case "truncated":
            newest.write_bytes(blob[: len(blob) // 2])
        case "emptied":
            newest.write_bytes(b"")
        case "altered":
            newest.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
        case "pickled":
            newest.write_bytes(pickle.dumps({"step": 6}))
    capsys.readouterr()
    run_rl.main(flags)
    told = capsys.readouterr()
    (complaint,) = [line for line in told.err.splitlines() if line.startswith("skipped")]
    assert str(newest) in complaint
    assert ", which is damaged: " in complaint
    assert "at step 4 of 6" in told.out
    assert (folder / "policy.safetensors").read_bytes() == policy
    assert newest.read_bytes() != b""


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("save", [torch.save, pickle.dump], ids=["torch", "pickle"])
def test_a_pickle_is_no_generator(command, tmp_path, save):
    path = tmp_path / "generator.safetensors"
    with open(path, "wb") as file:
        save(Planted(tmp_path / "ran"), file)
    card = frozen.SHIPPED / "digits.json"
    path.with_suffix(".json").write_text(card.read_text())
    complaint = sentence(command(*TINY, "--runs", str(tmp_path / "runs"), "--generator", str(path)))
    assert str(path) in complaint
    assert "hash" in complaint
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("save", [torch.save, pickle.dump], ids=["torch", "pickle"])
def test_a_pickle_is_no_policy(tmp_path, save):
    with open(tmp_path / "policy.safetensors", "wb") as file:
        save(Planted(tmp_path / "ran"), file)
    (tmp_path / "policy.json").write_text(json.dumps({}))
    with pytest.raises(UsageError, match="which can run code when loaded: it is refused"):
        export.load(tmp_path)
    assert not (tmp_path / "ran").exists()
