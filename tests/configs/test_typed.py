"""Settings from JSON are the settings that were written; values of other types are refused, not taken as they are."""

import json
from dataclasses import asdict

import pytest

from configs.camnet import GeneratorConfig
from configs.data import DataConfig
from configs.typed import typed


def test_what_was_written_comes_back():
    config = GeneratorConfig(regions=(1, 2, 4), tasks=("mix", "layout"), patch=2, norm=False)
    assert typed(GeneratorConfig, json.loads(json.dumps(asdict(config)))) == config
    assert typed(GeneratorConfig, {}) == GeneratorConfig()
    assert typed(DataConfig, {"name": "cifar10", "classes": ["cat"]}) == DataConfig(name="cifar10", classes=("cat",))


@pytest.mark.parametrize(
    "entries",
    [
        {"blocks": 2.5},
        {"blocks": 2.0},
        {"blocks": True},
        {"blocks": None},
        {"norm": "false"},
        {"norm": 0},
        {"patch": True},
        {"patch": 3},
        {"widths": 8},
        {"widths": "888"},
        {"widths": [8, 8, 8.0]},
        {"widths": [[8], [8], [8]]},
        {"tasks": ["mix", "sing"]},
        {"sides": 3},
        [],
        None,
        "x",
    ],
)
def test_values_of_other_types_are_refused(entries):
    with pytest.raises(TypeError):
        typed(GeneratorConfig, entries)


def test_bounds_hold_as_everywhere():
    with pytest.raises(ValueError, match="multiples of 8"):
        typed(GeneratorConfig, {"widths": [8, 8, 4]})
