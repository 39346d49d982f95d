"""A recorded command can be given to a shell again."""

import pytest

from training.provenance import command_of


@pytest.mark.parametrize(
    ("argv", "expected"),
    [([], "python -m camnet.evaluate"), (["--out", "a b"], "python -m camnet.evaluate --out 'a b'")],
)
def test_words_with_spaces_are_quoted_and_none_leave_nothing(argv, expected):
    assert command_of("camnet.evaluate", argv) == expected
