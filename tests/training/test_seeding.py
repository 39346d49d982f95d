"""Randomness is a function of (seed, step, stream) and of nothing else."""

import contextlib

import pytest
import torch

from training.seeding import generator_at, seeded

CPU = torch.device("cpu")


def draw(seed: int, step: int, stream: str) -> torch.Tensor:
    return torch.rand(8, generator=generator_at(seed, step, stream, CPU))


def test_equal_arguments_draw_equal_numbers_whatever_was_drawn_before():
    first = draw(3, 5, "codes")
    torch.rand(100)
    draw(3, 4, "codes")
    assert torch.equal(first, draw(3, 5, "codes"))


def test_every_argument_matters():
    drawn = {
        tuple(draw(seed, step, stream).tolist())
        for seed in (0, 1, 11)
        for step in (0, 1, 11)
        for stream in ("batch", "codes")
    }
    assert len(drawn) == 18


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    draw(1, 2, "batch")
    assert torch.equal(torch.rand(4), expected)


def test_what_is_built_depends_on_seed_stream_and_step_alone_and_leaves_no_trace():
    built = {}
    torch.manual_seed(0)
    expected = torch.rand(4)
    for before in (1, 0):
        torch.manual_seed(before)
        for place in ((3, "learner"), (4, "learner"), (3, "policy"), (3, "learner", 1)):
            with seeded(*place):
                built.setdefault(place, []).append(torch.rand(4))
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(*twice) for twice in built.values())
    assert len({tuple(first.tolist()) for first, _ in built.values()}) == 4


@pytest.mark.parametrize(("initialized", "devices"), [(False, []), (True, [3])])
def test_of_several_gpus_the_one_in_use_alone_is_touched(monkeypatch, initialized, devices):
    asked, fork_rng = [], torch.random.fork_rng
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialized)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)  # of a GPU that is only said to be there
    monkeypatch.setattr(torch.random, "fork_rng", lambda chosen: asked.append(chosen) or contextlib.nullcontext())
    with fork_rng([]), seeded(0, "learner"):  # the real one, or the seed would stay with the tests after this
        pass
    assert asked == [devices]
