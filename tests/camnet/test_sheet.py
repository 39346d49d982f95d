"""Sheets of restorations: which image stands where."""

import matplotlib.image
import pytest
import torch

from camnet import sheet
from camnet.degraded import each
from camnet.jpeg import compress
from camnet.layout import DISTINCT, Layout
from configs.data import DataConfig
from configs.errors import UsageError
from env.corruption import Action, corrupt
from env.images import load


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(), torch.device("cpu")).test.images()


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def degrade(x, mask=False, factor=0, gray=False):
    n = len(x)
    return corrupt(x, Action(torch.full((n, 4, 4), mask), torch.full((n,), factor), torch.full((n,), gray)))


def test_the_small_sheet_has_a_row_for_each_restoration(digits):
    x, k = digits[:10], 3
    degraded = degrade(x, mask=True)
    samples = torch.rand(10, k, 3, 16, 16, generator=random())
    distances = torch.rand(10, k, generator=random())
    picture = sheet.sheet_grid(x, degraded, samples, distances)
    assert picture.shape == (3, (2 + k + 1) * 17 + 1, sheet.COLUMNS * 17 + 1)
    best = samples[torch.arange(10), distances.argmin(dim=1)]
    expected = [x, sheet.hatching(x), *samples.unbind(dim=1), best]
    for row, images in enumerate(expected):
        for column in range(sheet.COLUMNS):
            tile = picture[:, row * 17 + 1 : row * 17 + 17, column * 17 + 1 : column * 17 + 17]
            assert torch.equal(tile, images[column]), (row, column)


def test_what_was_degraded_is_drawn_as_it_is_known(digits):
    x = digits[:2]
    jpeg = compress(x, torch.tensor([5.0, 50.0]))
    assert torch.equal(sheet.drawn(jpeg), jpeg.kept)
    layout = Layout(torch.ones(2, 16, 16, dtype=torch.long), 3)
    color = torch.tensor(DISTINCT[1]).view(1, 3, 1, 1) / 255
    assert torch.allclose(sheet.drawn(layout), color.expand_as(x))
    half = degrade(x)
    half.hidden[:, :, :8] = 1
    assert torch.equal(sheet.drawn(half)[:, :, 8:], x[:, :, 8:])
    assert set(sheet.drawn(half)[:, :, :8].flatten().tolist()) == {0.25, 0.75}


def test_the_png_grows_with_its_blocks(digits, tmp_path):
    x = digits[:8]
    degraded = degrade(x, gray=True)
    samples = each(degraded, 2).kept.unflatten(0, (8, 2))
    rows = sheet.rows_of(x, degraded, samples, torch.zeros(8, 2), shown=1)
    assert list(rows) == ["truth", "degraded", "sample 1", "best of 2"]
    block = sheet.Block("colorization", rows)
    sheet.draw([block], 1, tmp_path / "one.png")
    sheet.draw([block], 2, tmp_path / "alone.png")
    sheet.draw([block] * 3, 2, tmp_path / "three.png")
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "one.png").read_bytes()  # no room for what is not there
    one, three = (matplotlib.image.imread(tmp_path / name) for name in ("one.png", "three.png"))
    assert three.shape[0] == pytest.approx(2 * one.shape[0], abs=2)
    assert three.shape[1] == pytest.approx(2 * one.shape[1], abs=2)
    with pytest.raises(UsageError, match=r"cannot write .*missing/sheet\.png"):
        sheet.draw([block], 1, tmp_path / "missing" / "sheet.png")
