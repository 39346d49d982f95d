"""Smooth masks: the middles of cells are hidden as their logits say, and the drawn field is what is scored."""

import pytest
import torch
import torch.nn.functional as F

from env.masks.cells import Cells
from env.masks.law import LearnedMaskLaw, MaskDraw
from env.masks.smooth import Smooth


def some_logits(n=1, grid=4, seed=0, scale=1.5):
    return scale * torch.randn(n, grid, grid, generator=torch.Generator().manual_seed(seed))


def draws(law, seed=0):
    return law.sample(torch.Generator().manual_seed(seed))


def test_it_is_a_law_that_can_be_learned():
    law = Smooth(some_logits(3), 16)
    assert isinstance(law, LearnedMaskLaw)
    assert draws(law).mask.shape == (3, 16, 16)
    assert draws(law).drawn.shape == (3, 4, 4)


@pytest.mark.parametrize("size", [4, 8, 12, 30])
def test_the_mask_is_the_bilinearly_enlarged_field_cut_at_zero(size):
    law = Smooth(some_logits(50), size)
    draw = draws(law)
    large = F.interpolate(draw.drawn[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    clear = large.abs() > 1e-5
    assert torch.equal(draw.mask[clear], (large > 0)[clear])  # 1 = hidden


def test_edges_follow_no_grid():
    mask = draws(Smooth(torch.zeros(50, 4, 4), 16)).mask
    cells = mask.view(50, 4, 4, 4, 4).float().mean(dim=(2, 4))
    assert ((cells > 0) & (cells < 1)).float().mean() > 0.3  # cells hidden in part


def test_middles_of_cells_are_hidden_with_the_probability_of_their_logits():
    n, logits = 20_000, some_logits(seed=1)
    mask = draws(Smooth(logits.expand(n, -1, -1), 12)).mask[:, 1::3, 1::3]
    p = logits[0].sigmoid()
    assert torch.allclose(Smooth(logits, 12).probabilities()[0, 1::3, 1::3], p)
    assert ((mask.float().mean(dim=0) - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()


def test_one_pixel_a_cell_is_the_law_of_independent_cells():
    logits = some_logits(seed=2)
    law = Smooth(logits, 4)
    assert torch.allclose(law.probabilities(), Cells(logits).probabilities())
    assert torch.allclose(law.ratio(), Cells(logits).ratio())
    assert torch.allclose(law.entropy(), Cells(logits).entropy())


@pytest.mark.parametrize("logits", [some_logits(seed=3), torch.full((1, 4, 4), -0.85)])
def test_pixel_probabilities_and_ratio_are_near_the_frequencies(logits):
    one = Smooth(logits, 16)
    share = draws(Smooth(logits.expand(10_000, -1, -1), 16)).mask.float().mean(dim=0)
    assert (one.probabilities()[0] - share).abs().max() < 0.035
    assert abs(one.ratio().item() - share.mean()) < 0.012


def test_the_density_integrates_to_one():
    field = torch.linspace(-40, 40, 8001, dtype=torch.float64).view(-1, 1, 1)
    law = Smooth(torch.full_like(field, 1.7), 2)
    density = law.log_prob(MaskDraw(torch.zeros(8001, 2, 2, dtype=torch.bool), field)).exp()
    assert torch.trapezoid(density, field.flatten()).item() == pytest.approx(1, abs=1e-9)


def test_noise_is_drawn_from_the_density():
    field = draws(Smooth(torch.full((2000, 4, 4), 0.5), 8)).drawn
    for cut in (-2.0, 0.0, 0.5, 3.0):  # the logistic distribution function
        assert (field < cut).float().mean().item() == pytest.approx(
            torch.tensor(cut - 0.5).sigmoid().item(), abs=4 * 0.5 / 32_000**0.5
        )


def test_log_probability_adds_up_over_cells_and_has_the_right_gradient():
    logits = some_logits(3, 2).double().requires_grad_()
    draw = draws(Smooth(logits, 4), 1)
    assert not draw.drawn.requires_grad
    alone = Smooth(logits[:, :1, :1], 2).log_prob(MaskDraw(draw.mask[:, :2, :2], draw.drawn[:, :1, :1]))
    rest = sum(
        Smooth(logits[:, i : i + 1, j : j + 1], 2).log_prob(
            MaskDraw(draw.mask[:, :2, :2], draw.drawn[:, i : i + 1, j : j + 1])
        )
        for i, j in ((0, 1), (1, 0), (1, 1))
    )
    assert torch.allclose(Smooth(logits, 4).log_prob(draw), alone + rest)
    assert torch.autograd.gradcheck(lambda x: Smooth(x, 4).log_prob(draw), (logits,))
    assert torch.autograd.gradcheck(lambda x: Smooth(x, 4).ratio(), (logits,))


def test_the_mode_has_the_largest_density():
    law = Smooth(some_logits(20), 16)
    mode = law.mode()
    assert torch.equal(mode.drawn, law.logits)
    assert (law.log_prob(mode) > law.log_prob(draws(law))).all()
    nearly_all = Smooth(torch.full((1, 4, 4), 4.0), 16).mode()
    assert nearly_all.mask.all()  # positive logits hide


def test_the_entropy_bonus_is_largest_where_nothing_is_decided():
    assert (Smooth(some_logits(20), 16).entropy() < Smooth(torch.zeros(1, 4, 4), 16).entropy()).all()


def test_draws_repeat_with_the_seed_and_differ_between_images():
    law = Smooth(torch.zeros(64, 4, 4), 16)
    first, again, other = (draws(law, seed) for seed in (1, 1, 2))
    assert torch.equal(first.mask, again.mask)
    assert torch.equal(first.drawn, again.drawn)
    assert not torch.equal(first.mask, other.mask)
    assert len(first.mask.flatten(1).unique(dim=0)) == 64
