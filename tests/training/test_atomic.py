"""JSON files are whole: what cannot be written leaves the old one."""

import json

import pytest

from training.atomic import write_json


def test_json_is_written_for_people_too(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, None], "b": "ß"})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": [1, None], "b": "ß"}
    assert text.startswith('{\n  "a": [\n    1,')
    assert text.endswith("}\n")


def test_what_json_cannot_hold_leaves_the_old_file_alone(tmp_path):
    write_json(tmp_path / "x.json", "old")
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": tmp_path})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert json.loads((tmp_path / "x.json").read_text()) == "old"
