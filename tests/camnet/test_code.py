"""Codes and stages are reordered, joined and put together row by row, nothing else of them changed."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from camnet.code import Code, Rows, Stage


def code(n, g=2, r=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    return Code(torch.randn(n, 3, g, g, generator=random), torch.randn(n, 1, r, r, generator=random))


@dataclass(frozen=True)
class Nested(Rows):
    code: Code
    number: Tensor


def test_rows_are_selected_at_every_depth():
    nested = Nested(code(4), torch.arange(4))
    some = nested.select(torch.tensor([3, 1]))
    assert some.number.tolist() == [3, 1]
    assert torch.equal(some.code.style, nested.code.style[[3, 1]])
    assert torch.equal(some.code.noise, nested.code.noise[[3, 1]])
    assert isinstance(some, Nested)


def test_joining_undoes_splitting():
    whole = Nested(code(5), torch.arange(5))
    parts = [whole.select(torch.arange(5)[rows]) for rows in (slice(0, 2), slice(2, 5))]
    again = Rows.joined(parts)
    assert torch.equal(again.number, whole.number)
    assert torch.equal(again.code.style, whole.code.style)


def test_where_takes_whole_rows():
    take = torch.tensor([True, False, True])
    a, b = (
        Stage(torch.ones(3, 2, 4, 4), torch.ones(3, 3, 8, 8)),
        Stage(torch.zeros(3, 2, 4, 4), torch.zeros(3, 3, 8, 8)),
    )
    mixed = Rows.where(take, a, b)
    assert mixed.features.flatten(1).unique(dim=1).tolist() == [[1], [0], [1]]
    assert mixed.image.flatten(1).unique(dim=1).tolist() == [[1], [0], [1]]


@pytest.mark.parametrize("r", [2, 4, 8])
def test_a_patchwork_has_each_region_from_its_candidate(r):
    n, m, g = 3, 5, 2
    candidates = code(n * m, g, r)
    choice = torch.randint(m, (n, g, g), generator=torch.Generator().manual_seed(1))
    put = candidates.patchwork(choice)
    assert len(put) == n
    side = r // g
    for i in range(n):
        for a in range(g):
            for b in range(g):
                row = i * m + choice[i, a, b].item()
                place = (..., slice(a * side, (a + 1) * side), slice(b * side, (b + 1) * side))
                assert torch.equal(put.style[i, :, a, b], candidates.style[row, :, a, b])
                assert torch.equal(put.noise[i][place], candidates.noise[row][place])


def test_a_patchwork_without_noise():
    candidates = Code(torch.randn(4, 3, 2, 2), torch.zeros(4, 0, 4, 4))
    put = candidates.patchwork(torch.zeros(2, 2, 2, dtype=torch.long))
    assert torch.equal(put.style, candidates.style[[0, 2]])
    assert put.noise.shape == (2, 0, 4, 4)
