"""The Python of docs/camnet.md runs and keeps what it says."""

import re
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).parents[2] / "docs" / "camnet.md"


def test_the_operator_in_python():
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["many"].shape == (4, 8, 3, 32, 32)
    again = names["camnet"].two_views(names["degraded"], codes=names["codes"])
    assert torch.equal(torch.stack(again), torch.stack([names["v1"], names["v2"]]))
    assert names["degraded"].residual(names["v1"]).max() < 1e-6
    assert not torch.equal(names["v1"], names["v2"])
