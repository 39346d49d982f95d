"""An export leaves a card of what is there: whole where it was cut short, and with programs of these weights alone."""

import json

import pytest

from configs.errors import UsageError
from training import exported
from training.exported import Written, standing, write

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
    card = json.loads((tmp_path / "card").read_text())
    assert card == {"format": 1, "files": {name: file.entry() for name, file in FILES.items()}}
    assert (tmp_path / "program").read_bytes() == b"made"


def test_programs_of_the_very_same_weights_stay_with_their_entries(tmp_path):
    write(tmp_path, FILES, "card", {"about": "once"}, {"program", "other"})
    weights = {"weights": FILES["weights"]}
    write(tmp_path, weights, "card", {"about": "again"}, {"program", "other"})
    assert (tmp_path / "program").read_bytes() == b"made"
    card = json.loads((tmp_path / "card").read_text())
    assert card == {"about": "again", "files": {name: file.entry() for name, file in FILES.items()}}


def test_programs_of_equal_weights_under_other_settings_go(tmp_path):
    card = {"settings": {"rate": 0.3, "sizes": (1, 2)}, "versions": {"torch": "1"}, "about": {"run": "one"}}
    write(tmp_path, FILES, "card", card, {"program"})
    weights = {"weights": FILES["weights"]}
    write(tmp_path, weights, "card", card | {"versions": {"torch": "2"}, "about": {"run": "two"}}, {"program"})
    assert (tmp_path / "program").exists()
    write(tmp_path, weights, "card", card | {"settings": {"rate": 0.4, "sizes": (1, 2)}}, {"program"})
    assert not (tmp_path / "program").exists()


def test_what_a_card_tells_of_these_weights_may_stay(tmp_path):
    weights = {"weights": FILES["weights"]}

    def told(about, files=weights):
        write(tmp_path, files, "card", {"about": about}, {"program"}, renew=False)
        return json.loads((tmp_path / "card").read_text())["about"]

    assert told({}) == {}
    assert told({"steps": 9}) == {"steps": 9}  # it told nothing
    assert told({"steps": 8}) == {"steps": 9}
    (tmp_path / "weights").unlink()
    assert told({"steps": 7}) == {"steps": 7}
    assert (tmp_path / "weights").read_bytes() == b"new"
    assert told({"steps": 6}, {"weights": Written(b"others")}) == {"steps": 6}


@pytest.mark.parametrize("damage", ["weights", "program", "card"])
def test_programs_of_anything_else_go(tmp_path, damage):
    write(tmp_path, FILES, "card", {}, {"program"})
    weights = Written(b"others" if damage == "weights" else b"new")
    if damage != "weights":
        (tmp_path / damage).write_bytes(b"[]")
    write(tmp_path, {"weights": weights}, "card", {}, {"program"})
    assert not (tmp_path / "program").exists()
    assert json.loads((tmp_path / "card").read_text()) == {"files": {"weights": weights.entry()}}


def test_a_card_stands_for_the_weights_that_it_was_written_for(tmp_path):
    weights = {"weights": FILES["weights"]}
    assert standing(tmp_path, "card", weights) == {}
    write(tmp_path, FILES, "card", {"told": "once"}, {"program"})
    assert standing(tmp_path, "card", weights)["told"] == "once"
    assert standing(tmp_path, "card", {"weights": Written(b"others")}) == {}


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file/out.*then give the same command again"):
        write(tmp_path / "file" / "out", FILES, "card", {}, ())
