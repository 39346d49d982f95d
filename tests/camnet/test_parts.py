"""Work in parts: all rows, in order, as many at once as fit."""

import pytest
import torch

from camnet import parts
from camnet.parts import in_parts


@pytest.mark.parametrize(
    ("fitting", "lengths"), [(30, [2, 3, 2, 3]), (39, [2, 3, 2, 3]), (59, [5, 5]), (100, [10]), (5, [1] * 10)]
)
def test_parts_are_few_of_about_one_length_and_fit(fitting, lengths, monkeypatch):
    monkeypatch.setitem(parts.BYTES_AT_ONCE, "cpu", fitting)
    made = in_parts(lambda rows: list(range(10))[rows], 10, 10, torch.device("cpu"))
    assert [len(part) for part in made] == lengths
    assert [row for part in made for row in part] == list(range(10))
