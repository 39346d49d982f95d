"""Rows are selected, joined and mixed at every depth, and nothing else of what holds them changes."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from env.rows import Rows, remade


@dataclass(frozen=True)
class Inner(Rows):
    values: Tensor
    picture: Tensor


@dataclass(frozen=True)
class Outer(Rows):
    kind: ClassVar[str] = "outer"
    inner: Inner
    number: Tensor
    classes: int = 3
    missing: Tensor | None = None
    given: Tensor | None = None


def outer(n, start=0, **others):
    number = torch.arange(start, start + n)
    return Outer(Inner(number + 0.5, number.view(-1, 1, 1, 1).expand(-1, 3, 2, 2)), number, **others)


def test_rows_are_selected_at_every_depth():
    some = outer(4).select(torch.tensor([3, 1]))
    assert some.number.tolist() == [3, 1]
    assert some.inner.values.tolist() == [3.5, 1.5]
    assert some.inner.picture[:, 0, 0, 0].tolist() == [3, 1]
    assert (type(some), type(some.inner)) == (Outer, Inner)


def test_what_has_no_rows_stays():
    some = outer(4, classes=7, given=torch.arange(8).view(4, 2)).select(torch.tensor([2]))
    assert (some.classes, some.missing, some.kind) == (7, None, "outer")
    assert some.given.tolist() == [[4, 5]]
    assert Rows.joined([outer(2, classes=7), outer(2, classes=7)]).classes == 7


def test_joining_undoes_splitting():
    whole = outer(5, given=torch.arange(5))
    parts = [whole.select(rows) for rows in torch.arange(5).split([2, 2, 1])]
    again = Rows.joined(parts)
    assert torch.equal(again.number, whole.number)
    assert torch.equal(again.given, whole.given)
    assert torch.equal(again.inner.picture, whole.inner.picture)
    assert again.missing is None


def test_where_takes_whole_rows():
    mixed = Rows.where(torch.tensor([True, False, True]), outer(3), outer(3, start=10))
    assert mixed.number.tolist() == [0, 11, 2]
    assert mixed.inner.picture.flatten(1).unique(dim=1).tolist() == [[0], [11], [2]]


def test_rows_that_need_it_are_made_anew_and_no_others_are_worked_on():
    x, needed, worked_on = torch.arange(10.0).view(5, 2), torch.tensor([False, True, False, True, False]), []

    def negated(rows):
        worked_on.append(rows.tolist())
        return -x[rows]

    assert remade(x, needed, negated).tolist() == [[0, 1], [-2, -3], [4, 5], [-6, -7], [8, 9]]
    assert remade(x, ~needed & needed, negated) is x
    assert worked_on == [[1, 3]]


def test_where_the_host_would_wait_all_rows_are_worked_on(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x, needed = torch.arange(12.0).view(3, 2, 2), torch.tensor([True, False, True])
    assert torch.equal(remade(x, needed, lambda rows: -x[rows]), torch.stack([-x[0], x[1], -x[2]]))
