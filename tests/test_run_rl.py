"""A whole run: what it leaves behind, and that no cut, at any moment, changes where it ends."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch

import run_rl
from camnet import frozen
from configs.errors import UsageError
from configs.reading import read
from configs.run import RunConfig
from env import reference
from env.distribution import fixed_rates
from env.engine import Engine
from policy import export
from policy.estimator import ScoreFunction
from policy.evolution import Evolution
from policy.network import PolicyNetwork
from training import checkpoint
from training.descent import Descent
from training.schedule import one_cycle

ROOT = Path(__file__).parents[1]
STEPS = 9
TINY = [
    *("--config", str(ROOT / "configs" / "smoke.yaml"), "--device", "cpu", "--name", "tiny"),
    *("--schedule.steps", str(STEPS), "--schedule.batch", "16", "--schedule.warmup", "1"),
    *("--schedule.policy-every", "1", "--schedule.log-every", "2", "--schedule.evaluate-every", "4"),
    *("--schedule.checkpoint-every", "4", "--reward.reference.batch", "16"),
]
LITERAL = ["--reward.measured-on", "training", "--reward.credit", "batch"]
SUMMARY = {
    *("seconds", "steps", "images_per_second", "knn_top1", "linear_top1", "knn_top1_untrained", "mask_ratio"),
    *("p_decolorize", "p_downsample", "measured_on", "credit", "seed", "camnet_sha256_before"),
    *("camnet_sha256_after", "reward"),
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def quick(monkeypatch):
    """Leave out what costs time and changes no claim: pictures, accuracies, most reference draws."""
    monkeypatch.setattr(reference, "DRAWS", 1)
    monkeypatch.setattr(run_rl.pictures, "draw", lambda sheets, path: None)
    monkeypatch.setattr(run_rl.curves, "draw", lambda history, panels, path: None)
    monkeypatch.setattr(run_rl, "accuracies", lambda *_: {"knn_top1": 0.5, "linear_top1": 0.5})


def run(runs: Path, *flags: str) -> Path:
    run_rl.main([*TINY, "--runs", str(runs), *flags])
    return runs / "tiny"


def learned(folder: Path) -> dict[str, torch.Tensor]:
    """Everything trained that the last checkpoint holds."""
    saved = checkpoint.newest_valid(folder / "checkpoints", pytest.fail)
    assert saved is not None
    tensors: dict[str, torch.Tensor] = {}

    def gather(name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, dict | list | tuple):
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                gather(f"{name}/{key}", part)

    gather(str(saved.step), saved.state["parts"])
    return tensors


def assert_equal_ends(one: Path, other: Path) -> None:
    assert (one / "policy.safetensors").read_bytes() == (other / "policy.safetensors").read_bytes()
    a, b = learned(one), learned(other)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    assert any("learner/" in name and value.dim() == 4 for name, value in a.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with nothing left out, and what it printed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = run(tmp_path_factory.mktemp("runs"))
    torch.set_num_threads(threads)
    return folder


def test_the_folder_holds_all_that_is_promised(whole):
    names = {path.name for path in whole.iterdir()}
    promised = {"config.yaml", "provenance.json", "checkpoints", "metrics.jsonl", "summary.json"}
    promised |= {"policy.safetensors", "policy.json", "views.png", "curves.png"}
    promised |= {"backbone.safetensors", "backbone.json"}
    assert promised <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.endswith(".partial") for name in names)
    for name in ("views.png", "curves.png"):
        assert (whole / name).read_bytes().startswith(b"\x89PNG")
    saved = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert saved[-1] == f"step_{STEPS:08d}.safetensors"


def test_the_summary_tells_what_was_done(whole):
    summary = json.loads((whole / "summary.json").read_text())
    assert summary.keys() >= SUMMARY
    assert (summary["steps"], summary["reward"], summary["seed"]) == (STEPS, "loss-slope", 0)
    assert (summary["measured_on"], summary["credit"]) == ("reference", "image")
    for name in ("knn_top1", "linear_top1", "knn_top1_untrained", "mask_ratio", "p_decolorize"):
        assert 0 < summary[name] < 1, name
    assert summary["seconds"] > 0
    assert summary["images_per_second"] == pytest.approx(STEPS * 16 / summary["seconds"], rel=0.05)


def test_the_generator_is_the_same_before_and_after(whole):
    summary = json.loads((whole / "summary.json").read_text())
    loaded = frozen.load("digits", torch.device("cpu")).sha256()
    assert summary["camnet_sha256_before"] == summary["camnet_sha256_after"] == loaded
    card = json.loads((frozen.SHIPPED / "digits.json").read_text())
    assert hashlib.sha256((frozen.SHIPPED / "digits.safetensors").read_bytes()).hexdigest() == card["file_sha256"]


def test_the_exported_policy_is_the_trained_one(whole):
    network = export.load(whole)
    trained = {name: v for name, v in learned(whole).items() if name.startswith(f"{STEPS}/policy/")}
    assert len(trained) == len(network.state_dict())
    for name, value in network.state_dict().items():
        assert torch.equal(value, trained[f"{STEPS}/policy/{name}"])
    about = json.loads((whole / "policy.json").read_text())["about"]
    assert about["knn_top1"] == json.loads((whole / "summary.json").read_text())["knn_top1"]


def test_the_policy_has_moved(whole):
    config = export.load(whole).config
    start = PolicyNetwork(config, 16)
    moved = export.load(whole).state_dict()
    assert any(not torch.equal(value, moved[name]) for name, value in start.state_dict().items() if "head" in name)


def test_a_finished_run_prints_its_table_again_and_changes_nothing(whole, capsys, quick):
    before = (whole / "policy.safetensors").read_bytes(), learned(whole)
    rows = (whole / "metrics.jsonl").read_text()
    capsys.readouterr()
    run(whole.parent)
    printed = capsys.readouterr().out
    assert all(name in printed for name in SUMMARY)
    assert (whole / "policy.safetensors").read_bytes() == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in learned(whole).items())
    assert (whole / "metrics.jsonl").read_text() == rows


def test_equal_seeds_end_equal_and_others_do_not(tmp_path, quick):
    one, same, other = run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "c", "--seed", "1")
    assert_equal_ends(one, same)
    assert (one / "policy.safetensors").read_bytes() != (other / "policy.safetensors").read_bytes()

    def figures(folder: Path) -> list[dict[str, float]]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]

    assert figures(one) == figures(same)
    assert figures(one) != figures(other)


def cut_in(patch: pytest.MonkeyPatch, step: int, how) -> None:
    """Let something happen in the middle of a step, once the learner has made it."""
    original = Engine.learn

    def learn_then(self, views, rows, now, turn):
        result = original(self, views, rows, now, turn)
        if now == step:
            how()
        return result

    patch.setattr(Engine, "learn", learn_then)


def interrupted():
    os.kill(os.getpid(), signal.SIGTERM)


def crashed():
    raise RuntimeError("planted")


@pytest.mark.parametrize(
    "flags",
    [
        ["--reward", "loss-slope", "--reward.credit", "image"],
        ["--reward", "loss-slope", *LITERAL],
        ["--reward", "loss-slope", "--reward.credit", "batch", "--reward.baseline", "ema"],
        ["--reward", "loss-slope", "--reward.baseline", "critic", "--reward.scaling", "quantiles"],
        ["--reward", "adversarial", "--reward.baseline", "table"],
        ["--reward", "loss-slope", "--algorithm", "ppo"],
        ["--views", "all", "--views.count", "3", "--loss", "spherical", "--augment.strength", "0.5"],
        ["--views", "hard", "--contrastive.chunk", "4", "--reward.reference.kind", "expert"],
    ],
    ids=["reference-image", "literal", "reference-batch", "critic", "table", "ppo", "spherical", "hard"],
)
def test_a_cut_run_ends_where_an_uncut_one_ends(tmp_path, quick, flags):
    uncut = run(tmp_path / "uncut", *flags)
    for at, how, error in ((4, interrupted, UsageError), (6, crashed, RuntimeError)):
        cut = tmp_path / f"cut{at}"
        with pytest.MonkeyPatch.context() as patch:
            cut_in(patch, at, how)
            with pytest.raises(error, match=f"stopped at step {at + 1} of {STEPS}|planted"):
                run(cut, *flags)
        assert not (cut / "tiny" / "policy.safetensors").exists()
        assert f"{at + 1 if how is interrupted else 4}/" in next(iter(learned(cut / "tiny")))
        assert_equal_ends(run(cut, *flags), uncut)


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
import run_rl
from env import reference
from env.engine import Engine
reference.DRAWS = 1
original = Engine.learn
def learn(self, views, rows, step, turn):
    if step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, views, rows, step, turn)
Engine.learn = learn
run_rl.main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, quick, capsys):
    uncut = run(tmp_path / "uncut")
    cut = tmp_path / "cut"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *TINY, "--runs", str(cut)], cwd=ROOT, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert next(iter(learned(cut / "tiny"))).startswith("4/")
    capsys.readouterr()
    assert_equal_ends(run(cut), uncut)
    assert f"at step 4 of {STEPS}" in capsys.readouterr().out


def test_the_rates_of_downsampling_are_told_each_under_its_factor():
    told = run_rl.rates(fixed_rates(5, 4, 0.25, 0.4, (0.1, 0.3), torch.device("cpu")), True)
    rates = {"mask_ratio": 0.25, "p_decolorize": 0.4, "p_downsample_2": 0.1, "p_downsample_4": 0.3}
    assert {name: told[f"policy/{name}"].item() for name in rates} == pytest.approx(rates)
    assert told.keys() == {f"policy/{name}" for name in (*rates, "entropy")}


@pytest.fixture
def systems(monkeypatch):
    """The systems of runs, as they are built."""
    built, original = [], run_rl.System

    def kept(*given):
        built.append(original(*given))
        return built[-1]

    monkeypatch.setattr(run_rl, "System", kept)
    return built


def test_a_generator_that_changes_in_the_run_is_found_out_by_its_hashes(tmp_path, quick, monkeypatch, systems):
    def spoiled():
        with torch.no_grad():
            next(systems[0].generator._generator.parameters()).view(-1)[0] += 1

    cut_in(monkeypatch, 1, spoiled)
    summary = json.loads((run(tmp_path, "--steps", "3") / "summary.json").read_text())
    assert summary["camnet_sha256_before"] == frozen.load("digits", torch.device("cpu")).sha256()
    assert summary["camnet_sha256_after"] == systems[0].generator.sha256() != summary["camnet_sha256_before"]


def test_the_end_compares_with_the_start_on_test_images_and_pictures_both_in_order(
    tmp_path, quick, monkeypatch, systems
):
    asked, pictured = [], []

    def spied_accuracies(learner, *images):
        asked.append(images)
        return dict.fromkeys(("knn_top1", "linear_top1"), 0.75 if learner is systems[0].learner else 0.25)

    monkeypatch.setattr(run_rl, "accuracies", spied_accuracies)
    monkeypatch.setattr(run_rl.pictures, "draw", lambda sheets, path: pictured.append(sheets))
    folder = run(tmp_path, "--steps", "4", "--policy.learning-rate", "0.5")
    (s,), (sheets,) = systems, pictured
    assert len(asked) == 2
    assert all(train is s.data.train and test is s.data.test for train, test in asked)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["knn_top1_untrained"], summary["knn_top1"]) == (0.25, 0.75)
    before, after = (s.sheet(policy).grid() for policy in (s.new_policy(), s.policy))
    assert not torch.equal(before, after)
    assert list(sheets) == ["before training", "after training"]
    for drawn, expected in zip(sheets.values(), (before, after), strict=True):
        assert torch.equal(drawn.grid(), expected)


def test_a_finished_run_goes_on_when_its_steps_are_raised(tmp_path, quick):
    run(tmp_path, "--steps", "3")
    folder = run(tmp_path, "--steps", "5")
    assert json.loads((folder / "summary.json").read_text())["steps"] == 5
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == 5


@pytest.mark.parametrize(
    ("name", "mask_ratio", "gray"),
    [
        ("random", 0.25, 0.1),
        ("cowmask", 0.25, 0.1),
        ("crop", 0.25, 0.1),
        ("downsample", 0, 0),
        ("decolorize", 0, 1),
        ("none", 0, 0),
    ],
)
def test_a_policy_that_learns_nothing_exports_nothing(tmp_path, quick, name, mask_ratio, gray):
    folder = run(tmp_path, "--policy", name, "--reward", "none", "--policy.mask-ratio", "0.25", "--steps", "3")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["policy"], summary["reward"]) == (name, "none")
    assert summary["mask_ratio"] == pytest.approx(mask_ratio, abs=0.02)
    assert summary["p_decolorize"] == pytest.approx(gray)
    assert summary["p_downsample"][0] == pytest.approx({"downsample": 0.5, "decolorize": 0, "none": 0}.get(name, 0.1))
    assert not list(folder.glob("policy.*"))
    assert not any("/policy" in name for name in learned(folder))


@pytest.mark.parametrize(
    "flags",
    [
        ["--policy", "autodropout"],
        ["--policy", "latent"],
        ["--policy.mask", "budget", "--policy.grid", "8"],
        ["--policy.mask", "smooth"],
        ["--policy.grid", "16"],
        ["--policy.estimator", "disarm"],
        ["--policy.estimator", "evolution", "--policy.perturbations", "4"],
        ["--algorithm", "a2c"],
        ["--algorithm", "ppo"],
        ["--policy", "autodropout", "--policy.estimator", "evolution"],
    ],
    ids=" ".join,
)
def test_every_policy_and_estimator_learns_and_is_exported(tmp_path, quick, flags):
    folder = run(tmp_path, *flags, "--steps", "4")
    exported = export.load(folder)
    start = run_rl.System(read(RunConfig, [*TINY, *flags], prog="", description=""), torch.device("cpu")).new_policy()
    moved = exported.state_dict()
    assert any(not torch.equal(value, moved[name]) for name, value in start.state_dict().items())
    assert all(value.isfinite().all() for value in moved.values())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"reward/raw", "policy/mask_ratio", "policy/entropy"} <= set().union(*rows)


@pytest.mark.parametrize(
    "flags",
    [
        ["--views", "most-different", "--views.scoring-scale", "2", "--views.scoring-bfloat16", "True"],
        ["--views", "hard", "--reward.baseline", "rloo:2"],
        ["--views", "all", "--loss", "paper", "--algorithm", "a2c"],
        ["--policy", "latent", "--views", "policy"],
        ["--contrastive.encoder", "mobilenet_v3_small", "--augment.strength", "1", "--augment.crop", "edge"],
        ["--policy", "none", "--reward", "none", "--data.size", "32", "--augment.strength", "1"],
    ],
    ids=["most-different", "hard", "all", "policy", "mobilenet", "simclr"],
)
def test_views_losses_and_encoders_meet_in_a_run(tmp_path, quick, flags):
    fill = ["--generator", "noise"] if "--data.size" in flags else []  # no generator is shipped for digits of that size
    folder = run(tmp_path, *flags, *fill)
    summary = json.loads((folder / "summary.json").read_text())
    assert math.isfinite(summary["seconds"])
    assert summary["views"] == dict(pairwise(flags)).get("--views", "auto")
    backbone = safetensors.torch.load_file(folder / "backbone.safetensors")
    trained = learned(folder)
    name = next(name for name in backbone if name.endswith("weight"))
    assert torch.equal(backbone[name], trained[f"{summary['steps']}/learner/encoder.{name}"])


def test_the_learner_sees_as_many_views_as_asked(tmp_path, quick, monkeypatch):
    shapes, original = [], Engine.learn

    def learn(self, views, *rest):
        shapes.append(tuple(views[0].shape[:2]))
        return original(self, views, *rest)

    monkeypatch.setattr(Engine, "learn", learn)
    run(tmp_path / "all", "--views", "all", "--views.count", "3", "--steps", "1")
    run(tmp_path / "hard", "--views", "hard", "--views.count", "3", "--steps", "1")
    assert shapes == [(3, 16), (2, 16)]


def test_a_budget_hides_exactly_its_share(tmp_path, quick):
    folder = run(tmp_path, "--policy.mask", "budget", "--policy.mask-ratio", "0.25", "--steps", "3")
    assert json.loads((folder / "summary.json").read_text())["mask_ratio"] == pytest.approx(0.25)


def test_a_policy_may_start_from_another_run_and_stay_as_it_is(tmp_path, quick, whole):
    frozen_policy = run(tmp_path, "--policy.from", str(whole), "--reward", "none", "--steps", "3")
    assert (frozen_policy / "policy.safetensors").read_bytes() == (whole / "policy.safetensors").read_bytes()
    warm = run(tmp_path / "warm", "--policy.from", str(whole), "--steps", "4")
    assert (warm / "policy.safetensors").read_bytes() != (whole / "policy.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"--policy.from .*--policy.grid 4 there, 2 here"):
        run(tmp_path / "other", "--policy.from", str(whole), "--policy.grid", "2")


def test_a_frozen_policy_is_in_the_checkpoint_and_no_longer_in_the_folder_it_came_from(tmp_path, quick, whole):
    source = tmp_path / "source"
    export.export(export.load(whole), source, {})
    flags = ["--policy.from", str(source), "--reward", "none"]
    run(tmp_path, *flags, "--steps", "2")
    export.export(PolicyNetwork(export.load(whole).config, 16), source, {})  # trained anew
    later = run(tmp_path, *flags, "--steps", "4")
    assert (later / "policy.safetensors").read_bytes() == (whole / "policy.safetensors").read_bytes()


def test_a_run_goes_on_with_its_own_images_alone(tmp_path, quick, monkeypatch):
    run(tmp_path, "--steps", "2")
    monkeypatch.setattr("env.images.MIN_CONTRAST", 0.5)  # other colors
    with pytest.raises(UsageError, match=r"began with other source images: .*--data\.root.*--name OTHER"):
        run(tmp_path, "--steps", "3")
    assert "steps: 2\n" in (tmp_path / "tiny" / "config.yaml").read_text()  # as it was


def test_a_run_goes_on_with_its_own_generator_alone(tmp_path, quick):
    path = tmp_path / "mine.safetensors"
    weights = safetensors.torch.load_file(frozen.SHIPPED / "digits.safetensors")
    card = json.loads((frozen.SHIPPED / "digits.json").read_text())

    def write() -> None:
        path.write_bytes(safetensors.torch.save(weights))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(card | {"file_sha256": sha256}))

    write()
    run(tmp_path, "--generator", str(path), "--steps", "2")
    run(tmp_path, "--generator", str(path), "--steps", "3")
    own = card["generator"]
    card["generator"] = own | {"prior_temperature": 0.5}  # which no weight tells
    write()
    with pytest.raises(UsageError, match=r"began with other settings of the generator: .*mine\.safetensors.*OTHER"):
        run(tmp_path, "--generator", str(path), "--steps", "4")
    card["generator"] = own
    next(iter(weights.values())).view(-1)[0] += 1  # trained further, under the same name
    write()
    with pytest.raises(UsageError, match=r"began with other weights of the generator: .*mine\.safetensors.*OTHER"):
        run(tmp_path, "--generator", str(path), "--steps", "4")


def test_a_single_class_and_a_single_test_image_end_with_what_can_be_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "DRAWS", 1)
    monkeypatch.setattr("env.images.TEST_IMAGES", 10)  # one of them is a 3
    folder = run(tmp_path, "--data.classes", "3", "--steps", "2")
    text = (folder / "summary.json").read_text()
    summary = json.loads(text)
    assert "NaN" not in text
    assert (summary["linear_top1"], summary["linear_top1_untrained"], summary["knn_top1"]) == (None, None, 1.0)
    assert json.loads((folder / "backbone.json").read_text())["about"]["linear_top1"] is None
    assert (folder / "views.png").read_bytes().startswith(b"\x89PNG")


def test_no_figure_that_fails_costs_the_weights(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(run_rl, "accuracies", lambda *_: crashed())
    with pytest.raises(RuntimeError, match="planted"):
        run(tmp_path, "--steps", "2")
    assert export.load(tmp_path / "tiny")
    for card in told(tmp_path / "tiny"):
        assert (card["run"], card["steps"], card["reward"], card["data"]["name"]) == ("tiny", 2, "loss-slope", "digits")
    assert not (tmp_path / "tiny" / "summary.json").exists()


def told(folder: Path) -> list[dict[str, object]]:
    return [json.loads((folder / f"{name}.json").read_text())["about"] for name in ("backbone", "policy")]


def test_a_finished_run_that_fails_when_it_is_given_again_keeps_its_cards(tmp_path, quick, monkeypatch):
    folder = run(tmp_path, "--steps", "2")
    cards = told(folder)
    assert all(card["knn_top1"] == 0.5 for card in cards)
    monkeypatch.setattr(run_rl, "accuracies", lambda *_: crashed())
    with pytest.raises(RuntimeError, match="planted"):
        run(tmp_path, "--steps", "2")
    assert told(folder) == cards


def test_the_same_command_keeps_programs_that_were_exported(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(export, "programs", lambda network, config: {"policy.pt2": export.Written(b"program")})
    folder = run(tmp_path, "--steps", "2")
    export.main([str(folder)])
    card = json.loads((folder / "policy.json").read_text())
    run(tmp_path, "--steps", "2")
    assert (folder / "policy.pt2").exists()
    assert json.loads((folder / "policy.json").read_text())["files"] == card["files"]
    run(tmp_path, "--steps", "4")
    assert not (folder / "policy.pt2").exists()


COMBINATIONS = [
    ["loss-slope", "reference", "image", "auto"],
    ["loss-slope", "reference", "batch", "none"],
    ["loss-slope", "training", "image", "batch"],
    ["adversarial", "reference", "image", "ema"],
    ["adversarial", "training", "batch", "ema"],
    ["cooperative", "reference", "image", "auto"],
    ["none", "reference", "image", "auto"],
    ["val-loss", "reference", "batch", "auto"],
    ["knn", "reference", "image", "auto"],
    ["prediction-gain", "reference", "image", "auto"],
    ["prediction-gain", "reference", "batch", "auto"],
    ["loss-slope", "reference", "image", "rloo:3"],
    ["adversarial", "reference", "image", "greedy"],
]
"""With the runs above, every reward with every place to measure and every credit that acts on it."""


@pytest.mark.parametrize(("name", "measured_on", "credit", "baseline"), COMBINATIONS)
def test_every_allowed_reward_runs(tmp_path, quick, name, measured_on, credit, baseline):
    flags = ["--reward", name, "--reward.measured-on", measured_on, "--reward.credit", credit]
    folder = run(tmp_path, *flags, "--reward.baseline", baseline, "--steps", "3")
    curves = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seen = set().union(*curves)
    assert ("reward/raw" in seen) == (name != "none")
    assert all(abs(value) < 1e6 for row in curves for value in row.values())
    untouched = json.loads((folder / "summary.json").read_text())["reward_average"] is None
    assert untouched == (name == "none")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--reward", "knn"], "--reward knn is paid by labels"),
        (["--reward.measured-on", "training"], "easier than recent ones"),
        (["--reward", "cooperative"], "pays for easy pairs"),
        ([], ""),
    ],
)
def test_a_run_says_beforehand_what_its_reward_is_paid_for(flags, said):
    caution = read(RunConfig, flags, prog="", description="").reward.caution
    assert said in caution
    assert bool(caution) == bool(said)


def test_labels_may_be_the_reference(tmp_path, quick, capsys):
    folder = run(tmp_path, "--reward.reference.kind", "labels", "--steps", "3")
    assert "is paid by labels" in capsys.readouterr().err
    assert json.loads((folder / "summary.json").read_text())["reference"] == "labels"


def test_the_policy_waits_for_its_warmup_and_its_turn(tmp_path, quick, monkeypatch):
    turns = []
    original = Engine.learn

    def learn(self, views, rows, step, turn):
        turns.append((step, turn.rewarded))
        return original(self, views, rows, step, turn)

    monkeypatch.setattr(Engine, "learn", learn)
    run(tmp_path, "--schedule.warmup", "3", "--schedule.policy-every", "2", "--steps", "8")
    assert [step for step, rewarded in turns if rewarded] == [4, 6]
    turns.clear()
    run(tmp_path / "until", "--schedule.policy-until", "0.5", "--steps", "8")
    assert [step for step, rewarded in turns if rewarded] == [
        1,
        2,
        3,
    ]  # of steps 0 to 3, a half, the first is for warming up


def test_the_policy_descends_its_loss_minus_the_entropys_bonus_plus_the_masks_guard(tmp_path, quick, monkeypatch):
    """In value and in gradient, by the share of the schedule, with the weights that were set."""
    loss_of, step, expected, checked = ScoreFunction.loss, Descent.step, [], []

    def spied_loss(self, pi, *rest):
        loss, figures = loss_of(self, pi, *rest)
        ratio = pi.mask_ratio()
        guard = ((0.5 - ratio).clamp(min=0) + (ratio - 0.6).clamp(min=0)).square().mean()
        expected.append((loss, 0.3 * pi.entropy().mean(), 7 * guard))
        return loss, figures

    def spied_step(self, handed, share=1.0):
        if expected:
            loss, bonus, guard = expected.pop()
            meant = loss - bonus + guard
            assert handed.item() == pytest.approx(meant.item(), rel=1e-5)
            gradients = [torch.autograd.grad(each, self.parameters, retain_graph=True) for each in (handed, meant)]
            for found, wanted in zip(*gradients, strict=True):
                torch.testing.assert_close(found, wanted)
            checked.append((share, min(abs(part.item()) for part in (loss, bonus, guard))))
        return step(self, handed, share)

    monkeypatch.setattr(ScoreFunction, "loss", spied_loss)
    monkeypatch.setattr(Descent, "step", spied_step)
    weights = ["--policy.entropy-weight", "0.3", "--policy.ratio-weight", "7", "--policy.ratio-range", "0.5", "0.6"]
    run(tmp_path, *weights, "--steps", "4")
    assert [share for share, _ in checked] == [one_cycle(step / 4) for step in (1, 2, 3)]
    assert all(smallest > 0.01 for _, smallest in checked)


def test_weights_are_perturbed_for_a_reward_alone(tmp_path, quick, monkeypatch):
    corruptions, perturbed, learn, look = [], [], Engine.learn, Evolution.look
    monkeypatch.setattr(Engine, "learn", lambda *given: corruptions.append(len(given[1])) or learn(*given))
    monkeypatch.setattr(Evolution, "look", lambda *given: perturbed.append(len(corruptions)) or look(*given))
    flags = ["--policy.estimator", "evolution", "--schedule.warmup", "3", "--schedule.policy-every", "2"]
    run(tmp_path, *flags, "--steps", "8")
    assert perturbed == [4, 6]
    assert corruptions == [1, 1, 1, 1, 2, 1, 2, 1]


def test_the_generator_never_sees_what_was_deleted(tmp_path, quick, monkeypatch):
    """Nor does the learner see an unrestored image: the pairs are the generator's two views."""
    restored, learned_from = [], []
    restore, learn = frozen.FrozenGenerator.views, Engine.learn

    def spied_views(self, corrupted, k, random, proposed=None, codes=None):
        assert (corrupted.kept[corrupted.hidden.bool().expand_as(corrupted.kept)] == 0).all()
        views = restore(self, corrupted, k, random, proposed, codes)
        restored.append(views)
        return views

    def spied_learn(self, shown, *rest):
        assert all(any(torch.equal(each, views.transpose(0, 1)) for views in restored) for each in shown)
        learned_from.append(shown[0])
        return learn(self, shown, *rest)

    monkeypatch.setattr(frozen.FrozenGenerator, "views", spied_views)
    monkeypatch.setattr(Engine, "learn", spied_learn)
    run(tmp_path, "--steps", "2")
    assert len(learned_from) == 2
    assert not any(view.requires_grad for view in learned_from)


def test_a_checkpoint_holds_nothing_but_tensors_and_text(whole):
    for path in (whole / "checkpoints").iterdir():
        assert safetensors.torch.load(path.read_bytes())


def planted_nan(patch: pytest.MonkeyPatch, where: str, steps: range) -> None:
    """Let some steps have views, or a reference loss, that are no numbers."""
    learn, held_out, now = Engine.learn, run_rl.System._held_out_loss, []

    def spoiled_learn(self, views, rows, step, turn):
        now[:] = [step]
        spoiled = float("nan") if step in steps and where == "views" else 1.0
        return learn(self, [spoiled * v for v in views], rows, step, turn)

    def spoiled_loss(self, *rest):
        loss = held_out(self, *rest)
        return loss * float("nan") if now[0] in steps and where == "reference" else loss

    patch.setattr(Engine, "learn", spoiled_learn)
    patch.setattr(run_rl.System, "_held_out_loss", spoiled_loss)


@pytest.mark.parametrize(
    ("where", "flags"),
    [
        ("views", []),
        ("views", LITERAL),
        ("views", ["--reward.credit", "batch"]),
        ("reference", []),
        ("reference", ["--reward.credit", "batch"]),
        ("views", ["--reward.baseline", "ema", "--reward.scaling", "quantiles"]),
        ("views", ["--reward.baseline", "table"]),
        ("views", ["--reward.baseline", "critic"]),
        ("views", ["--reward.baseline", "rloo:2", "--reward", "adversarial"]),
        ("views", ["--policy.estimator", "evolution"]),
    ],
)
def test_a_step_without_numbers_is_left_out_and_leaves_no_trace(tmp_path, quick, monkeypatch, where, flags):
    planted_nan(monkeypatch, where, range(3, 4))
    kept = learned(run(tmp_path, *flags))
    unpaid = where == "views" or "--reward.credit" in flags  # credit by the image leaves out the reference alone
    assert kept[f"{STEPS}/learner's descent/skipped"] == (where == "views")
    assert kept[f"{STEPS}/policy's descent/skipped"] == unpaid
    lost = [name for name, value in kept.items() if not name.endswith("/seen") and not value.isfinite().all()]
    assert not lost


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_stable_baselines_learns_nothing_from_a_step_without_numbers(tmp_path, quick, monkeypatch, algorithm):
    planted_nan(monkeypatch, "views", range(3, 4))
    folder = run(tmp_path, "--algorithm", algorithm, "--steps", "4", "--schedule.checkpoint-every", "1")
    after = learned(folder)
    (folder / "checkpoints" / "step_00000004.safetensors").unlink()
    before = {name: value for name, value in learned(folder).items() if name.startswith("3/algorithm/")}
    assert any("/optimizer/" in name for name in before)
    for name, value in before.items():
        assert torch.equal(value, after[name.replace("3/", "4/", 1)]), name
    assert after["4/reward average/total"].isfinite()


def test_too_many_steps_without_numbers_end_the_run(tmp_path, quick, monkeypatch):
    monkeypatch.setattr("training.run.MAX_SKIPPED", 2)
    planted_nan(monkeypatch, "views", range(2, STEPS))
    with pytest.raises(UsageError, match=r"descent: \d steps in a row had no finite gradient .* step size"):
        run(tmp_path)
