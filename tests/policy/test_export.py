"""An exported policy is the policy, in any process; anything else is refused by name."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from configs.errors import UsageError
from configs.policy import PolicyConfig
from policy.build import build
from policy.export import Written, export, load, main
from policy.network import PolicyNetwork

ROOT = Path(__file__).parents[2]

IN_A_FRESH_PROCESS = """
import sys, pathlib, safetensors.torch, torch
from policy.export import load
torch.set_num_threads(1)
x = safetensors.torch.load_file(sys.argv[2])["x"]
p = load(pathlib.Path(sys.argv[1]))(x).probabilities()
safetensors.torch.save_file({k: v.detach().contiguous() for k, v in p.items()}, sys.argv[3])
"""


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = PolicyNetwork(PolicyConfig(width=8, downsample=(0.2, 0.1)), 16)
    for head in (network.mask_head, network.downsample_head, network.decolorize_head):
        torch.nn.init.normal_(head.image.weight)  # trained: it no longer treats all images alike
    return network


@pytest.fixture
def exported(network, tmp_path):
    return export(network, tmp_path / "policy", {"run": "test", "steps": 3}).parent


def test_probabilities_are_the_same_bit_for_bit_in_a_fresh_process(network, exported, tmp_path):
    x = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    safetensors.torch.save_file({"x": x}, tmp_path / "x.safetensors")
    arguments = [exported, tmp_path / "x.safetensors", tmp_path / "p.safetensors"]
    subprocess.run([sys.executable, "-c", IN_A_FRESH_PROCESS, *map(str, arguments)], check=True, cwd=ROOT)
    elsewhere = safetensors.torch.load_file(tmp_path / "p.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as there: sums are split among threads
    here = network(x).probabilities()
    torch.set_num_threads(threads)
    assert here["mask"].std() > 0.01
    for name, value in here.items():
        assert torch.equal(value, elsewhere[name]), name


def test_loading_needs_no_run_and_draws_nothing(network, exported):
    state = torch.get_rng_state()
    loaded = load(exported / "policy.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.config == network.config
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_card_tells_what_a_reader_needs(exported):
    card = json.loads((exported / "policy.json").read_text())
    assert card["mask_polarity"] == "1 = hidden"
    assert card["about"] == {"run": "test", "steps": 3}
    assert card["image_size"] == 16
    assert card["policy"]["grid"] == 4
    assert card["output_shapes"] == {"mask": ["n", 4, 4], "downsample": ["n", 3], "decolorize": ["n"]}
    assert card["license"] == "MIT"
    assert card["versions"]["torch"] == torch.__version__
    assert card["trained_on"] is None
    weights = (exported / "policy.safetensors").read_bytes()
    assert card["files"] == {
        "policy.safetensors": {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}
    }
    assert sorted(path.name for path in exported.iterdir()) == ["policy.json", "policy.safetensors"]


@pytest.mark.parametrize("kind", [{"name": "autodropout"}, {"name": "latent"}, {"mask": "budget"}, {"mask": "smooth"}])
def test_every_learned_policy_can_be_exported(kind, tmp_path):
    network = build(PolicyConfig(width=8, **kind), 16, 4)
    for weights in network.parameters():
        torch.nn.init.normal_(weights)
    loaded = load(export(network, tmp_path, {}))
    x = torch.rand(3, 3, 16, 16)
    assert type(loaded) is type(network)
    a, b = (policy(x).sample(torch.Generator().manual_seed(1)) for policy in (network, loaded))
    assert torch.equal(a.mask, b.mask)
    assert (a.code is None) == (kind.get("name") != "latent")
    assert a.code is None or torch.equal(a.code, b.code)


@pytest.mark.parametrize(("start", "range_"), [(b"\x80", 0x100), (b"PK", 0x10000)])
def test_a_header_whose_length_reads_like_a_pickle_or_a_zip_is_neither(network, tmp_path, monkeypatch, start, range_):
    state = network.state_dict()
    bare = int.from_bytes(safetensors.torch.save(state, {"x": ""})[:8], "little")
    padding = (int.from_bytes(start, "little") - bare) % range_
    weights = safetensors.torch.save(state, {"x": " " * padding})
    assert weights.startswith(start)
    monkeypatch.setattr("policy.export._weights", lambda network: weights)
    load(export(network, tmp_path, {}))


def test_the_command_copies_the_policy_and_keeps_what_was_known(exported, tmp_path, capsys):
    main([str(exported), "--out", str(tmp_path / "new" / "place"), "--program", "False", "--onnx", "False"])
    out = tmp_path / "new" / "place"
    assert (out / "policy.safetensors").read_bytes() == (exported / "policy.safetensors").read_bytes()
    assert json.loads((out / "policy.json").read_text()) == json.loads((exported / "policy.json").read_text())
    said = capsys.readouterr().out
    assert str(out) in said
    assert "policy.safetensors" in said
    assert hashlib.sha256((out / "policy.safetensors").read_bytes()).hexdigest()[:16] in said


def test_the_command_replaces_no_other_policy(exported, tmp_path):
    other = export(PolicyNetwork(PolicyConfig(width=8), 16), tmp_path / "other", {})
    for suffix in (".safetensors", ".json"):
        (other.parent / "mine").with_suffix(suffix).write_bytes((exported / "policy").with_suffix(suffix).read_bytes())
    before = other.read_bytes()
    quick = ["--program", "False", "--onnx", "False"]
    for given in ([str(other.parent / "mine.safetensors")], [str(exported), "--out", str(other.parent)]):
        with pytest.raises(UsageError, match=r"policy\.safetensors holds another policy"):
            main([*given, *quick])
    assert other.read_bytes() == before
    for _ in range(2):
        main([str(exported), "--out", str(tmp_path / "own"), *quick])
    main([str(exported), *quick])


def test_programs_stand_in_the_card_and_the_table(exported, monkeypatch, capsys):
    made = {"policy.pt2": Written(b"program", {"1": 0.0, "5": 3e-7})}
    monkeypatch.setattr("policy.export.programs", lambda network, config: made)
    main([str(exported / "policy.safetensors"), "--onnx", "False"])
    entry = json.loads((exported / "policy.json").read_text())["files"]["policy.pt2"]
    assert entry == {"sha256": hashlib.sha256(b"program").hexdigest(), "bytes": 7, "parity": {"1": 0.0, "5": 3e-7}}
    assert "3.0e-07" in capsys.readouterr().out
    load(exported)


def test_programs_of_another_policy_do_not_stay(network, exported):
    for name in ("policy.pt2", "policy.onnx", "other"):
        (exported / name).write_bytes(b"")
    export(network, exported, {})
    assert sorted(path.name for path in exported.iterdir()) == ["other", "policy.json", "policy.safetensors"]


def test_missing_onnx_stops_the_command_before_anything_is_written(exported, monkeypatch):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[export\]'"):
        main([str(exported)])
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before


def test_the_command_says_what_is_missing(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*policy\.safetensors.*when it ends"):
        main([str(tmp_path)])


class Trap:
    """Unpickled, it leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["policy.pt", "policy/policy.safetensors"])
@pytest.mark.parametrize("kind", ["pickle", "zip"])
def test_pickles_and_zips_are_refused_and_never_run(exported, tmp_path, name, kind):
    path, trace = tmp_path / name, tmp_path / "trace"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap(trace)))
    else:
        torch.save(Trap(trace), path)
    with pytest.raises(UsageError, match=kind + r".*can run code.*policy\.safetensors"):
        load(path)
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_refused(exported, kept):
    path = exported / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match="truncated"):
        load(exported)


def test_tampered_weights_are_refused(exported):
    path = exported / "policy.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="changed or comes from another export"):
        load(exported)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"policy": {"grid": 3}}, "grid"),
        ({"policy": {"colour": 1}}, "colour"),
        ({"policy": {"width": 16}}, "does not fit"),
        ({"image_size": 10**9}, "image_size"),
        ({"image_size": "large"}, "damaged"),
        ({"format": 99}, "format 99"),
    ],
)
def test_a_card_that_does_not_describe_the_weights_is_refused(exported, change, reason):
    path = exported / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=reason):
        load(exported)


def test_a_missing_or_damaged_card_is_refused(exported):
    (exported / "policy.json").write_text("{")
    with pytest.raises(UsageError, match=r"policy\.json is no policy card"):
        load(exported)
    (exported / "policy.json").unlink()
    with pytest.raises(UsageError, match=r"cannot read .*policy\.json"):
        load(exported)


def test_weights_that_are_not_numbers_are_refused(network, tmp_path):
    with torch.no_grad():
        network.mask_head.common.fill_(float("nan"))
    with pytest.raises(UsageError, match=r"mask_head\.common hold NaN"):
        export(network, tmp_path, {})
    assert not list(tmp_path.iterdir())
