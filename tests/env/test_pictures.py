"""The pictures show what was deleted, and are written as PNG."""

import matplotlib.image
import pytest
import torch

from configs.errors import UsageError
from env.corruption import Action, corrupt
from env.pictures import Sheet, describe, draw

N = 3


@pytest.fixture
def sheet():
    x, view1, view2 = torch.rand(3, N, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(N, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    action = Action(mask, torch.tensor([0, 1, 2]), torch.tensor([False, False, True]))
    return Sheet(x, corrupt(x, action), torch.stack([view1, view2]))


def test_the_grid_has_a_row_for_each_stage_and_a_column_for_each_image(sheet):
    grid = sheet.grid()
    assert grid.shape == (3, 5 * 17 + 1, N * 17 + 1)
    for row, images in enumerate((sheet.image, None, None, *sheet.views)):
        for column in range(N if images is not None else 0):
            tile = grid[:, row * 17 + 1 : row * 17 + 17, column * 17 + 1 : column * 17 + 17]
            assert torch.equal(tile, images[column]), (row, column)


def test_what_the_learner_is_shown_follows_and_many_views_are_cut_short(sheet):
    many = Sheet(sheet.image, sheet.corrupted, sheet.views[[0, 1] * 3], shown=sheet.views.flip(0))
    assert list(many.rows()) == [
        "image",
        "mask",
        "corrupted",
        *(f"view {k}" for k in range(1, 5)),
        "shown 1",
        "shown 2",
    ]
    assert torch.equal(many.rows()["shown 1"], sheet.views[1])


def test_hidden_pixels_are_white_in_the_mask_and_striped_in_the_corrupted_image(sheet):
    rows = sheet.rows()
    hidden = torch.zeros(N, 3, 16, 16, dtype=torch.bool)
    hidden[0, :, 4:8, 8:12] = True
    assert torch.equal(rows["mask"], hidden.float())
    assert set(rows["corrupted"][hidden].tolist()) == {0.25, 0.75}
    assert torch.equal(rows["corrupted"][~hidden], sheet.corrupted.kept[~hidden])


def test_words_say_what_else_is_deleted(sheet):
    assert describe(sheet.corrupted.action) == ["–", "1/2", "1/4 gray"]


def test_draw_writes_a_png_as_wide_as_its_sheets(sheet, tmp_path):
    draw({"before": sheet}, tmp_path / "one.png")
    draw({"before": sheet, "after": sheet}, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    one, two = (matplotlib.image.imread(tmp_path / name) for name in ("one.png", "two.png"))
    assert one.shape[0] == two.shape[0] == 660
    assert two.shape[1] > 1.5 * one.shape[1]
    assert one[..., :3].std() > 0.1  # not an empty page


def test_a_single_image_is_drawn(tmp_path):
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    action = Action(torch.zeros(1, 4, 4, dtype=torch.bool), torch.tensor([0]), torch.tensor([True]))
    one = Sheet(x, corrupt(x, action), torch.stack([x, x]))
    draw({"before": one, "after": one}, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_place_that_cannot_be_written_is_named(sheet, tmp_path):
    with pytest.raises(UsageError, match=r"cannot write .*missing/views\.png"):
        draw({"before": sheet}, tmp_path / "missing" / "views.png")
