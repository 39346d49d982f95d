"""The painter: it fills holes and touches nothing else, sees no hidden pixel, and one style is heard everywhere."""

from dataclasses import replace

import pytest
import torch

from camnet import frozen
from camnet.bilinear import colors
from camnet.code import Code
from camnet.frozen import FrozenGenerator
from camnet.generator import Generator
from camnet.jpeg import compress
from camnet.layout import Layout
from camnet.painter import Painter, Sketch, in_holes, smoothly_filled
from configs.camnet import GeneratorConfig
from env.corruption import Action, corrupt
from env.rows import Rows

CONFIG = GeneratorConfig(
    resolutions=(4, 8, 16),
    widths=(8, 8, 8),
    blocks=1,
    global_code=4,
    painter=(8, 8, 8),
    colorist=(8, 8, 8),
    schemes=5,
    tasks=("mix", "decompression", "layout"),
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def generator():
    """Its schemes are bolder than at first."""
    torch.manual_seed(0)
    g = Generator(CONFIG).requires_grad_(False)
    torch.nn.init.normal_(g.painter.decide.weight, std=0.1)
    torch.nn.init.normal_(g.painter.likely.weight, std=0.1)
    return g


def images(n, size=16):
    return torch.nn.functional.interpolate(torch.rand(n, 3, 4, 4, generator=seeded(1)), size, mode="bilinear")


def mixed(n):
    """Rows: nothing, cells, detail, color, cells and color, cells and detail."""
    row = torch.arange(n) % 6
    mask = torch.rand(n, 4, 4, generator=seeded(2)) < 0.5
    cells = (row == 1) | (row >= 4)
    gray = (row == 3) | (row == 4)
    return corrupt(images(n), Action(mask & cells[:, None, None], torch.where((row == 2) | (row == 5), 1, 0), gray))


def filling(generator, image, hidden, codes):
    return generator.filling(generator.sketch(image, hidden), codes)


def test_holes_are_filled_and_nothing_else_is_touched(generator):
    given, codes = mixed(12), generator.codes(12, seeded(3))
    restored = generator(given, codes[:3])[-1]
    filled = generator.filled(given, restored, codes[3])
    hidden = given.hidden.expand_as(filled).bool()
    assert torch.equal(filled[~hidden], restored[~hidden])
    assert (filled - restored)[hidden].abs().mean() > 0.01
    assert filled.min() >= 0
    assert filled.max() <= 1
    finished = generator(given, codes)[-1]
    assert given.residual(finished).max() <= 1e-6
    colored = ~given.action.decolorize
    assert torch.equal(finished[colored], filled[colored])
    assert (finished - filled).abs().amax(dim=(1, 2, 3))[~colored].min() > 0.001


def test_what_is_painted_depends_on_what_is_visible_alone(generator):
    painter, x, hidden = generator.painter, images(4), mixed(12).hidden[[1, 4, 7, 10]]
    sketch = painter.see(x, hidden)
    spoiled = torch.where(hidden.bool(), torch.nan, x)
    assert torch.equal(painter.see(spoiled, hidden).likely, sketch.likely)
    moved = torch.where(hidden.bool(), x, 1 - x)
    assert not torch.allclose(painter.see(moved, hidden).likely, sketch.likely, atol=0.01)


def test_restorations_that_look_the_same_are_looked_at_once(generator, monkeypatch):
    given, looks = mixed(12), {"painter": 0, "colorist": 0}
    codes = generator.codes(36, seeded(3))
    alone = [generator(given, [code.select(slice(k, None, 3)) for code in codes])[-1] for k in range(3)]
    for name in looks:
        part = getattr(generator, name)

        def see(x, *rest, name=name, see=part.see):
            looks[name] += len(x)
            return see(x, *rest)

        monkeypatch.setattr(part, "see", see)
    together = generator(given, codes)[-1].unflatten(0, (12, 3))
    # Twice: cells are looked at once, but with color or detail three times; color once, but with cells three times.
    assert looks == {"painter": 2 * (1 + 3 + 3), "colorist": 2 * (1 + 3)}
    assert (together - torch.stack(alone, dim=1)).abs().max() <= 1e-5


@pytest.mark.parametrize("task", ["decompression", "layout"])
def test_other_tasks_are_left_alone(generator, task):
    x = images(3)
    given = compress(x, torch.full((3,), 10.0)) if task == "decompression" else Layout(x[:, 0].round().long(), 8)
    codes = generator.codes(3, seeded(3))
    assert torch.equal(generator(given, codes)[-1], generator(given, codes[:3])[-1])


def test_at_first_holes_are_filled_smoothly_but_codes_are_heard():
    torch.manual_seed(0)
    fresh = Generator(CONFIG).requires_grad_(False)
    x, hidden = images(20), torch.zeros(20, 1, 16, 16)
    hidden[:, :, 4:12, 8:] = 1
    smooth = smoothly_filled(x, hidden)
    one, other = (filling(fresh, x, hidden, fresh.painter_codes(20, seeded(seed))) - smooth for seed in (1, 2))
    assert one.abs().amax() < 0.3
    assert (one - other).square().mean() > 0.5 * one.square().mean()


def test_a_smooth_fill_keeps_what_is_seen_and_has_no_steps():
    ramp = torch.linspace(0.2, 0.8, 16).view(1, 1, 1, 16).expand(2, 3, 16, 16).contiguous()
    hidden = torch.zeros(2, 1, 16, 16)
    hidden[0, :, 4:8, 4:8] = 1
    hidden[1] = 1
    spoiled = ramp.masked_fill(hidden.bool(), torch.nan)
    filled = smoothly_filled(spoiled, hidden)
    seen = ~hidden.bool().expand_as(ramp)
    assert torch.equal(filled[seen], ramp[seen])
    assert (filled[0] - ramp[0]).abs().max() < 0.13
    assert filled[0].diff(dim=-1).abs().max() < 0.15
    assert torch.equal(filled[1], torch.full((3, 16, 16), 0.5))  # nothing is seen
    for side in (6, 12, 96, 5):
        assert smoothly_filled(torch.rand(1, 3, side, side), torch.zeros(1, 1, side, side)).shape[-1] == side


def test_paintings_are_sums_of_maps():
    sketch = Sketch(torch.zeros(2, 1, 1, 1), torch.rand(2, 3, 4, 4), torch.rand(2, 6, 4, 4))
    fields = torch.randn(2, 5, 3, 6, 1, 1, generator=seeded(2))
    painted = sketch.painted(fields)
    assert painted.shape == (2, 5, 3, 4, 4)
    assert torch.allclose(painted[1, 4], sketch.likely[1] + colors(sketch.maps, fields[..., 0, 0])[1, 4])
    parts = Rows.joined([sketch.select(slice(0, 1)), sketch.select(slice(1, 2))])
    assert torch.equal(parts.painted(fields), painted)
    alike = sketch.painted(fields.expand(-1, -1, -1, -1, 2, 2))  # regions that agree are one
    assert torch.allclose(alike, painted, atol=1e-5)
    hidden = torch.ones(2, 1, 4, 4).triu()
    mixed_in = in_holes(painted[:, 0], sketch.likely, hidden)
    assert torch.equal(mixed_in[:, 0][hidden[:, 0] == 0], sketch.likely[:, 0][hidden[:, 0] == 0])
    assert torch.equal(mixed_in[:, 0][hidden[:, 0] == 1], painted[:, 0, 0][hidden[:, 0] == 1])


def test_between_regions_a_scheme_goes_over_smoothly_from_one_to_the_next():
    sketch = Sketch(torch.zeros(1, 1, 1, 1), torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16))
    fields = torch.tensor([0.0, 1.0]).expand(1, 1, 3, 1, 2, 2)
    painted = sketch.painted(fields)[0, 0]
    expected = ((torch.arange(16) + 0.5) / 8 - 0.5).clamp(0, 1)
    assert torch.allclose(painted, expected.expand(3, 16, 16), atol=1e-6)


@pytest.mark.parametrize("regions", [2, 3])
def test_a_place_is_made_of_the_scheme_between_those_of_the_regions(regions):
    """The definition, with a scheme for every place, from which what is computed differs by the order of sums."""
    sketch = Sketch(torch.zeros(2, 1, 1, 1), torch.rand(2, 3, 12, 12), torch.rand(2, 6, 12, 12))
    fields = torch.randn(2, 5, 3, 6, regions, regions, generator=seeded(2))
    of_places = torch.nn.functional.interpolate(fields.flatten(0, 2), 12, mode="bilinear").unflatten(0, (2, 5, 3))
    expected = sketch.likely[:, None] + (of_places * sketch.maps[:, None, None]).sum(dim=3)
    torch.testing.assert_close(sketch.painted(fields), expected)


def test_a_style_is_understood_in_sight_of_its_own_region():
    torch.manual_seed(0)
    painter = Painter((8, 8, 8), 4)
    torch.nn.init.normal_(painter.decide.weight)
    coarse = torch.rand(1, 8, 4, 4, generator=seeded(1))
    sketch = Sketch(coarse, torch.zeros(1, 3, 16, 16), torch.zeros(1, 32, 16, 16))
    style = torch.randn(1, 2, 4, 1, 1, generator=seeded(2)).expand(-1, -1, -1, 2, 2)
    fields = painter.fields(sketch, style)
    assert fields.shape == (1, 2, 3, 32, 2, 2)
    corner = Sketch(coarse[..., 2:, :2], sketch.likely, sketch.maps)
    assert torch.allclose(fields[..., 1, 0], painter.fields(corner, style[..., :1, :1])[..., 0, 0], atol=1e-5)
    assert not torch.allclose(fields[..., 1, 0], fields[..., 0, 1])


@pytest.mark.parametrize(("size", "widths"), [(16, (8, 8, 8)), (64, (8, 8, 16, 8)), (96, (8, 16, 8, 8))])
def test_it_paints_images_of_any_size_that_it_can_halve(size, widths):
    torch.manual_seed(0)
    sketch = Painter(widths, 4).see(torch.rand(2, 3, size, size), torch.ones(2, 1, size, size).triu())
    assert sketch.coarse.shape == (2, widths[-1], size // 2 ** len(widths), size // 2 ** len(widths))
    assert sketch.likely.shape == (2, 3, size, size)
    assert sketch.maps.shape == (2, 32, size, size)


def test_pixels_of_a_patch_begin_alike():
    """Or dots would have to be unlearned first."""
    torch.manual_seed(0)
    maps = Painter((8, 8, 8), 4).see(torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16)).maps
    assert torch.equal(maps[..., ::2, ::2], maps[..., 1::2, 1::2])


def test_a_frozen_generator_with_a_painter_keeps_its_promises(generator, tmp_path):
    path = tmp_path / "small.safetensors"
    frozen.save(generator, path, {"generator": CONFIG.__dict__})
    operator = frozen.load(str(path), torch.device("cpu"))
    given, codes = mixed(12), operator.codes(24, seeded(1))
    together = operator.views(given, 2, codes=codes)
    unrounded = FrozenGenerator(generator, {}).views(given, 2, seeded(1))  # files have the painter in half precision
    assert (together - unrounded).abs().max() < 1e-2
    for i in range(12):
        rows = torch.tensor([i, 12 + i])
        alone = operator.views(given.select(torch.tensor([i])), 2, codes=[code.select(rows) for code in codes])
        assert (alone[0] - together[i]).abs().max() <= 1e-5
    exact = frozen.load(str(path), torch.device("cpu"), torch.bfloat16).views(given, 2, codes=codes)
    assert (exact - together).square().mean().sqrt() < 0.05
    assert given.residual(exact[:, 0]).max() <= 1e-6


def test_painter_and_colorist_lie_on_disk_in_half_precision_and_nothing_else_does(generator, tmp_path):
    path = tmp_path / "small.safetensors"
    frozen.save(generator, path, {"generator": CONFIG.__dict__})
    loaded, own = frozen.load(str(path), torch.device("cpu")).state_dict(), generator.state_dict()
    for name, value in loaded.items():
        halved = name.split(".")[0] in ("painter", "colorist")
        assert value.dtype == torch.float32
        assert torch.equal(value, own[name].half().float() if halved else own[name])
    again = tmp_path / "again.safetensors"  # what was read is written as it was
    frozen.save(frozen.load(str(path), torch.device("cpu"))._generator, again, {"generator": CONFIG.__dict__})
    assert again.read_bytes() == path.read_bytes()


def test_a_policy_may_propose_its_style(generator):
    operator = FrozenGenerator(generator, {})
    assert operator.proposable == 20  # three modules', the painter's and the colorist's
    codes, proposed = operator.codes(6, seeded(1)), torch.randn(6, 20, generator=seeded(2))
    taken = operator.with_proposal(codes, proposed)
    assert torch.equal(taken[3].style[:, :, 0, 0], proposed[:, 12:16])
    assert torch.equal(taken[4].style[:, :, 0, 0], proposed[:, 16:])
    one, other = (filling(generator, images(6), torch.ones(6, 1, 16, 16), c) for c in (codes[3], taken[3]))
    assert (one - other).abs().mean() > 1e-3


def test_codes_for_one_of_painter_and_colorist_are_refused(generator):
    codes = generator.codes(2, seeded(1))
    assert isinstance(codes[3], Code)
    for some in (codes[:4], [*codes, codes[-1]]):
        with pytest.raises(ValueError, match=r"codes for 3 modules and 2 that finish"):
            generator(mixed(2), some)


def test_without_a_painter_codes_of_the_modules_are_those_that_they_were(generator):
    plain = Generator(replace(CONFIG, painter=(), colorist=()))
    for one, other in zip(plain.codes(3, seeded(1)), generator.codes(3, seeded(1)), strict=False):
        assert torch.equal(one.style, other.style)
        assert torch.equal(one.noise, other.noise)


def test_every_region_of_a_code_has_a_style_of_its_own_which_no_policy_proposes():
    torch.manual_seed(0)
    g = Generator(replace(CONFIG, painter_regions=2)).requires_grad_(False)
    torch.nn.init.normal_(g.painter.decide.weight)
    codes = g.codes(3, seeded(1))
    assert codes[3].style.shape == (3, 4, 2, 2)
    assert FrozenGenerator(g, {}).proposable == 16  # three modules' and the colorist's
    style = codes[3].style.clone()
    style[:, :, 1, 1] += 1
    x, hidden = images(3), torch.ones(3, 1, 16, 16)
    hidden[:, :, :4, :4] = 0
    apart = (filling(g, x, hidden, codes[3]) - filling(g, x, hidden, Code(style, codes[3].noise))).abs()
    assert apart[:, :, :4].max() == 0
    assert apart[:, :, 12:, 12:].mean() > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"painter": (8, 8)}, r"generator\.painter needs at least 3 widths"),
        ({"painter": (8, 8, 0)}, "each at least 1"),
        ({"painter": (8, 8, 8, 8, 8)}, r"generator\.painter: .* 32 does not divide their 16 pixels; give fewer"),
        ({"painter_regions": 0}, r"generator\.painter-regions"),
        ({"painter_regions": 5}, r"generator\.painter-regions"),
        ({"tasks": ("layout",), "colorist": ()}, r"generator\.painter fills holes of the mix task: add mix"),
    ],
)
def test_painters_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)
