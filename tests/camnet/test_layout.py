"""A layout knows classes and no pixel; a palette finds classes where a set has none."""

import pytest
import torch

from camnet.degraded import Degraded
from camnet.layout import DISTINCT, SAMPLE, Layout, Palette, cell_of, draw_layout, labels_of, weighted_ycbcr

RED, GREEN, BLUE = (0.8, 0.1, 0.1), (0.1, 0.7, 0.1), (0.1, 0.1, 0.9)


def painted(n=6, size=32, noise=0.02, seed=0):
    """A red left half, a green upper right and a blue lower right quarter, with grain; and which is where."""
    half = size // 2
    labels = torch.zeros(n, size, size, dtype=torch.long)
    labels[:, :half, half:], labels[:, half:, half:] = 1, 2
    x = torch.tensor([RED, GREEN, BLUE])[labels].movedim(-1, 1)
    grain = noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x + grain).clamp(0, 1), labels


def maps(n, classes, size=16, seed=0):
    return torch.randint(0, classes, (n, size, size), generator=torch.Generator().manual_seed(seed))


def test_the_classes_of_painted_regions_are_found():
    x, labels = painted()
    palette = Palette.fit(x, 3, seed=0)
    found = palette.layout_of(x)
    drawn = palette.colors[found].movedim(-1, 1)
    truth = torch.tensor([RED, GREEN, BLUE])[labels].movedim(-1, 1)
    assert (drawn - truth).abs().max() < 0.05
    for label in range(3):
        assert len(found[labels == label].unique()) == 1
    assert len(found.unique()) == 3


def test_classes_run_from_dark_to_light():
    x, _ = painted()
    luma = weighted_ycbcr(Palette.fit(x, 3, seed=0).colors)[:, 0]
    assert torch.equal(luma, luma.sort().values)


def test_a_palette_is_a_function_of_images_and_seed():
    x = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one = Palette.fit(x, 5, seed=3)
    assert len(one) == 5
    torch.manual_seed(99)
    assert torch.equal(Palette.fit(x, 5, seed=3).colors, one.colors)
    assert not torch.equal(Palette.fit(x, 5, seed=4).colors, one.colors)
    assert not torch.equal(Palette.fit(1 - x, 5, seed=3).colors, one.colors)


def test_more_images_than_the_sample_are_drawn_by_seed():
    few = torch.rand(SAMPLE + 1, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 4, 4)
    palettes = {tuple(Palette.fit(few, 1, seed).colors.flatten().tolist()) for seed in range(3)}
    assert len(palettes) > 1


def test_shading_counts_less_than_color():
    """Steps of equal length in YCbCr: along luma the distance is half that along chroma."""
    origin, gray = torch.full((1, 3), 0.4), torch.full((1, 3), 0.5)
    blue = origin + 0.1 * torch.tensor([[0.0, -0.344136, 1.772]])  # Cb up by 0.1, Y and Cr as they were
    along_luma = (weighted_ycbcr(gray) - weighted_ycbcr(origin)).norm()
    along_chroma = (weighted_ycbcr(blue) - weighted_ycbcr(origin)).norm()
    assert along_luma == pytest.approx(along_chroma.item() / 2, rel=1e-3)


@pytest.mark.parametrize(("size", "cell"), [(16, 2), (32, 2), (56, 4), (64, 4), (88, 8), (96, 6), (104, 8)])
def test_layouts_are_constant_over_cells(size, cell):
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert cell_of(x) == cell
    labels = Palette(torch.rand(6, 3, generator=torch.Generator().manual_seed(1))).layout_of(x)
    assert labels.shape == (2, size, size)
    coarse = labels[:, ::cell, ::cell]
    assert torch.equal(labels, coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2))
    assert len(coarse.unique()) > 1


def test_layouts_of_images_do_not_touch_one_another():
    x, _ = painted(3)
    x[1] = x[1].flip(-1)
    palette = Palette(torch.tensor([RED, GREEN, BLUE]))
    assert torch.equal(palette.layout_of(x)[1:2], palette.layout_of(x[1:2]))
    assert torch.equal(palette.layout_of(x)[1], palette.layout_of(x)[0].flip(-1))


@pytest.mark.parametrize(("height", "width"), [(15, 16), (64, 66), (16, 33)])
def test_sizes_that_do_not_divide_into_cells_are_refused(height, width):
    with pytest.raises(ValueError, match=f"{height} x {width}"):
        Palette(torch.rand(2, 3)).layout_of(torch.rand(1, 3, height, width))


@pytest.mark.parametrize("classes", [0, -1, 2])
def test_impossible_numbers_of_classes_are_refused(classes):
    with pytest.raises(ValueError, match="1 different colors"):
        Palette.fit(torch.full((2, 3, 8, 8), 0.5), classes, seed=0)


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match="4 x 4"):
        Palette.fit(torch.rand(2, 3, 2, 2), 1, seed=0)


def test_planes_are_one_hot():
    labels = maps(3, 4)
    planes = Layout(labels, 4).planes()
    assert planes.shape == (3, 4, 16, 16)
    assert torch.equal(planes.argmax(dim=1), labels)
    assert torch.equal(planes.sum(dim=1), torch.ones(3, 16, 16))


def test_void_pixels_have_no_plane():
    labels = maps(1, 4)
    labels[0, 0, :2] = torch.tensor([-1, 255])
    total = Layout(labels, 4).planes().sum(dim=1)
    assert (total[0, 0, :2] == 0).all()
    assert total.sum() == 16 * 16 - 2


def test_nothing_of_the_pixels_is_kept():
    layout = Layout(maps(3, 4), 4)
    assert isinstance(layout, Degraded)
    assert layout.task == "layout"
    assert layout.kept.shape == (3, 3, 16, 16)
    assert not layout.kept.any()
    assert layout.kept.dtype == layout.hidden.dtype == torch.float32
    assert layout.hidden.shape == layout.touched().shape == (3, 1, 16, 16)
    assert layout.hidden.all()
    assert layout.touched().all()


def test_every_image_agrees_once_in_range():
    layout = Layout(maps(3, 4), 4)
    restored = (torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 3 - 1).requires_grad_()
    result = layout.make_consistent(restored)
    assert torch.equal(result, restored.clamp(0, 1))
    assert torch.equal(layout.residual(result), torch.zeros(3))
    result.sum().backward()
    assert torch.equal(restored.grad, ((restored >= 0) & (restored <= 1)).float())


def test_rows_are_selected_together():
    labels, rows = maps(4, 3), torch.tensor([2, 0])
    layout = Layout(labels, 3)
    chosen = layout.select(rows)
    assert len(chosen) == 2
    assert torch.equal(chosen.labels, labels[rows])
    assert torch.equal(chosen.planes(), layout.planes()[rows])


def test_classes_are_drawn_in_colors_that_differ():
    labels = torch.arange(-1, 11).view(1, 3, 4)
    picture = draw_layout(labels)
    assert picture.shape == (1, 3, 3, 4)
    drawn = picture.flatten(2)[0].T
    assert not drawn[0].any()
    assert torch.allclose(drawn[1] * 255, torch.tensor(DISTINCT[0]).float())
    assert torch.equal(drawn[11], drawn[1])  # ten colors, over again
    assert len(drawn[1:11].unique(dim=0)) == 10


def test_void_in_a_map_is_no_class():
    read = torch.tensor([[[0, 2], [255, 254]]], dtype=torch.uint8)
    assert labels_of(read).tolist() == [[[0, 2], [-1, 254]]]
    layout = Layout(labels_of(read), 255)
    assert layout.planes().sum(dim=1).tolist() == [[[1, 1], [0, 1]]]
    assert (draw_layout(layout.labels)[0, :, 1, 0] == 0).all()
