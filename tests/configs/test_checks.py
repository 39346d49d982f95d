"""Bounds of single settings: the message names the flag, the allowed range and what was given."""

import pytest

from configs.checks import require_probabilities, require_range
from configs.reward import ReferenceConfig


def test_what_lies_in_the_range_passes():
    for value in (0, 0.5, 1):
        require_range("a.flag", value, 0, 1)
    require_probabilities("a.flag", ())
    require_probabilities("a.flag", (0.75, 0.25))


@pytest.mark.parametrize("value", [-0.5, 1.5, float("nan"), float("inf")])
def test_what_does_not_is_refused(value):
    message = rf"--a.flag must lie in \[0, 1\], got {value:g}"
    with pytest.raises(ValueError, match=message):
        require_range("a.flag", value, 0, 1)
    with pytest.raises(ValueError, match=message):
        require_probabilities("a.flag", (0.0, value))


def test_probabilities_that_add_up_to_more_than_one_are_refused():
    with pytest.raises(ValueError, match=r"--reward.reference.downsample: .* add up to 1.6, at most 1 is"):
        ReferenceConfig(downsample=(0.8, 0.8))
