"""What ONNX files need is asked for by name; what they say is tested with each kind of network."""

import sys

import pytest
import torch

from configs.errors import UsageError
from training.onnx import TRACED, UntraceableError, require_onnx, trace_batches


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_said_with_the_remedy(package, monkeypatch):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(UsageError, match=rf"{package}.*pip install -e '\.\[export\]'.*--onnx False"):
        require_onnx()


class Counting(torch.nn.Module):
    """Gives another shape to every content: nothing that a trace can tell."""

    def forward(self, images):
        return images[: int(images.sum())]


def test_the_reason_is_short_and_on_one_line():
    with pytest.raises(UntraceableError) as caught:
        trace_batches(Counting(), torch.ones(TRACED, 1))
    reason = str(caught.value)
    assert 0 < len(reason) <= 300
    assert "\n" not in reason
