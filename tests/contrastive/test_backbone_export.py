"""An exported backbone gives the learner's features in the hands of torchvision, timm or onnxruntime alone."""

import hashlib
import json
import sys

import pytest
import safetensors.torch
import torch
import torchvision

from configs.contrastive import ContrastiveConfig
from configs.errors import UsageError
from configs.reading import write
from configs.run import RunConfig
from contrastive import portable
from contrastive.encoder import Learner
from contrastive.export import export, main
from training import checkpoint


def images(n, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(n))


def trained(encoder, size=32):
    """A learner whose running statistics have moved."""
    torch.manual_seed(0)
    learner = Learner(ContrastiveConfig(encoder=encoder, width=8, projection=16), size)
    with torch.no_grad():
        learner(images(8, size))
    return learner


def expected(learner, x):
    with torch.no_grad():
        return learner.eval().features(x)


def test_plain_torchvision_rebuilds_the_features_exactly(tmp_path):
    learner = trained("resnet18")
    path = export(learner, tmp_path, {"run": "test"})
    assert learner.training
    state = safetensors.torch.load_file(path)
    net = torchvision.models.resnet18()
    missing, unexpected = net.load_state_dict({k: v for k, v in state.items() if k != "conv1.weight"}, strict=False)
    assert sorted(missing) == ["conv1.weight", "fc.bias", "fc.weight"]
    assert unexpected == []
    net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.conv1.weight.data = state["conv1.weight"]
    net.maxpool, net.fc = torch.nn.Identity(), torch.nn.Identity()
    x = images(5)
    with torch.no_grad():
        h = net.eval()((2 * x - 1).contiguous(memory_format=torch.channels_last))
    assert torch.equal(h, expected(learner, x))


@pytest.mark.parametrize("encoder", ["small", "resnet18", "mobilenet_v3_small", "timm:resnet10t"])
def test_the_card_tells_how_to_load(encoder, tmp_path, monkeypatch):
    if encoder.startswith("timm:"):
        pytest.importorskip("timm")
    learner = trained(encoder)
    export(learner, tmp_path, {})
    lines = json.loads((tmp_path / "backbone.json").read_text())["load"]
    assert encoder == "small" or not any("contrastive" in line for line in lines)
    monkeypatch.chdir(tmp_path)
    x = images(5)
    space = {"images": x}
    exec("\n".join(lines), space)
    assert torch.allclose(space["features"], expected(learner, x), rtol=1e-4, atol=1e-5)


def test_an_encoder_whose_cache_holds_a_gradient_can_be_exported(tmp_path):
    pytest.importorskip("timm")
    learner = Learner(ContrastiveConfig(encoder="timm:levit_128s", projection=16), 32).eval()
    learner(images(2)).sum().backward()
    export(learner, tmp_path, {})
    assert not learner.encoder.training


def test_the_card_tells_what_a_reader_needs(tmp_path):
    weights = export(trained("resnet18"), tmp_path, {"run": "test", "steps": 3})
    card = json.loads((tmp_path / "backbone.json").read_text())
    assert {name: card[name] for name in ("encoder", "image_size", "any_size", "stem", "features")} == {
        "encoder": "resnet18",
        "image_size": 32,
        "any_size": True,
        "stem": "cifar",
        "features": 512,
    }
    assert card["normalization"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert card["about"] == {"run": "test", "steps": 3}
    assert card["versions"]["torch"] == torch.__version__
    content = weights.read_bytes()
    assert card["files"] == {
        "backbone.safetensors": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    }


@pytest.mark.parametrize("encoder", ["small", "squeezenet1_1"])
def test_onnx_gives_the_features_for_any_batch(encoder, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    learner = trained(encoder)
    export(learner, tmp_path, {}, onnx=True)
    content = (tmp_path / "backbone.onnx").read_bytes()
    entry = json.loads((tmp_path / "backbone.json").read_text())["files"]["backbone.onnx"]
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert sorted(entry["parity"]) == ["1", "5", "64"]
    assert all(0 <= difference < portable.TOLERANCE for difference in entry["parity"].values())
    assert b".py" not in content
    session, x = runtime.InferenceSession(content), images(7)
    (h,) = session.run(["features"], {"images": x.numpy()})
    assert torch.allclose(torch.from_numpy(h), expected(learner, x), rtol=1e-4, atol=1e-4)


def test_a_program_that_says_something_else_is_refused():
    net = trained("small").encoder.eval()
    with pytest.raises(RuntimeError, match="differs from the backbone"):
        portable.parity(net, 32, lambda x: portable.Portable(net)(x) * 1.001)
    with pytest.raises(RuntimeError, match="differs from the backbone by nan"):
        portable.parity(net, 32, lambda x: portable.Portable(net)(x) * float("nan"))


def test_weights_that_are_read_back_differently_are_refused(tmp_path, monkeypatch):
    whole = safetensors.torch.load
    monkeypatch.setattr(
        safetensors.torch, "load", lambda data: {name: value + 1 for name, value in whole(data).items()}
    )
    with pytest.raises(RuntimeError, match="features differ"):
        export(trained("small"), tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_infinite_weights_are_refused(tmp_path):
    learner = trained("small")
    learner.encoder[0].weight.data[0, 0, 0, 0] = float("inf")
    with pytest.raises(UsageError, match=r"0\.weight hold NaN or infinity"):
        export(learner, tmp_path, {})


def test_a_program_of_another_backbone_does_not_stay(tmp_path):
    for name in ("backbone.onnx", "other"):
        (tmp_path / name).write_bytes(b"")
    export(trained("small"), tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone.json", "backbone.safetensors", "other"]


def test_missing_onnx_stops_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[export\]'"):
        export(trained("small"), tmp_path / "out", {}, onnx=True)
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path, capsys):
    run = tmp_path / "one"
    run.mkdir()
    config = RunConfig(contrastive=ContrastiveConfig(width=8, projection=16))
    (run / "config.yaml").write_text(write(config))
    learner = Learner(config.contrastive, 16)
    checkpoint.save(run / "checkpoints", 30, {"parts": {"learner": learner.state_dict()}, "seconds": 1.0})
    main([str(run)])
    main([str(run), "--out", str(tmp_path / "new" / "place")])
    for folder in (run, tmp_path / "new" / "place"):
        state = safetensors.torch.load_file(folder / "backbone.safetensors")
        assert torch.equal(state["0.weight"], learner.encoder[0].weight)
        about = json.loads((folder / "backbone.json").read_text())["about"]
        assert (about["run"], about["steps"], about["data"]["name"]) == ("one", 30, "digits")
    assert "backbone.safetensors" in capsys.readouterr().out

    export(learner, run, {"run": "one", "knn_top1": 0.8})  # as at the run's end
    for out in (tmp_path / "later", run):
        main([str(run), "--out", str(out)])
        about = json.loads((out / "backbone.json").read_text())["about"]
        assert (about["run"], about["steps"], about["knn_top1"]) == ("one", 30, 0.8)
    learner.encoder[0].weight.data += 1
    checkpoint.save(run / "checkpoints", 40, {"parts": {"learner": learner.state_dict()}, "seconds": 1.0})
    main([str(run)])  # the run went on: those figures are of other weights
    assert json.loads((run / "backbone.json").read_text())["about"]["steps"] == 40
