"""A configuration is what flags and files say, the later over the earlier; all else stops with a remedy."""

from dataclasses import replace
from pathlib import Path

import pytest

from configs.camnet import CamnetConfig, GeneratorConfig
from configs.errors import UsageError
from configs.policy import PolicyConfig
from configs.reading import differences, read, write
from configs.reward import ReferenceConfig, RewardConfig
from configs.run import RunConfig, ScheduleConfig


def parse(*argv: str) -> RunConfig:
    return read(RunConfig, argv, prog="run_rl.py", description="Test.")


@pytest.fixture
def file(tmp_path):
    def write_file(text: str, name: str = "settings.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write_file


def test_paths_may_begin_at_home(file, monkeypatch):
    monkeypatch.setenv("HOME", "/somebody")
    config = parse("--config", file("runs: ~/runs"), "--data.root=~/photos", "--data", "imagefolder")
    assert (config.runs, config.data.root) == (Path("/somebody/runs"), Path("/somebody/photos"))


def test_nothing_given_means_the_defaults():
    assert parse() == RunConfig()


@pytest.mark.parametrize("flag", ["--reward", "--reward.name"])
def test_a_flag_and_its_alias_are_one_setting(flag):
    assert parse(flag, "cooperative").reward.name == "cooperative"
    assert parse("--reward", "none", flag, "adversarial").reward.name == "adversarial"
    assert parse(flag, "adversarial", "--reward", "none").reward.name == "none"


@pytest.mark.parametrize("text", ["reward: {name: adversarial}", "reward: adversarial", "reward.name: adversarial"])
@pytest.mark.parametrize("flag", ["--reward", "--reward.name"])
def test_the_later_wins_across_files_flags_and_aliases(file, text, flag):
    path = file(text)
    assert parse("--config", path).reward.name == "adversarial"
    assert parse("--config", path, flag, "none").reward.name == "none"
    assert parse(flag, "none", f"--config={path}").reward.name == "adversarial"
    other = file("reward: cooperative", "other.yaml")
    assert parse("--config", path, "--config", other).reward.name == "cooperative"


def test_values_of_a_file_get_the_type_of_their_setting(file):
    path = file(
        "policy:\n  learning_rate: 3e-4\n  ratio-range: [0.1, 1e-1]\nseed: 7\nname: '-x=on'\nruns: /tmp/a b\nsteps: 5\n"
    )
    config = parse("--config", path)
    assert (config.policy.learning_rate, config.policy.ratio_range) == (3e-4, (0.1, 0.1))
    assert (config.seed, config.name, config.runs, config.schedule.steps) == (7, "-x=on", Path("/tmp/a b"), 5)


@pytest.mark.parametrize("text", ["true", "True", "false"])
def test_booleans_are_spelled_as_yaml_or_python_spell_them(file, text):
    config = read(CamnetConfig, ["--config", file(f"recolor: {text}")], prog="camnet.train", description="")
    assert config.recolor is (text.lower() == "true")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("policy:\n  mask-ration: 0.2", ["line 2", "policy.mask-ration", "policy.mask-ratio"]),
        ("polcy: {grid: 2}", ["polcy", "policy"]),
        ("seed: three", ["line 1", "seed", "a whole number", "'three'"]),
        ("policy: {grid: 2.5}", ["policy.grid", "a whole number", "'2.5'"]),
        ("policy: {mask-ratio: lots}", ["policy.mask-ratio", "a number", "'lots'"]),
        ("policy: {mask-ratio: 7}", ["policy.mask-ratio", "[0, 1]", "got 7"]),
        ("reward: los-slope", ["reward.name", "adversarial", "did you mean loss-slope?"]),
        ("policy: {ratio-range: [0.1]}", ["policy.ratio-range", "2 values"]),
        ("policy: {ratio-range: 0.1}", ["policy.ratio-range", "2 values"]),
        ("seed: [1]", ["seed", "a whole number"]),
        ("seed: {a: 1}", ["seed", "a whole number"]),
        ("seed: [[1]]", ["seed", "nested"]),
        ("seed:", ["seed", "no value"]),
        ("name: null", ["name", "no value"]),
        ("policy:", ["policy.name", "no value"]),
        ("seed: 1\nseed: 2", ["line 2", "seed", "twice"]),
        ("policy: &a {policy: *a}", ["policy.policy"]),
        ("schedule: 3", ["schedule", "section"]),
        ("? [a]\n: 1", ["key"]),
        ("- seed", ["key: value"]),
        ("", ["key: value"]),
        ("seed: [", ["not valid YAML"]),
        ("!!python/object/apply:os.system ['true']", ["key: value"]),
    ],
)
def test_a_bad_file_stops_with_its_name_the_key_and_what_is_allowed(file, text, parts):
    path = file(text)
    with pytest.raises(UsageError) as caught:
        parse("--config", path)
    for part in [path, *parts]:
        assert part in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(UsageError, match=str(path)):
            parse("--config", str(path))


@pytest.mark.parametrize("argv", [["--config"], ["--config", "--seed", "1"], ["--config="]])
def test_config_without_a_file_says_so(argv):
    with pytest.raises(UsageError, match="--config FILE"):
        parse(*argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--policy.mask-ratio", "7"], r"^--policy.mask-ratio must lie in \[0, 1\], got 7$"),
        (["--policy", "random"], "^--policy random .* add --reward none$"),
        (
            ["--reward", "los-slope"],
            "^--reward must be one of loss-slope, val-loss, .*did you mean loss-slope",
        ),
        (
            ["--reward=xyzzy"],
            "^--reward must be one of loss-slope, val-loss, .*cooperative, knn, none, got 'xyzzy'$",
        ),
    ],
)
def test_a_bad_flag_comes_out_as_one_line(argv, message, capfd):
    with pytest.raises(UsageError, match=message):
        parse(*argv)
    assert capfd.readouterr() == ("", "")


def test_a_flag_that_mends_a_file_is_not_blamed_on_it(file):
    path = file("policy: {mask-ratio: 7}")
    assert parse("--config", path, "--policy.mask-ratio", "0.5").policy.mask_ratio == 0.5
    with pytest.raises(UsageError) as caught:
        parse("--config", path, "--policy.mask-ratio", "8")
    assert path not in str(caught.value)


def test_an_unknown_flag_exits_with_status_2_and_names_a_valid_one(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--policy.mask-ration", "0.2")
    assert caught.value.code == 2
    assert "--policy.mask-ratio" in capsys.readouterr().err


@pytest.mark.parametrize("resumes", [False, True])
def test_help_teaches_files_and_resuming_where_a_program_resumes(capsys, resumes):
    with pytest.raises(SystemExit) as caught:
        read(RunConfig, ["--help"], prog="run_rl.py", description="Test.", resumes=resumes)
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "--config" in text
    assert ("resumes" in text) == resumes


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(name="", runs=Path("/a b/c"), generator="null", seed=3),
        RunConfig(name="true", generator="x: y # z"),
        RunConfig(
            policy=PolicyConfig(learning_rate=1e-7, ratio_range=(0.3, 0.3), downsample=(0.0, 1 / 3)),
            reward=RewardConfig(name="adversarial", reference=ReferenceConfig(kind="labels")),
            schedule=ScheduleConfig(steps=10**9),
        ),
        CamnetConfig(recolor=True, candidates=(4, 2), generator=GeneratorConfig(resolutions=(8, 16), widths=(8, 16))),
    ],
)
def test_what_is_written_reads_back_equal(file, config):
    path = file(write(config))
    assert read(type(config), ["--config", path], prog="p", description="") == config


def test_differences_are_named_as_flags():
    old = RunConfig()
    new = replace(old, seed=1, policy=replace(old.policy, mask_ratio=0.4))
    assert differences(old, old) == {}
    assert differences(old, new) == {"seed": (0, 1), "policy.mask-ratio": (0.3, 0.4)}
