"""Work in parts: all rows, in order, as many at once as fit, each part on a thread of its own."""

import threading

import pytest
import torch

from camnet import parts
from camnet.parts import in_parts

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    """Sets how many threads there are; they are as before after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("count", "lengths"),
    [(1, [3, 3, 3, 1]), (2, [3, 3, 3, 1]), (3, [2, 2, 2, 2, 2]), (4, [3, 3, 3, 1]), (5, [2, 2, 2, 2, 2])],
)
def test_parts_are_what_fits_or_less_and_a_multiple_of_the_threads(count, lengths, threads, monkeypatch):
    monkeypatch.setitem(parts.BYTES_AT_ONCE, "cpu", 30)
    threads(count)
    made = in_parts(lambda rows: list(range(10))[rows], 10, 10, CPU)
    assert [len(part) for part in made] == lengths
    assert [row for part in made for row in part] == list(range(10))


def test_few_large_rows_go_one_by_one(threads, monkeypatch):
    monkeypatch.setitem(parts.BYTES_AT_ONCE, "cpu", 30)
    for count in (1, 2):
        threads(count)
        assert in_parts(lambda rows: rows, 3, 100, CPU) == [slice(0, 1), slice(1, 2), slice(2, 3)]


def test_every_part_has_a_thread_to_itself_and_no_gradient(threads):
    threads(2)
    meet = threading.Barrier(2, timeout=20)
    weight = torch.ones(1, requires_grad=True)

    def work(rows):
        meet.wait()  # both are at work
        return torch.get_num_threads(), threading.get_ident(), (2 * weight).requires_grad

    with torch.enable_grad():
        (one, first, grad), (other, second, other_grad) = in_parts(work, 8, 1, CPU)
    assert (one, other) == (1, 1)
    assert len({first, second, threading.get_ident()}) == 3
    assert not grad
    assert not other_grad
    assert torch.get_num_threads() == 2


def test_an_error_in_a_part_is_raised_and_the_threads_are_as_before(threads):
    threads(3)

    def work(rows):
        if rows.start:
            raise ValueError("the second part")
        return 0

    with pytest.raises(ValueError, match="the second part"):
        in_parts(work, 9, 1, CPU)
    assert torch.get_num_threads() == 3
