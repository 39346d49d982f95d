"""Randomness is a function of (seed, step, stream) and of nothing else."""

import torch

from training.seeding import generator_at

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
