"""The colorist: it paints what has lost all color and nothing else, one scheme for an image, and keeps lightness."""

from dataclasses import replace

import pytest
import torch

from camnet import frozen
from camnet.bilinear import colors
from camnet.code import Candidates, Code
from camnet.colorist import Colorist, Seen, with_lightness
from camnet.frozen import FrozenGenerator
from camnet.generator import Generator
from camnet.jpeg import compress
from camnet.layout import Layout
from configs.camnet import GeneratorConfig
from env.corruption import Action, corrupt
from env.rows import Rows

CONFIG = GeneratorConfig(
    resolutions=(4, 8, 16),
    widths=(8, 8, 8),
    blocks=1,
    global_code=4,
    colorist=(8, 8, 8),
    schemes=5,
    tasks=("mix", "decompression", "layout"),
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def generator():
    """Its colors are stronger than at first, and its taste has opinions."""
    torch.manual_seed(0)
    g = Generator(CONFIG).requires_grad_(False)
    torch.nn.init.normal_(g.colorist.decide.weight, std=0.1)
    torch.nn.init.normal_(g.colorist.taste.head.weight, std=5.0)
    return g


def images(n, size=16):
    return torch.nn.functional.interpolate(torch.rand(n, 3, 4, 4, generator=seeded(1)), size, mode="bilinear")


def mixed(n):
    """Rows: nothing, cells, detail, color, cells and color, detail and color."""
    row = torch.arange(n) % 6
    mask = torch.rand(n, 4, 4, generator=seeded(2)) < 0.5
    cells = (row == 1) | (row == 4)
    return corrupt(images(n), Action(mask & cells[:, None, None], torch.where((row == 2) | (row == 5), 1, 0), row >= 3))


def coloring(generator, lightness, codes):
    return generator.coloring(generator.seen(lightness), lightness, codes)


def test_images_that_lost_all_color_are_painted_and_no_others(generator):
    given, codes = mixed(12), generator.codes(12, seeded(3))
    gray = given.action.decolorize
    painted, plain = generator(given, codes)[-1], generator(given, codes[:-1])[-1]
    assert torch.equal(painted[~gray], plain[~gray])
    assert (painted - plain).abs().amax(dim=(1, 2, 3))[gray].min() > 0.01
    # What the modules made of lightness stays, but where the color is too strong for it.
    assert (painted - plain)[gray].mean(dim=1).abs().mean() < 0.01
    assert given.residual(painted).max() <= 1e-6
    assert painted.min() >= 0
    assert painted.max() <= 1


@pytest.mark.parametrize("task", ["decompression", "layout"])
def test_other_tasks_are_left_alone(generator, task):
    x = images(3)
    given = compress(x, torch.full((3,), 10.0)) if task == "decompression" else Layout(x[:, 0].round().long(), 8)
    codes = generator.codes(3, seeded(3))
    assert torch.equal(generator(given, codes)[-1], generator(given, codes[:-1])[-1])


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_of_candidates_the_scheme_is_taken_that_taste_and_luck_choose(generator, temperature):
    generator.config = replace(CONFIG, taste_temperature=temperature)
    colorist, lightness, codes = generator.colorist, images(40)[:, :1], generator.codes(40, seeded(3))[-1]
    assert codes.styles.shape == (40, 5, 4, 1, 1)
    totals = {1.0: [], 0.3: []}
    for row in range(40):
        seen = colorist.see(lightness[row : row + 1])
        scores = [
            colorist.scores(seen, colorist.schemes(seen.whole, style.view(1, 1, 4))).item()
            for style in codes.styles[row]
        ]
        for t, rows in totals.items():
            rows.append(torch.tensor(scores) / t + codes.luck[row].flatten())
    settled = {t: torch.stack(rows).argmax(dim=1) for t, rows in totals.items()}
    assert (settled[1.0] != settled[0.3]).any()  # or a temperature that is passed over would not be noticed
    style = codes.styles[torch.arange(40), settled[temperature]]
    alone = coloring(generator, lightness, Code(style, codes.noise))
    assert torch.allclose(coloring(generator, lightness, codes), alone, atol=1e-5)


def test_a_style_is_one_scheme_for_the_whole_image(generator):
    """Places that look alike get the same color: an image of one lightness has one, but at its borders."""
    codes = Code(torch.randn(4, 4, 1, 1, generator=seeded(1)), torch.zeros(4, 0, 1, 1))
    flat = coloring(generator, torch.full((4, 1, 64, 64), 0.5), codes)[:, :, 28:36, 28:36]
    assert flat.std(dim=(2, 3)).max() < 1e-3
    assert flat.mean(dim=(2, 3)).std(dim=0).max() > 1e-3  # other codes, other colors


def test_lightness_stays_as_it_is(generator):
    lightness = torch.rand(3, 1, 16, 16, generator=seeded(1))
    painted = coloring(generator, lightness, generator.codes(3, seeded(3))[-1])
    assert (painted.mean(dim=1, keepdim=True) - lightness).abs().max() < 1e-6
    assert (painted - lightness).abs().mean() > 1e-3


def test_coordinates_of_colors_are_orthonormal():
    c = torch.randn(5, 2, 4, 4, generator=seeded(1))
    image = with_lightness(torch.zeros(5, 1, 4, 4), c)
    assert torch.allclose(image.square().sum(dim=1), c.square().sum(dim=1), atol=1e-5)
    assert image.sum(dim=1).abs().max() < 1e-5


def test_colors_are_sums_of_maps():
    maps, schemes = torch.rand(2, 3, 4, 4, generator=seeded(1)), torch.randn(2, 5, 2, 3, generator=seeded(2))
    made = colors(maps, schemes)
    assert made.shape == (2, 5, 2, 4, 4)
    expected = sum(schemes[1, 4, :, k, None, None] * maps[1, k] for k in range(3))
    assert torch.allclose(made[1, 4], expected, atol=1e-6)


def test_at_first_colors_are_faint_but_heard():
    torch.manual_seed(0)
    fresh = Generator(CONFIG).requires_grad_(False)
    lightness = images(20)[:, :1]
    one, other = (coloring(fresh, lightness, fresh.codes(20, seeded(seed))[-1]) - lightness for seed in (1, 2))
    assert one.abs().amax() < 0.2
    assert (one - other).square().mean() > 0.5 * one.square().mean()


@pytest.mark.parametrize(("size", "widths"), [(16, (8, 8, 8)), (64, (8, 8, 16, 8)), (96, (8, 16, 8, 8))])
def test_it_looks_at_images_of_any_size_that_it_can_halve(size, widths):
    torch.manual_seed(0)
    seen = Colorist(widths, 4).see(torch.rand(2, 1, size, size))
    assert seen.whole.shape == (2, widths[-1])
    assert seen.places.shape == (2, widths[2], size // 8, size // 8)
    assert seen.maps.shape == (2, 32, size // 2, size // 2)


def test_a_frozen_generator_with_a_colorist_keeps_its_promises(generator, tmp_path):
    path = tmp_path / "small.safetensors"
    frozen.save(generator, path, {"generator": CONFIG.__dict__})
    operator = frozen.load(str(path), torch.device("cpu"))
    given, codes = mixed(12), operator.codes(24, seeded(1))
    together = operator.views(given, 2, codes=codes)
    unrounded = FrozenGenerator(generator, {}).views(given, 2, seeded(1))  # files have the colorist in half precision
    assert (together - unrounded).abs().max() < 1e-2
    for i in range(12):
        rows = torch.tensor([i, 12 + i])
        alone = operator.views(given.select(torch.tensor([i])), 2, codes=[code.select(rows) for code in codes])
        assert (alone[0] - together[i]).abs().max() <= 1e-5
    apart = (together[:, 0] - together[:, 1]).abs().amax(dim=(1, 2, 3))
    assert apart[given.action.decolorize].min() > 0.01
    exact = frozen.load(str(path), torch.device("cpu"), torch.bfloat16).views(given, 2, codes=codes)
    assert (exact - together).square().mean().sqrt() < 0.05
    assert given.residual(exact[:, 0]).max() <= 1e-6


def test_a_policy_may_propose_its_style(generator):
    operator = FrozenGenerator(generator, {})
    assert operator.proposable == 16  # three modules', and the colorist's
    codes, proposed = operator.codes(6, seeded(1)), torch.randn(6, 16, generator=seeded(2))
    taken = operator.with_proposal(codes, proposed)[-1]
    assert isinstance(codes[-1], Candidates)
    assert torch.equal(taken.style[:, :, 0, 0], proposed[:, 12:])
    views = operator.views(mixed(3), 2, codes=codes, proposed=proposed.view(2, 3, 16).transpose(0, 1))
    assert views.shape == (3, 2, 3, 16, 16)


def test_codes_that_nobody_hears_are_refused(generator):
    codes = generator.codes(2, seeded(1))
    with pytest.raises(ValueError, match=r"5 codes for 3 modules and 1 that finish"):
        generator(mixed(2), [*codes, codes[-1]])
    plain = Generator(replace(CONFIG, colorist=()))
    with pytest.raises(ValueError, match=r"4 codes for 3 modules"):
        plain(mixed(2), codes)


def test_without_a_colorist_codes_are_those_that_they_were(generator):
    """So that figures measured before there was one can be measured again."""
    plain = Generator(replace(CONFIG, colorist=()))
    for one, other in zip(plain.codes(3, seeded(1)), generator.codes(3, seeded(1))[:-1], strict=True):
        assert torch.equal(one.style, other.style)
        assert torch.equal(one.noise, other.noise)


def test_what_is_seen_has_a_row_for_each_image(generator):
    seen = generator.colorist.see(images(4)[:, :1])
    parts = Rows.joined([seen.select(slice(0, 1)), seen.select(slice(1, 4))])
    assert isinstance(parts, Seen)
    assert torch.equal(parts.maps, seen.maps)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colorist": (8, 8)}, "at least 3 widths"),
        ({"colorist": (8, 8, 0)}, "each at least 1"),
        ({"colorist": (8, 8, 8, 8, 8)}, "32 does not divide their 16 pixels; give fewer"),
        ({"schemes": 0}, r"generator\.schemes"),
        ({"taste_temperature": 0.0}, r"generator\.taste-temperature"),
        ({"tasks": ("layout",)}, "add mix to --generator.tasks"),
    ],
)
def test_colorists_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)
