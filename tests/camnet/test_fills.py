"""Fills keep what was kept, put something plain in place of the rest, and draw nothing but their codes."""

from dataclasses import replace

import pytest
import torch

from camnet.fills import KINDS, Fill, visible_colors
from camnet.jpeg import compress
from camnet.layout import Layout
from camnet.tasks import training_actions
from env.corruption import Action, corrupt

SIZE = 16


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def images(n):
    """Smooth images with colors of their own, away from 0 and 1."""
    coarse = 0.2 + 0.6 * torch.rand(n, 3, 4, 4, generator=drawn(1))
    return torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def mixed(n):
    return corrupt(images(n), training_actions(n, (4,), drawn(2), factors=4))


def action(n, hidden=(), gray=False, factor=0):
    mask = torch.zeros(n, 4, 4, dtype=torch.bool)
    for row, column in hidden:
        mask[:, row, column] = True
    return Action(mask, torch.full((n,), factor), torch.full((n,), gray))


def fill(kind, degraded, seed=0):
    operator = Fill(kind, SIZE)
    return operator.restore(degraded, operator.codes(len(degraded), drawn(seed)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_kept_is_kept(kind):
    degraded = mixed(64)
    restored = fill(kind, degraded)
    assert degraded.residual(restored).max() <= 1e-6
    known = (~degraded.touched()).expand_as(restored)
    assert torch.equal(restored[known], degraded.kept[known])
    assert restored.min() >= 0
    assert restored.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_equal_unless_the_fill_is_noise(kind):
    degraded = mixed(64)
    v1, v2 = Fill(kind, SIZE).two_views(degraded, drawn(0))
    differs = (v1 - v2).abs().amax(dim=(1, 2, 3)) > 1e-4
    if kind == "noise":
        varied = (visible_colors(degraded)[1] > 1e-3).any(dim=(1, 2, 3))
        assert torch.equal(differs, degraded.touched().any(dim=(1, 2, 3)) & varied)
        assert differs.float().mean() > 0.7
    else:
        assert torch.equal(v1, v2)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_codes_give_equal_images_image_by_image(kind):
    degraded, operator = mixed(6), Fill(kind, SIZE)
    codes, state = operator.codes(18, drawn(0)), torch.get_rng_state()
    restored = operator.restore(degraded, codes)
    assert restored.shape == (18, 3, SIZE, SIZE)
    for row in range(18):
        alone = operator.restore(degraded.select(torch.tensor([row // 3])), codes[row : row + 1])
        assert torch.allclose(alone[0], restored[row], rtol=0, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_which_nothing_is_visible_is_still_filled(kind):
    nothing = replace(action(4), mask=torch.ones(4, 4, 4, dtype=torch.bool))
    restored = fill(kind, corrupt(images(4), nothing))
    assert restored.isfinite().all()
    expected = 0.0 if kind == "erase" else 0.5
    assert restored.mean() == pytest.approx(expected, abs=0.02)
    assert (restored.std() > 0.2) == (kind == "noise")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hidden_says_nothing(kind):
    a = action(4, hidden=[(0, 0), (1, 2)], factor=1)
    x = images(4)
    degraded = corrupt(x, a)
    secret = torch.where(degraded.hidden.bool(), torch.rand(x.shape, generator=drawn(3)), x)
    assert torch.equal(fill(kind, degraded), fill(kind, corrupt(secret, a)))


@pytest.mark.parametrize("kind", KINDS)
def test_other_tasks_are_filled_too(kind):
    files = compress(images(3), torch.full((3,), 20.0))
    assert files.residual(fill(kind, files)).max() <= 1e-3
    layout = Layout(torch.zeros(3, SIZE, SIZE, dtype=torch.long), 2)
    assert fill(kind, layout).isfinite().all()


def test_erase_leaves_holes_gray_and_blocks():
    degraded = mixed(32)
    assert torch.equal(fill("erase", degraded), degraded.kept)


def test_mean_is_the_mean_of_the_visible_pixels():
    degraded = corrupt(images(4), action(4, hidden=[(0, 0), (3, 1), (2, 2)]))
    hidden = degraded.hidden.bool().expand_as(degraded.kept)
    restored = fill("mean", degraded)
    for i in range(4):
        for channel in range(3):
            where = hidden[i, channel]
            expected = images(4)[i, channel][~where].mean()
            assert torch.allclose(restored[i, channel][where], expected, atol=1e-6)


def test_blur_is_the_gaussian_mean_of_the_visible_pixels():
    """Against a sum written out for single pixels."""
    degraded = corrupt(images(1), action(1, hidden=[(0, 0), (1, 2), (1, 3)]))
    restored = fill("blur", degraded)
    visible = 1 - degraded.hidden[0, 0]
    place = torch.arange(SIZE).float()
    for y, x in ((0, 0), (2, 3), (5, 10), (7, 15)):
        assert degraded.hidden[0, 0, y, x] == 1
        squared = (place[:, None] - y).square() + (place[None, :] - x).square()
        weight = visible * (-squared / (2 * (SIZE / 8) ** 2)).exp()
        expected = (weight * degraded.kept[0]).sum(dim=(1, 2)) / weight.sum()
        assert torch.allclose(restored[0, :, y, x], expected, atol=1e-5)


def test_blur_reaches_the_farthest_corner():
    lonely = replace(action(1), mask=torch.ones(1, 4, 4, dtype=torch.bool))
    lonely.mask[0, 0, 0] = False
    x = torch.full((1, 3, SIZE, SIZE), 0.25)
    assert torch.allclose(fill("blur", corrupt(x, lonely)), x, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2])
def test_blur_is_nearer_to_a_smooth_image_than_blocks(factor):
    x = images(16)
    degraded = corrupt(x, action(16, factor=factor))
    error, blocks = ((image - x).square().mean() for image in (fill("blur", degraded), degraded.kept))
    assert error < 0.5 * blocks


def test_blur_leaves_gray_gray():
    restored = fill("blur", corrupt(images(8), action(8, hidden=[(1, 1)], gray=True, factor=1)))
    assert (restored - restored.mean(dim=1, keepdim=True)).abs().max() <= 1e-6


def test_noise_has_the_mean_and_deviation_of_the_visible_pixels():
    x = (0.4 + 0.1 * torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1)) + 0.05 * torch.randn(
        64, 3, SIZE, SIZE, generator=drawn(1)
    )
    degraded = corrupt(x.clamp(0, 1), action(64, hidden=[(0, 0), (1, 1), (2, 2), (3, 3)]))
    hidden = degraded.hidden.bool().expand_as(x)
    restored = fill("noise", degraded)
    for channel in range(3):
        values = restored[:, channel][hidden[:, channel]]
        assert values.mean() == pytest.approx(0.4 + 0.1 * channel, abs=0.005)
        assert values.std() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("deleted", [{"gray": True}, {"factor": 2}])
def test_noise_stands_in_for_color_and_detail(deleted):
    degraded = corrupt(images(32), action(32, **deleted))
    added = (fill("noise", degraded) - degraded.kept).square().mean().sqrt()
    scale = degraded.kept.std(dim=(2, 3)).mean()
    assert 0.3 * scale < added < 1.5 * scale


def test_every_fill_has_a_hash_of_its_own_and_needs_what_it_says():
    hashes = {Fill(kind, SIZE).sha256() for kind in KINDS}
    assert len(hashes) == len(KINDS)
    assert Fill("erase").sha256() == Fill("erase", 32).sha256()
    assert Fill("mean").size is None
    with pytest.raises(ValueError, match="side of the images"):
        Fill("noise")
