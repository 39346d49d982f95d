"""Exemplars: holes are put together from visible windows alone, the nearest ones, by votes, and as luck has it."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from camnet import exemplars, parts
from camnet.exemplars import AT_HAND, FAR, POWER, SIDE, STEPS, SURE, TRUST, VOTING, completed
from camnet.generator import Generator
from configs.camnet import GeneratorConfig
from env.corruption import Action, corrupt

CONFIG = GeneratorConfig(resolutions=(4, 8, 16), widths=(8, 8, 8), blocks=1, painter=(8, 8, 8), exemplars=2)
EDGE = SIDE // 2


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def photographs(n, side=16, seed=1):
    return F.interpolate(torch.rand(n, 3, side // 4, side // 4, generator=seeded(seed)), side, mode="bicubic").clamp(
        0, 1
    )


def cells(n, side=16, share=0.4, seed=2):
    return F.interpolate((torch.rand(n, 1, 4, 4, generator=seeded(seed)) < share).float(), side)


def luck(n, side=16, seed=3):
    return torch.randn(n, 2, side, side, generator=seeded(seed))


def slowly(image, hidden, luck, turns):
    """`completed` for one image, window by window."""
    side = image.shape[-1]

    def window(picture, y, x):
        rows, columns = (torch.arange(c - EDGE, c + EDGE + 1).clamp(0, side - 1) for c in (y, x))
        return picture[:, rows][:, :, columns]

    def most_lucky(plane, fit, count):
        fitting = [(y, x) for y in range(side) for x in range(side) if fit(y, x)]
        return sorted(fitting, key=lambda at: -luck[(plane, *at)])[:count]

    def is_whole(y, x):
        inside = EDGE <= y < side - EDGE and EDGE <= x < side - EDGE
        return inside and window(hidden, y, x).sum() == 0

    at_hand = most_lucky(0, is_whole, side**2 // AT_HAND)
    voting = most_lucky(1, lambda y, x: window(hidden, y, x).sum() > 0, side**2 // VOTING)
    steps = lambda colors: (colors * STEPS).round()  # noqa: E731
    made = image
    for _ in range(turns):
        said, votes = torch.zeros_like(image), torch.zeros(side, side)
        for y, x in voting:
            weight = window(1 + (TRUST - 1) * (1 - hidden), y, x)
            own = steps(window(made, y, x))
            apart = [(weight * (own - steps(window(image, *at))) ** 2).sum() for at in at_hand]
            nearest = min(range(len(apart)), key=apart.__getitem__)
            vote = (apart[nearest] / weight.sum() / STEPS**2 + SURE) ** -POWER
            for dy in range(-EDGE, EDGE + 1):
                for dx in range(-EDGE, EDGE + 1):
                    if 0 <= y + dy < side and 0 <= x + dx < side:
                        at = at_hand[nearest]
                        said[:, y + dy, x + dx] += vote * image[:, at[0] + dy, at[1] + dx]
                        votes[y + dy, x + dx] += vote
        own = SIDE**2 / VOTING * (FAR + SURE) ** -POWER
        made = torch.where(hidden == 1, (said + own * image) / (votes + own), image)
    return made


@pytest.mark.parametrize("turns", [1, 2])
def test_it_is_what_the_definition_says_window_by_window(turns):
    images, hidden, chance = photographs(3), cells(3), luck(3)
    hidden[2] = 0
    hidden[2, :, 12:, 3:] = 1  # at the border, too
    found = completed(images, hidden, chance, turns)
    for i in range(3):
        assert torch.allclose(found[i], slowly(images[i], hidden[i], chance[i], turns), atol=1e-5)
    assert (found - images).abs().max() > 0.02


def test_a_texture_goes_on_where_a_painting_is_soft():
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    stripes = 0.45 + 0.1 * ((x + y) % 4 < 2).float().expand(1, 3, 32, 32)
    hidden = torch.zeros(1, 1, 32, 32)
    hidden[:, :, 12:20, 12:20] = 1
    soft = F.avg_pool2d(stripes, 3, 1, 1)
    painted = torch.where(hidden.bool(), 0.5 + 0.3 * (soft - 0.5), stripes)
    made = completed(painted, hidden, luck(1, 32), 2)

    def error(image):
        return (image - stripes)[:, :, 12:20, 12:20].square().mean()

    assert error(made) < 0.2 * error(painted)


def test_what_is_visible_stays_and_all_stays_within_its_range():
    images, hidden = photographs(8), cells(8)
    made = completed(images, hidden, luck(8), 2)
    assert torch.equal(made * (1 - hidden), images * (1 - hidden))
    assert made.min() >= 0
    assert made.max() <= 1 + 1e-6


def test_hidden_pixels_are_no_exemplars(monkeypatch):
    """Holes painted in a color of their own lose it where the painting has no say."""
    monkeypatch.setattr(exemplars, "FAR", 1e6)
    images, hidden = 0.5 * photographs(6, 32), cells(6, 32, 0.3)
    painted = torch.where(hidden.bool(), 1.0, images)
    made = completed(painted, hidden, luck(6, 32), 2)
    voted = (made < 1) & hidden.bool()
    assert voted.float().sum() > 0.95 * 3 * hidden.sum()
    assert made[voted].max() <= 0.5 + 1e-5


def test_what_looks_like_nothing_visible_stays():
    images, hidden = 0.3 * photographs(6, 32), torch.zeros(6, 1, 32, 32)
    hidden[:, :, 8:24, 8:24] = 1
    painted = torch.where(hidden.bool(), 1.0, images)
    apart = (completed(painted, hidden, luck(6, 32), 2) - painted).abs()
    assert apart[:, :, 13:19, 13:19].max() < 0.05
    assert apart.max() > 0.1  # beside what is visible


def test_luck_decides_which_windows_are_at_hand_and_which_vote():
    images, hidden = photographs(4, 32), cells(4, 32)
    made = completed(images, hidden, luck(4, 32), 1)
    assert torch.equal(made, completed(images, hidden, luck(4, 32), 1))
    for plane in (0, 1):
        other = luck(4, 32)
        other[:, plane] = luck(4, 32, seed=9)[:, plane]
        assert (made - completed(images, hidden, other, 1)).abs().max() > 1e-3


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_an_image_is_completed_alone_as_in_company(at_once, monkeypatch):
    images, hidden, chance = photographs(6, 32), cells(6, 32), luck(6, 32)
    alone = torch.cat([completed(images[i : i + 1], hidden[i : i + 1], chance[i : i + 1], 2) for i in range(6)])
    monkeypatch.setitem(parts.BYTES_AT_ONCE, "cpu", at_once)
    assert torch.allclose(alone, completed(images, hidden, chance, 2), rtol=0, atol=1e-6)


def test_windows_are_compared_exactly():
    """All sums are whole numbers that float32 holds: the same in double precision, and in any order."""
    colors = torch.cat([torch.ones(3 * SIDE**2, 1), torch.zeros(3 * SIDE**2, 1), torch.rand(3 * SIDE**2, 200)], dim=1)
    steps = exemplars._in_steps(colors[None])[0]
    assert 2 * TRUST * 3 * SIDE**2 * steps.abs().max() ** 2 + TRUST * steps.square().sum(dim=0).max() < 2**24
    assert torch.equal(steps, steps.round())


def test_of_the_nearest_exemplars_the_first_that_is_not_barred_is_taken_and_how_far_it_is_is_exact():
    windows, visible = torch.rand(2, 75, 60, generator=seeded(4)), torch.rand(2, 75, 40, generator=seeded(5))
    visible[:, :, 20:] = visible[:, :, :20]  # each is there twice
    windows[:, :, 0] = visible[:, :, 7]
    barred = torch.zeros(2, 40, dtype=torch.bool)
    barred[1, :3] = True
    windows, visible = exemplars._in_steps(windows), exemplars._in_steps(visible)
    windows[0, :, 1] = visible[0, :, 19]
    visible[0, :, 0] = visible[0, :, 19]
    visible[0, 0, 0] += 1  # nearly as near as the nearest, and before it
    weights = 1 + (TRUST - 1) * (torch.rand(2, 25, 60, generator=seeded(6)) > 0.5).float()
    found, apart = exemplars._nearest(windows, weights, exemplars._held(visible, barred))
    difference = (windows[:, :, :, None] - visible[:, :, None]).double().square().unflatten(1, (3, 25)).sum(dim=1)
    all_apart = (weights[..., None] * difference).sum(dim=1).masked_fill(barred[:, None], torch.inf)
    assert torch.equal(found, all_apart.argmin(dim=2))
    assert torch.equal(apart, all_apart.amin(dim=2).float() / weights.sum(dim=1))
    assert found[0, 1] == 19
    assert found[0].max() <= 20
    assert found[1].max() >= 20  # the second of those that are barred


def test_nothing_is_rounded_where_the_caller_computes_in_bfloat16():
    random = torch.Generator().manual_seed(0)
    painted, luck = torch.rand(2, 3, 48, 48, generator=random), torch.randn(2, 2, 48, 48, generator=random)
    hidden = torch.zeros(2, 1, 48, 48)
    hidden[:, :, 12:30, 18:40] = 1
    expected = completed(painted, hidden, luck, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(completed(painted, hidden, luck, 2), expected)


def test_without_a_visible_window_or_a_hole_all_stays():
    images = photographs(3)
    hidden = torch.stack([torch.ones(1, 16, 16), torch.zeros(1, 16, 16), torch.ones(1, 16, 16)])
    hidden[2, :, :4, :4] = 0  # too little for a window
    assert torch.equal(completed(images, hidden, luck(3), 2), images)


def test_an_image_that_is_not_finite_stays_so_and_spoils_no_other():
    images, hidden, chance = photographs(3), cells(3), luck(3)
    expected = completed(images, hidden, chance, 2)
    images[1] = torch.nan
    made = completed(images, hidden, chance, 2)
    assert made[1].isnan().all()
    assert torch.allclose(made[::2], expected[::2], rtol=0, atol=1e-6)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    g = Generator(CONFIG)
    torch.nn.init.normal_(g.painter.decide.weight, std=0.1)
    return g


def degraded(n=8):
    """Every second image has lost cells."""
    mask = torch.zeros(n, 4, 4, dtype=torch.bool)
    mask[::2, 2] = torch.rand(n // 2, 4, generator=seeded(2)) < 0.5
    none = torch.zeros(n)
    return corrupt(photographs(n), Action(mask, none.long(), none.bool()))


def test_a_generator_completes_what_its_painter_painted_and_nothing_else(generator):
    given, codes = degraded(), generator.codes(16, seeded(1))
    with torch.no_grad():
        made = generator(given, codes)[-1]
        generator.config = replace(CONFIG, exemplars=0)
        painted = generator(given, codes)[-1]
    hidden = given.hidden.repeat_interleave(2, dim=0)
    expected = completed(painted, hidden, codes[3].noise, 2)
    assert torch.allclose(made, expected, atol=1e-6)
    assert (made - painted).abs().flatten(1).amax(dim=1)[::4].min() > 1e-3
    assert torch.equal(made[2::4], painted[2::4])  # whole images
    assert torch.equal(made[3::4], painted[3::4])
    assert given.residual(made[::2]).max() <= 1e-6


def test_a_code_has_luck_where_there_are_exemplars_and_the_styles_that_it_had(generator):
    ours = generator.painter_codes(3, seeded(1))
    plain = Generator(replace(CONFIG, exemplars=0)).painter_codes(3, seeded(1))
    assert ours.noise.shape == (3, 2, 16, 16)
    assert plain.noise.numel() == 0
    assert torch.equal(ours.style, plain.style)


def test_a_gradient_reaches_the_painter_past_the_exemplars(generator):
    given = degraded()
    generator.painted(given, given.kept, generator.painter_codes(8, seeded(1))).sum().backward()
    assert all(p.grad is not None for p in generator.painter.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"painter": ()}, "exemplars: nothing is painted"), ({"exemplars": -1}, r"generator\.exemplars")],
)
def test_exemplars_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)
