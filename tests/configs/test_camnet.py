"""Settings of camnet.train that cannot be are refused by the name of their flag."""

import pytest

from configs.camnet import CamnetConfig
from configs.errors import UsageError
from configs.reading import read


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--grids 0", "--grids .* at least 1 cell"),
        ("--grids -4", "--grids .* at least 1 cell"),
        ("--grids 4 0", "--grids .* at least 1 cell"),
        ("--grids", "--grids needs at least one"),
        ("--grids 3", "--grids: .* divide"),
        ("--generator.resolutions", "--generator.resolutions needs at least one"),
        ("--generator.resolutions --generator.widths --candidates", "--generator.resolutions needs at least one"),
        ("--generator.resolutions 0 0 0", "--generator.resolutions"),
        ("--generator.widths", "--generator.widths"),
        ("--generator.widths 0 0 0", "--generator.widths .* at least 8"),
        ("--generator.widths 8 -8 8", "--generator.widths .* at least 8"),
        ("--generator.widths 8 12 8", "--generator.widths .* multiples of 8"),
        ("--candidates", "--candidates needs one count a module"),
        ("--candidates 4 0 1", "--candidates must lie in"),
    ],
)
def test_a_setting_that_cannot_be_is_named(flags, message):
    with pytest.raises(UsageError, match=message):
        read(CamnetConfig, flags.split(), prog="camnet.train", description="")
