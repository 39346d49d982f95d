"""Where images lie may change; what they are may not."""

import json
from dataclasses import asdict
from pathlib import Path

from configs.data import DataConfig
from configs.typed import typed


def test_images_may_lie_in_another_folder():
    data = DataConfig(name="cifar10", classes=("cat", "dog"), seed=3)
    assert asdict(data.in_folder("x")) == asdict(data) | {"root": Path("x")}
    assert data.in_folder(".").root == Path(".")
    assert data.in_folder("") is data


def test_json_holds_all_of_it():
    data = DataConfig(name="stl10", root=Path("a/b"), classes=("1",))
    stored = json.loads(json.dumps(data.as_json()))
    assert list(stored) == list(asdict(data))
    assert typed(DataConfig, stored | {"root": Path(stored["root"])}) == data
