"""AutoDropout's pattern: six categories, normalized; squares where they belong; an exact expected share."""

import itertools
import math

import pytest
import torch

from env.masks.law import LearnedMaskLaw, MaskDraw
from env.masks.pattern import PARAMETERS, Pattern, area, render

CPU = torch.device("cpu")


def some_logits(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(choice.count, generator=generator, dtype=dtype) for choice in PARAMETERS)


def certain(*picks):
    """Logits of a pattern that is all but certain."""
    return tuple(
        30.0 * torch.nn.functional.one_hot(torch.tensor(i), c.count) for i, c in zip(picks, PARAMETERS, strict=True)
    )


def every_pick():
    return torch.tensor(list(itertools.product(*(range(choice.count) for choice in PARAMETERS))))


def scored(logits, drawn):
    mask = torch.zeros(len(drawn), 2, 2, dtype=torch.bool)
    return Pattern(logits, len(drawn), 2).log_prob(MaskDraw(mask, drawn))


def test_it_is_a_law_that_can_be_learned():
    law = Pattern(some_logits(), 3, 16)
    assert isinstance(law, LearnedMaskLaw)
    draw = law.sample(torch.Generator())
    assert draw.mask.shape == (3, 16, 16)
    assert draw.drawn.shape == (3, 6)


def test_probabilities_of_all_patterns_add_up_to_one_and_give_the_entropy():
    logits, picks = some_logits(dtype=torch.float64), every_pick()
    log_p = scored(logits, picks)
    assert len(picks) == math.prod(choice.count for choice in PARAMETERS)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    entropy = Pattern(logits, 5, 16).entropy()
    assert torch.allclose(entropy, -(log_p.exp() * log_p).sum().expand(5))


def test_draws_follow_the_probabilities():
    n, logits = 20_000, some_logits(1)
    drawn = Pattern(logits, n, 4).sample(torch.Generator().manual_seed(0)).drawn
    for part, column in zip(logits, drawn.T, strict=True):
        p = part.softmax(dim=0)
        share = torch.bincount(column, minlength=len(p)) / n
        assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()
    first, second = (drawn[:, j] == logits[j].argmax() for j in (0, 1))  # independent of one another
    assert abs((first & second).float().mean() - first.float().mean() * second.float().mean()) < 4 * 0.5 / n**0.5


def test_log_probability_and_ratio_have_the_right_gradient():
    logits, picks = some_logits(2, torch.float64), every_pick()[::97]
    for part in logits:
        part.requires_grad_()
    assert torch.autograd.gradcheck(lambda *parts: scored(parts, picks), logits)
    ratio, parts = Pattern(logits, 2, 8).ratio().sum(), logits[:3]
    for part, slope in zip(parts, torch.autograd.grad(ratio, parts), strict=True):
        with torch.no_grad():
            for j in range(len(part)):
                part[j] += 1e-4
                above = Pattern(logits, 2, 8).ratio().sum()
                part[j] -= 2e-4
                below = Pattern(logits, 2, 8).ratio().sum()
                part[j] += 1e-4
                assert slope[j].item() == pytest.approx((above - below).item() / 2e-4, abs=1e-7)


def test_the_plain_pattern_is_rows_and_columns_of_squares():
    # Sides of 1/4, 1/4 apart, twice: 4 of 16 pixels, 4 left out, 4, and the rest left out.
    draw = Pattern(certain(1, 1, 1, 0, 0, 0), 1, 16).mode()
    line = torch.zeros(16, dtype=torch.bool)
    line[0:4] = line[8:12] = True
    assert torch.equal(draw.mask[0], line[:, None] & line)  # 1 = hidden
    assert draw.drawn.tolist() == [[1, 1, 1, 0, 0, 0]]


def test_what_is_over_an_images_length_is_cut_off():
    # Sides of 1/2, 1/4 apart, four times: one square, a gap, and the first half of the next.
    mask = render(torch.tensor([[3, 1, 3, 0, 0, 0]]), torch.zeros(1, 2), 8)[0]
    line = torch.tensor([1, 1, 1, 1, 0, 0, 1, 1]).bool()
    assert torch.equal(mask, line[:, None] & line)


def test_the_offset_moves_the_pattern_down_and_along():
    picks = torch.tensor([[0, 0, 1, 0, 0, 0]])
    still, moved = (render(picks, torch.tensor([offset]), 16) for offset in ([0.0, 0.0], [3 / 16, 5 / 16]))
    assert torch.equal(moved, still.roll((3, 5), (1, 2)))


def square_in_the_middle(rotation=0, shear_x=0, shear_y=0, size=64):
    """One square of half the image's side, turned and sheared about the middle."""
    return render(torch.tensor([[3, 3, 0, rotation, shear_x, shear_y]]), torch.full((1, 2), 0.25), size)[0]


def test_half_a_right_angle_stands_a_square_on_its_corner():
    middle = (torch.arange(64) + 0.5) / 64 - 0.5
    reach = middle.abs()[:, None] + middle.abs()  # of a square on its corner: up to half its diagonal
    clear = (reach - 0.5**1.5).abs() > 1e-3
    clear &= reach < 0.6  # beyond are the copies
    assert torch.equal(square_in_the_middle(rotation=3)[clear], (reach < 0.5**1.5)[clear])


def test_shears_move_rows_and_columns():
    square, size = square_in_the_middle(), 64
    assert square[16:48, 16:48].all()
    assert square.sum() == 32 * 32
    last = 3 * size // 4 - 1  # half a pixel less than a quarter below the middle: moves by an eighth
    assert torch.equal(square_in_the_middle(shear_x=2)[last], square[last].roll(size // 8))
    assert torch.equal(square_in_the_middle(shear_y=2)[:, last], square[:, last].roll(size // 8))


@pytest.mark.parametrize("turn", [(0, 0, 0), (2, 1, 2)])
def test_the_area_is_the_mean_share_of_hidden_pixels(turn):
    generator = torch.Generator().manual_seed(0)
    picks = torch.tensor([(*squares, *turn) for squares in itertools.product(range(4), repeat=3)])
    n = 1000
    offset = torch.rand(n * len(picks), 2, generator=generator)
    mask = render(picks.repeat(n, 1), offset, 8).view(n, len(picks), 8, 8).float()
    expected = area(*(PARAMETERS[j].value(picks[:, j]) for j in range(3)))
    share = mask.mean(dim=(2, 3))
    assert ((share.mean(dim=0) - expected).abs() < 4.5 * share.std(dim=0) / n**0.5 + 1e-6).all()


def test_every_pixel_is_hidden_equally_often():
    n = 20_000
    law = Pattern(some_logits(3), n, 8)
    frequency = law.sample(torch.Generator().manual_seed(0)).mask.float().mean(dim=0)
    p = law.ratio()[0]
    assert torch.equal(law.probabilities(), p.expand(n, 8, 8))
    assert ((frequency - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()


def test_the_mode_is_the_most_probable_pattern_of_every_image():
    logits, picks = some_logits(4), every_pick()
    mode = Pattern(logits, 3, 16).mode()
    assert torch.equal(mode.drawn, picks[scored(logits, picks).argmax()].expand(3, -1))
    assert torch.equal(mode.mask[0], mode.mask[2])


def test_draws_repeat_with_the_seed_and_differ_between_images():
    law = Pattern(some_logits(), 64, 16)
    first, again, other = (law.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.mask, again.mask)
    assert torch.equal(first.drawn, again.drawn)
    assert not torch.equal(first.mask, other.mask)
    assert len(first.mask.flatten(1).unique(dim=0)) > 50
    same = Pattern(certain(1, 1, 1, 1, 0, 0), 64, 16).sample(torch.Generator().manual_seed(0))
    assert len(same.drawn.unique(dim=0)) == 1
    assert len(same.mask.flatten(1).unique(dim=0)) > 50  # the offset is each image's own
