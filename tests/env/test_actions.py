"""An action and its row of integers say the same."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from env.actions import decoded, from_vector, observation_space, space, to_vector
from env.corruption import FACTORS
from env.distribution import fixed_rates


def drawn(n, grid, seed=0):
    rates = fixed_rates(n, grid, 0.4, 0.5, (0.3, 0.3), torch.device("cpu"))
    return rates.sample(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_there_and_back(grid):
    action = drawn(50, grid)
    back = from_vector(to_vector(action), grid)
    for part in ("mask", "downsample", "decolorize"):
        before, after = getattr(action, part), getattr(back, part)
        assert before.dtype == after.dtype
        assert torch.equal(before, after)


@pytest.mark.parametrize("grid", [1, 4])
def test_every_action_is_in_the_space_and_every_element_is_an_action(grid):
    for row in to_vector(drawn(50, grid)).numpy():
        assert row in space(grid)
    elements = spaces.MultiDiscrete(np.stack([space(grid).nvec] * 200))
    elements.seed(0)
    sample = elements.sample()
    action = from_vector(torch.from_numpy(sample), grid)
    assert np.array_equal(to_vector(action).numpy(), sample)
    assert action.downsample.unique().tolist() == [0, 1, 2]
    assert action.decolorize.unique().tolist() == [False, True]


def test_the_numbers_mean_what_the_text_says():
    row = torch.tensor([[0, 1, 0, 0, 2, 1]])
    action = from_vector(row, 2)
    assert action.mask.tolist() == [[[False, True], [False, False]]]  # row by row, 1 = hidden
    assert FACTORS[action.downsample] == 4
    assert action.decolorize.item()
    words = decoded(row[0].numpy(), 2)
    assert words["mask"].tolist() == action.mask[0].tolist()
    assert (words["mask_ratio"], words["factor"], words["decolorize"]) == (0.25, 4, True)


def test_reading_takes_any_integers_and_refuses_rows_of_another_length():
    row = torch.tensor([[1, 0, 0, 1, 1, 0]], dtype=torch.int32)
    assert torch.equal(to_vector(from_vector(row, 2)), row.long())
    with pytest.raises(ValueError, match="needs 18 integers per action, got 6"):
        from_vector(row, 4)


def test_observations_are_bytes():
    assert observation_space(8) == spaces.Box(0, 255, (3, 8, 8), np.uint8)
