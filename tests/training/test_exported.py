"""An export that is cut short never leaves a card of files that are not there."""

import json

import pytest

from configs.errors import UsageError
from training import exported
from training.exported import Written, write

FILES = {"weights": Written(b"new"), "program": Written(b"made", {"1": 0.0})}


def test_the_card_comes_last(tmp_path, monkeypatch):
    whole = exported.write_atomically

    def cut(path, data):
        if path.name == "program":
            raise KeyboardInterrupt
        whole(path, data)

    (tmp_path / "card").write_text("old")
    monkeypatch.setattr(exported, "write_atomically", cut)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, FILES, "card", {"format": 1}, {"program"})
    assert (tmp_path / "weights").read_bytes() == b"new"
    assert (tmp_path / "card").read_text() == "old"
    monkeypatch.undo()
    write(tmp_path, FILES, "card", {"format": 1}, {"program"})
    assert json.loads((tmp_path / "card").read_text()) == {"format": 1}
    assert (tmp_path / "program").read_bytes() == b"made"


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file/out.*then give the same command again"):
        write(tmp_path / "file" / "out", FILES, "card", {}, ())
