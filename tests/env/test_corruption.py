"""Corruption is a projection: what it deleted is gone for good, what it kept comes back exactly."""

import itertools

import pytest
import torch

from env.corruption import FACTORS, Action, corrupt, make_consistent, to_pixels

SIZE, GRID = 16, 4
MIXES = list(itertools.product(range(len(FACTORS)), [False, True], [False, True]))
"""Downsampling factor (by index), decolorization, mask."""


def images(n, seed=0, size=SIZE):
    """Pixels are multiples of 3/256: sums and means over channels and blocks are then exact in any order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 86, (n, 3, size, size), generator=generator) * 3 / 256


def action(n, factor=0, gray=False, masked=False, grid=GRID, seed=1):
    mask = torch.rand(n, grid, grid, generator=torch.Generator().manual_seed(seed)) < 0.5
    return Action(mask & masked, torch.full((n,), factor), torch.full((n,), gray))


def one_of_each_mix(each=3):
    """All mixes in one batch, so that the rows cannot be told apart by their batch."""
    parts = [action(each, *mix, seed=i) for i, mix in enumerate(MIXES)]
    fields = ("mask", "downsample", "decolorize")
    return Action(*(torch.cat([getattr(part, field) for part in parts]) for field in fields))


def wild(x, kind):
    """Restorations that know nothing of [0, 1]."""
    generator = torch.Generator().manual_seed(5)
    match kind:
        case "noise":
            return torch.rand(x.shape, generator=generator) * 7 - 3
        case "near":
            return x + 0.1 * torch.randn(x.shape, generator=generator)
        case "constant":
            return torch.full_like(x, 4.0)
    return x


def test_nothing_deleted_is_the_identity_bit_for_bit():
    x = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    corrupted = corrupt(x, action(5))
    assert torch.equal(corrupted.kept, x)
    assert not corrupted.hidden.any()
    assert torch.equal(make_consistent(wild(x, "noise"), corrupted), x)


def test_a_bit_hides_its_own_cell():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 3] = True
    hidden = to_pixels(mask, SIZE)
    assert hidden.shape == (1, 1, SIZE, SIZE)
    assert hidden.sum() == 16
    assert hidden[0, 0, 4:8, 12:16].all()


@pytest.mark.parametrize("planted", [0.77, float("nan"), float("inf")])
@pytest.mark.parametrize(("factor", "gray", "masked"), MIXES)
def test_hidden_pixels_cannot_influence_what_is_kept(factor, gray, masked, planted):
    x, a = images(6), action(6, factor, gray, masked=True)
    corrupted = corrupt(x, a)
    changed = torch.where(corrupted.hidden.bool(), torch.tensor(planted), x)
    assert torch.equal(corrupt(changed, a).kept, corrupted.kept)
    assert (corrupted.kept[corrupted.hidden.bool().expand_as(x)] == 0).all()


@pytest.mark.parametrize(("factor", "masked"), [*((f, False) for f in range(5)), *((f, True) for f in range(3))])
def test_deleted_color_cannot_influence_what_is_kept(factor, masked):
    x, a = images(6), action(6, factor, True, masked)
    shuffled = x[:, [2, 0, 1]]
    kept = corrupt(x, a).kept
    assert torch.equal(corrupt(shuffled, a).kept, kept)
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert not torch.equal(corrupt(shuffled, action(6, factor, False, masked)).kept, kept)


@pytest.mark.parametrize(("factor", "size"), [(1, 2), (2, 4), (3, 8), (4, 16)])
@pytest.mark.parametrize(("gray", "masked"), list(itertools.product([False, True], repeat=2)))
def test_deleted_detail_cannot_influence_what_is_kept(factor, size, gray, masked):
    x, a = images(6), action(6, factor, gray, masked)
    blocks = x.view(6, 3, SIZE // size, size, SIZE // size, size)
    turned = blocks.flip(3, 5).reshape(x.shape)  # every block upside down, none moved
    kept = corrupt(x, a).kept
    assert not torch.equal(turned, x)
    assert torch.equal(corrupt(turned, a).kept, kept)
    assert torch.equal(kept, kept[:, :, ::size, ::size].repeat_interleave(size, 2).repeat_interleave(size, 3))


def test_corrupting_again_changes_nothing():
    a = one_of_each_mix()
    x = torch.rand(len(a), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    once = corrupt(x, a).kept
    assert torch.allclose(corrupt(once, a).kept, once, rtol=0, atol=1e-6)
    exact = ~a.decolorize & (a.downsample == 0)
    assert torch.equal(corrupt(once, a).kept[exact], once[exact])


@pytest.mark.parametrize("kind", ["noise", "near", "constant", "truth"])
@pytest.mark.parametrize("extreme", [False, True])
def test_a_restoration_keeps_the_kept_part_and_stays_in_range(kind, extreme):
    a = one_of_each_mix()
    x = torch.rand(len(a), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    if extreme:
        x = x.round()  # pixels at the very ends leave means no room on one side
    corrupted = corrupt(x, a)
    result = make_consistent(wild(x, kind), corrupted)
    assert result.min() >= 0
    assert result.max() <= 1
    again = corrupt(result, a).kept
    assert (again - corrupted.kept).abs().max() <= 1e-6
    only_masks = ~a.decolorize & (a.downsample == 0)
    visible = ~corrupted.hidden.bool().expand_as(x)
    assert torch.equal(result[only_masks][visible[only_masks]], x[only_masks][visible[only_masks]])
    if kind == "truth":
        assert torch.allclose(result, x, rtol=0, atol=1e-6)  # the truth is already consistent


def test_a_restoration_has_its_say_wherever_something_was_deleted():
    a = one_of_each_mix()
    x = 0.25 + 0.5 * torch.rand(len(a), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    corrupted = corrupt(x, a)
    result = make_consistent(wild(x, "noise"), corrupted)
    deletes = a.mask.any(dim=(1, 2)) | a.decolorize | (a.downsample > 0)
    changed = (result - x).abs().amax(dim=(1, 2, 3)) > 0.05
    assert torch.equal(changed, deletes)


@pytest.mark.parametrize("kind", ["noise", "near", "constant", "truth"])
def test_the_gradient_is_finite_and_none_where_all_is_kept(kind):
    a = one_of_each_mix()
    x = torch.rand(len(a), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).round()
    restored = wild(x, kind).clone().requires_grad_()
    result = make_consistent(restored, corrupt(x, a))
    (result * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert restored.grad.isfinite().all()
    untouched = ~a.decolorize & (a.downsample == 0) & ~a.mask.any(dim=(1, 2))
    assert (restored.grad[untouched] == 0).all()
    if kind == "near":
        assert restored.grad.abs().max() > 0


@pytest.mark.parametrize(("factor", "side"), [(2, 4), (3, 8)])
@pytest.mark.parametrize("gray", [False, True])
def test_what_was_kept_is_put_back_without_borders_between_blocks(factor, side, gray):
    ramp = torch.linspace(0.2, 0.8, 32).expand(2, 3, 32, 32)
    step = ramp[0, 0, 0, 1] - ramp[0, 0, 0, 0]
    result = make_consistent(torch.full_like(ramp, 0.5), corrupt(ramp, action(2, factor, gray)))
    steps = result.diff(dim=3)[..., side:-side]  # but for the outermost blocks, which know one neighbor only
    assert steps.max() < 1.7 * step  # a constant a block would step by `side` times as much at the borders
    assert steps.min() > 0.3 * step


def test_one_glaring_pixel_does_not_take_the_contrast_of_its_block():
    checkered = 0.5 + 0.2 * (torch.arange(64) % 2 - 0.5).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    glaring = checkered.clone()
    glaring[..., 3, 3] = 3.0
    corrupted = corrupt(checkered, action(1, 3, grid=1))
    result = make_consistent(glaring, corrupted)
    assert result.max() > 0.95
    assert corrupted.residual(result).max() <= 1e-6
    assert (result[..., 6:, :].std() / checkered[..., 6:, :].std() - 1).abs() < 0.2


def test_a_restoration_is_made_consistent_by_itself_whatever_its_batch():
    a = one_of_each_mix(each=1)
    x = images(len(a))
    restored = wild(x, "near")
    together = make_consistent(restored, corrupt(x, a))
    for i in range(len(a)):
        alone = make_consistent(restored[i : i + 1], corrupt(x[i : i + 1], a.select(torch.tensor([i]))))
        assert torch.allclose(alone, together[i : i + 1], rtol=0, atol=1e-6)


def test_images_of_odd_size_have_no_blocks():
    x, a = images(2, size=15), action(2, 4, masked=True, grid=5)
    corrupted = corrupt(x, a)
    result = make_consistent(wild(x, "noise"), corrupted)
    visible = ~corrupted.hidden.bool().expand_as(x)
    assert (~visible).any()
    assert torch.equal(result[visible], x[visible])


@pytest.mark.parametrize(("grid", "size"), [(3, 16), (5, 16), (7, 24)])
def test_a_grid_that_does_not_divide_the_image_is_refused(grid, size):
    with pytest.raises(ValueError, match="does not divide"):
        corrupt(images(2, size=size), action(2, masked=True, grid=grid))


@pytest.mark.parametrize(("grid", "factor"), [(16, 1), (8, 2), (4, 3), (4, 4), (16, 4)])
def test_a_block_that_a_hidden_cell_touches_is_hidden_whole(grid, factor):
    mask = torch.zeros(1, grid, grid, dtype=torch.bool)
    mask[0, 1, 2] = True
    a = Action(mask, torch.tensor([factor]), torch.tensor([False]))
    x, side, cell = images(1), FACTORS[factor], SIZE // grid
    corrupted = corrupt(x, a)
    row, column = cell // side * side, 2 * cell // side * side
    assert corrupted.hidden.sum() == side**2
    assert corrupted.hidden[0, 0, row : row + side, column : column + side].all()
    changed = x.clone()
    changed[..., cell : 2 * cell, 2 * cell : 3 * cell] += 0.1  # what the cell hid must not show in the block's mean
    assert torch.equal(corrupt(changed, a).kept, corrupted.kept)


def test_a_factor_that_does_not_divide_acts_as_the_largest_that_does():
    x = images(2, size=24)
    eight = action(2, 3, grid=4)
    assert torch.equal(corrupt(x, action(2, 4, grid=4)).kept, corrupt(x, eight).kept)
    assert corrupt(x, eight).kept[0, 0].unique().numel() <= 9


def test_what_was_deleted_is_told_plane_by_plane():
    a = Action(
        torch.zeros(4, 4, 4, dtype=torch.bool), torch.tensor([0, 1, 4, 0]), torch.tensor([True, False, True, False])
    )
    corrupted = corrupt(images(4), a)
    told = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert corrupted.planes().flatten(1).tolist() == told
    assert corrupted.touched().flatten(1).all(dim=1).tolist() == [True, True, True, False]
    assert not corrupted.touched()[3].any()


def test_the_residual_is_how_far_the_kept_part_moved():
    a = one_of_each_mix()
    x = images(len(a))
    corrupted = corrupt(x, a)
    assert corrupted.residual(x).max() <= 1e-6
    moved = corrupted.residual(x + 0.25)
    visible = (corrupted.hidden == 0).flatten(1).any(dim=1)
    assert torch.allclose(moved[visible], torch.tensor(0.25), atol=1e-6)
    assert corrupted.residual(make_consistent(x + 0.25, corrupted)).max() <= 1e-6


def test_rows_are_selected_together():
    a = one_of_each_mix()
    x = images(len(a))
    rows = torch.tensor([7, 2])
    chosen, expected = corrupt(x, a).select(rows), corrupt(x[rows], a.select(rows))
    assert len(chosen) == 2
    assert torch.equal(chosen.kept, expected.kept)
    assert torch.equal(chosen.hidden, expected.hidden)
    for part in ("mask", "downsample", "decolorize"):
        assert torch.equal(getattr(chosen.action, part), getattr(a, part)[rows])
