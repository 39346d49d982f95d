"""Programs made of a policy say what the policy says, for batches of any size, and tell nothing of this machine."""

import json
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from configs.errors import UsageError
from configs.policy import PolicyConfig
from policy import export, portable
from policy.build import build
from policy.portable import BATCHES, TOLERANCE, Portable, outputs, parity, random_images, shapes
from training.onnx import run_onnx

ROOT = Path(__file__).parents[2]
KINDS = {
    "cells": {"mask": "cells"},
    "budget": {"mask": "budget"},
    "smooth": {"mask": "smooth"},
    "autodropout": {"name": "autodropout"},
    "latent": {"name": "latent"},
}
WITH_ONNX = ("cells",)
"""It takes seconds a policy; one is enough to see that ONNX says what the same program says as .pt2."""
# Tracing looks into every call, and cannot look into the shape checks that pytest puts around them.
IN_A_FRESH_PROCESS = """
import pathlib, sys
from policy import export
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    export.main([str(folder), "--onnx", str(folder.name in sys.argv[2:])])
"""


def policy(kind, seed=0):
    """A policy that no longer treats all images alike."""
    torch.manual_seed(seed)
    network = build(PolicyConfig(width=8, **KINDS[kind]), 16, 4)
    for weights in network.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.3)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One exported run of each kind, its programs written by the command."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        export.export(policy(kind), folder / kind, {"data": "digits", "reward": "loss-slope"})
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(folder), *WITH_ONNX]
    subprocess.run(command, check=True, cwd=ROOT)
    return folder


@pytest.mark.parametrize(
    ("kind", "name"), [*((k, "policy.pt2") for k in KINDS), *((k, "policy.onnx") for k in WITH_ONNX)]
)
def test_programs_say_what_the_policy_says(folder, kind, name):
    network, content = export.load(folder / kind), (folder / kind / name).read_bytes()
    program = (run_onnx if name == "policy.onnx" else portable.run_pt2)(content)
    for n in (1, 2, 7):
        images = torch.randint(256, (n, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(10 + n))
        pi = network(images.float() / 255)
        expected = pi.probabilities() | ({"code": pi.code.mean} if kind == "latent" else {})
        found = program(images)
        assert list(found) == list(expected)
        for output, value in expected.items():
            torch.testing.assert_close(found[output].detach(), value.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_knows_every_file(folder, kind):
    card = json.loads((folder / kind / "policy.json").read_text())
    assert sorted(path.name for path in (folder / kind).iterdir()) == sorted(["policy.json", *card["files"]])
    assert ("policy.onnx" in card["files"], "policy.pt2" in card["files"]) == (kind in WITH_ONNX, True)
    for name, entry in card["files"].items():
        content = (folder / kind / name).read_bytes()
        assert (entry["sha256"], entry["bytes"]) == (sha256(content).hexdigest(), len(content))
        if name != "policy.safetensors":
            assert list(entry["parity"]) == ["1", "5", "64"]
            assert max(entry["parity"].values()) <= 1e-5
    assert (card["trained_on"], card["reward"], card["license"]) == ("digits", "loss-slope", "MIT")


def test_files_do_not_tell_where_they_were_made(folder):
    with zipfile.ZipFile(folder / "cells" / "policy.pt2") as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    for content in [*contents, (folder / "cells" / "policy.onnx").read_bytes()]:
        assert str(ROOT).encode() not in content
        assert b"site-packages" not in content


def test_the_onnx_file_names_its_parts(folder):
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "cells" / "policy.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["n", 3, 16, 16])
    assert {entry.name: entry.shape for entry in session.get_outputs()} == {
        "mask": ["n", 4, 4],
        "downsample": ["n", 3],
        "decolorize": ["n"],
    }


def test_bytes_are_scaled_inside():
    network, images = policy("cells"), random_images(policy("cells"), 4)
    expected = outputs(network(images.float() / 255))
    assert all(torch.equal(value, expected[name]) for name, value in Portable(network)(images).items())
    assert shapes(network) == {"mask": ["n", 4, 4], "downsample": ["n", 3], "decolorize": ["n"]}
    assert shapes(policy("latent"))["code"] == ["n", 2, 4]


def test_parity_is_measured_and_demanded():
    network = policy("cells")
    faithful = Portable(network)
    assert parity(network, faithful) == {str(n): 0.0 for n in BATCHES}

    def off_by(amount, name="decolorize"):
        def program(images):
            found = faithful(images)
            return found | ({name: found[name] + amount} if len(images) == 5 else {})

        return program

    assert parity(network, off_by(TOLERANCE / 2))["5"] == pytest.approx(TOLERANCE / 2, rel=0.05)
    for wrong in (2 * TOLERANCE, float("nan")):
        with pytest.raises(RuntimeError, match=r"differs from the policy by .* at batch 5"):
            parity(network, off_by(wrong))
    with pytest.raises(RuntimeError, match="outputs are"):
        parity(network, lambda images: {"mask": faithful(images)["mask"]})


def test_a_policy_that_cannot_be_traced_is_said_with_the_remedy(monkeypatch):
    def refuse(*arguments, **settings):
        raise RuntimeError("data-dependent\n control flow")

    monkeypatch.setattr(torch.export, "export", refuse)
    with pytest.raises(UsageError, match=r"mask budget.*data-dependent control flow.*--program False --onnx False"):
        portable.trace(policy("budget"))
