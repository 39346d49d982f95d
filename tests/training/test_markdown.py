"""A table is Markdown, and its columns stand below one another."""

import pytest

from training.markdown import aligned


def test_cells_are_padded_below_the_head():
    assert aligned([["case", "d ↓"], ["inpainting", "–"], ["x2", "0.123"]]).splitlines() == [
        "| case       | d ↓   |",
        "| ---------- | ----- |",
        "| inpainting | –     |",
        "| x2         | 0.123 |",
    ]


def test_lines_of_unequal_length_are_a_mistake():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        aligned([["a", "b"], ["c"]])
