"""A recorded command can be given to a shell again, and what the code was can be told from what it was not."""

import subprocess

import pytest

from training import provenance as module
from training.provenance import command_of, provenance


@pytest.mark.parametrize(
    ("argv", "expected"),
    [([], "python -m camnet.evaluate"), (["--out", "a b"], "python -m camnet.evaluate --out 'a b'")],
)
def test_words_with_spaces_are_quoted_and_none_leave_nothing(argv, expected):
    assert command_of("camnet.evaluate", argv) == expected


def test_two_states_of_a_changed_checkout_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert [provenance("cpu")[key] for key in ("commit", "dirty", "changes")] == [None] * 3
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "--allow-empty", "-m", "a"]):
        (tmp_path / "code.py").write_text("one")
        subprocess.run([*git, *words], check=True)
    clean = provenance("cpu")
    assert clean["dirty"] is False
    (tmp_path / "code.py").write_bytes(b"\xff two")  # in no encoding that one knows
    first = provenance("cpu")
    assert first["dirty"]
    (tmp_path / "code.py").write_bytes(b"\xff three")
    second = provenance("cpu")
    assert second["commit"] == first["commit"] == clean["commit"] is not None
    assert len({found["changes"] for found in (clean, first, second)}) == 3
