"""The generator heeds its codes, keeps what was kept, and treats each image by itself."""

import inspect
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from camnet import parts
from camnet.code import Code
from camnet.condition import condition_at, filled_at
from camnet.generator import Generator
from camnet.jpeg import compress
from camnet.layout import Layout
from camnet.module import Block, CascadeModule
from camnet.painter import Painter
from configs.camnet import GeneratorConfig
from env.corruption import FACTORS, Action, corrupt

CONFIG = GeneratorConfig(resolutions=(4, 8, 16), widths=(48, 32, 16), blocks=2, global_code=16, spatial_code=1)
LEVELS = len(CONFIG.resolutions)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return Generator(CONFIG).eval().requires_grad_(False)


def images(n):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def mixed(n, seed=2):
    """Rows of every mix: none, mask, downsampling by 2 and by 4, gray, all of them."""
    mask = torch.rand(n, 4, 4, generator=torch.Generator().manual_seed(seed)) < 0.5
    row = torch.arange(n)
    return Action(
        mask & ((row % 6 == 1) | (row % 6 == 5))[:, None, None],
        torch.where(row % 6 == 2, 1, torch.where((row % 6 == 3) | (row % 6 == 5), 2, 0)),
        (row % 6 == 4) | (row % 6 == 5),
    )


def none_deleted(n):
    return Action(torch.zeros(n, 4, 4, dtype=torch.bool), torch.zeros(n, dtype=torch.long), torch.zeros(n) > 0)


def codes(generator, n, seed):
    return generator.codes(n, torch.Generator().manual_seed(seed))


def test_two_codes_differ_where_something_was_deleted_and_nowhere_else(generator):
    a = mixed(12)
    corrupted = corrupt(images(12), a)
    one, two = (generator(corrupted, codes(generator, 12, seed))[-1] for seed in (3, 4))
    for view in (one, two):
        assert (corrupt(view, a).kept - corrupted.kept).abs().max() <= 1e-6
        assert view.min() >= 0
        assert view.max() <= 1
    visible = ~corrupted.hidden.bool().expand_as(one)
    untouched = ~a.decolorize & (a.downsample == 0)
    assert torch.equal(one[untouched][visible[untouched]], two[untouched][visible[untouched]])
    differs = (one - two).abs().amax(dim=(1, 2, 3))
    deletes = a.mask.any(dim=(1, 2)) | ~untouched
    assert (differs[deletes] > 1e-3).all()
    assert (differs[~deletes] == 0).all()


def test_the_same_code_gives_the_same_image(generator):
    corrupted = corrupt(images(6), mixed(6))
    state = torch.get_rng_state()
    first = generator(corrupted, codes(generator, 6, 3))
    again = generator(corrupted, codes(generator, 6, 3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_no_image_influences_another(generator):
    n = 6
    x, a, z = images(n), mixed(n), codes(generator, n, 3)
    together = generator(corrupt(x, a), z)[-1]
    for row in range(n):
        index = torch.tensor([row])
        alone = generator(corrupt(x[index], a.select(index)), [code.select(index) for code in z])[-1]
        assert torch.allclose(alone[0], together[row], rtol=0, atol=1e-5)


def test_where_all_is_kept_it_is_the_identity(generator):
    x = images(5)
    assert torch.equal(generator(corrupt(x, none_deleted(5)), codes(generator, 5, 3))[-1], x)


@pytest.mark.parametrize("level", range(LEVELS))
@pytest.mark.parametrize("part", ["style", "noise"])
def test_every_part_of_the_code_acts_from_the_start(generator, level, part):
    n = 8
    hidden = Action(torch.ones(n, 4, 4, dtype=torch.bool), torch.zeros(n, dtype=torch.long), torch.zeros(n) > 0)
    corrupted = corrupt(images(n), hidden)
    z, other = codes(generator, n, 3), codes(generator, n, 4)
    swapped = list(z)
    swapped[level] = replace(z[level], **{part: getattr(other[level], part)})
    before, after = generator(corrupted, z), generator(corrupted, swapped)
    rms = (before[-1] - after[-1]).square().mean().sqrt()
    assert rms > 2e-3  # what is not heard cannot be searched
    for coarser in range(level):
        assert torch.equal(before[coarser], after[coarser])  # the cascade runs one way


def test_every_module_gives_an_image_of_its_resolution(generator):
    stages = generator(corrupt(images(3), mixed(3)), codes(generator, 3, 3))
    assert [tuple(image.shape) for image in stages] == [(3, 3, r, r) for r in CONFIG.resolutions]


@pytest.mark.parametrize("modules", [1, 2])
def test_codes_of_the_first_modules_give_their_images(generator, modules):
    corrupted, z = corrupt(images(3), mixed(3)), codes(generator, 3, 3)
    some, every = generator(corrupted, z[:modules]), generator(corrupted, z)
    assert len(some) == modules
    assert all(torch.equal(a, b) for a, b in zip(some, every, strict=False))


def test_codes_are_standard_normal_and_of_the_modules_shapes(generator):
    drawn = codes(generator, 400, 0)
    for code, r in zip(drawn, CONFIG.resolutions, strict=True):
        assert code.style.shape == (400, CONFIG.global_code, 1, 1)
        assert code.noise.shape == (400, CONFIG.spatial_code, r, r)
        assert abs(code.style.mean()) < 0.06
        assert code.style.std().item() == pytest.approx(1, abs=0.05)
        assert code.noise.std().item() == pytest.approx(1, abs=0.05)


def test_a_style_by_region_acts_there():
    torch.manual_seed(0)
    generator = Generator(replace(CONFIG, regions=(1, 2, 4), spatial_code=0))
    n = 4
    hidden = Action(torch.ones(n, 4, 4, dtype=torch.bool), torch.zeros(n, dtype=torch.long), torch.zeros(n) > 0)
    corrupted = corrupt(images(n), hidden)
    z = codes(generator, n, 3)
    assert [code.style.shape[-1] for code in z] == [1, 2, 4]
    style = z[2].style.clone()
    style[..., 0, 0] = codes(generator, n, 4)[2].style[..., 0, 0]
    change = generator(corrupted, [*z[:2], replace(z[2], style=style)])[-1] - generator(corrupted, z)[-1]
    power = change.square().mean(dim=(0, 1))
    assert power[:4, :4].mean() > 1e-6
    assert power[12:, 12:].mean() < 1e-3 * power[:4, :4].mean()  # the farthest region hears nothing of it


def test_one_style_in_all_regions_is_a_style_of_the_whole():
    torch.manual_seed(0)
    generator = Generator(CONFIG)
    corrupted, z = corrupt(images(3), mixed(3)), codes(generator, 3, 3)
    spread = [replace(code, style=code.style.expand(-1, -1, 4, 4)) for code in z]
    for one, many in zip(generator(corrupted, z), generator(corrupted, spread), strict=True):
        assert torch.allclose(one, many, atol=1e-6)


@pytest.mark.parametrize("regions", [(1, 1), (1, 1, 3), (1, 0, 1), (8, 8, 8)])
def test_regions_that_do_not_fit_are_refused(regions):
    with pytest.raises(ValueError, match=r"--generator\.regions"):
        replace(CONFIG, regions=regions)


def test_without_spatial_codes_it_runs_as_well():
    torch.manual_seed(0)
    generator = Generator(replace(CONFIG, spatial_code=0))
    z = codes(generator, 2, 0)
    assert z[0].noise.shape == (2, 0, 4, 4)
    assert isinstance(z[0], Code)
    assert generator(corrupt(images(2), mixed(2)), z)[-1].shape == (2, 3, 16, 16)


def test_the_condition_averages_visible_pixels_alone():
    x = torch.full((1, 3, 16, 16), 0.5)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 2, 2] = mask[0, 2, 3] = mask[0, 3, 2] = mask[0, 3, 3] = True
    corrupted = corrupt(x, Action(mask, torch.tensor([0]), torch.tensor([True])))
    planes = condition_at(corrupted, corrupted.planes(), 2, 1)  # four cells a position
    assert torch.allclose(planes[0, :3], torch.tensor([[0.5, 0.5], [0.5, 0.0]]).expand(3, 2, 2))
    assert torch.allclose(planes[0, 3], torch.tensor([[0.25, 0.0], [0.0, 1.0]]))
    assert (planes[0, 4] == 1).all()
    for index in range(1, len(FACTORS)):
        other = corrupt(x, Action(mask, torch.tensor([index]), torch.tensor([False])))
        flags = condition_at(other, other.planes(), 4, 1)[0, 4:].amax(dim=(1, 2)).tolist()
        assert flags == [0.0] + [float(index == i) for i in range(1, len(FACTORS))]


WIDE = GeneratorConfig(
    resolutions=(8, 16), widths=(16, 8), blocks=1, global_code=4, patch=2, context=True, norm=False, factors=5
)


KINDS = {
    "plain": CONFIG,
    "wide": WIDE,
    "wide without spatial codes": replace(WIDE, spatial_code=0),
    "colors that follow": replace(WIDE, lightness_only=1),
}


@pytest.fixture(params=KINDS)
def any_generator(request):
    torch.manual_seed(0)
    g = Generator(KINDS[request.param])
    for level in g.levels:
        if level.color is not None:
            torch.nn.init.normal_(level.color.head.weight, std=0.05)  # they begin at zero
    return g


def test_candidates_are_what_single_steps_give(any_generator):
    """What no code enters is computed once an image; that must change nothing."""
    g, n, m = any_generator, 3, 4
    degraded = corrupt(images(n), mixed(n))
    conditions, stage = g.conditions(degraded), g.start(degraded)
    for level in range(len(g.levels)):
        codes = g.draw(n * m, level, torch.Generator().manual_seed(level))
        many = g.refine(level, g.enter(level, conditions[level], stage), codes)
        rows = torch.arange(n).repeat_interleave(m)
        single = g.step(level, conditions[level][rows], codes, stage.select(rows))
        assert torch.allclose(many.image, single.image, atol=1e-5)
        assert torch.allclose(many.features, single.features, atol=1e-5)
        assert not torch.allclose(many.image[0], many.image[1], atol=1e-4)  # codes differ
        stage = many.select(torch.arange(n) * m)


def test_what_lies_channels_last_stays_so(any_generator):
    """As on a GPU: a module that mixed both layouts would copy its features at every convolution."""
    n, m = 3, 4
    degraded, last = corrupt(images(n), mixed(n)), torch.channels_last
    turned = deepcopy(any_generator).to(memory_format=last)
    stages = []
    for g in (any_generator, turned):
        conditions, stage = g.conditions(degraded), g.start(degraded)
        for level in range(len(g.levels)):
            code = g.draw(n * m, level, torch.Generator().manual_seed(level))
            many = g.refine(level, g.enter(level, conditions[level], stage), code)
            stage = g.step(level, conditions[level], code.select(torch.arange(n) * m), stage)
            stages += [many, stage]
            if level + 1 < len(g.levels):  # several stages before for one condition
                stages.append(g.enter(level + 1, conditions[level + 1], many))
    half = len(stages) // 2
    for plain, other in zip(stages[:half], stages[half:], strict=True):
        assert plain.features.is_contiguous()
        assert other.features.is_contiguous(memory_format=last)
        assert not other.features.is_contiguous()
        assert torch.allclose(plain.features, other.features, rtol=0, atol=1e-5)
        assert torch.allclose(plain.image, other.image, rtol=0, atol=1e-6)
    z = codes(turned, n * m, 3)
    for a, b in zip(any_generator(degraded, z), turned(degraded, z), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


def test_several_codes_an_image_are_restored_image_by_image(any_generator):
    g, n, k = any_generator, 3, 4
    degraded = corrupt(images(n), mixed(n))
    z = codes(g, n * k, 5)
    together = g(degraded, z)
    for j in range(k):
        rows = torch.arange(n) * k + j
        alone = g(degraded, [code.select(rows) for code in z])
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[rows], b, atol=1e-5)


def test_modules_on_patches_give_full_images_and_hear_each_pixel():
    torch.manual_seed(0)
    g, x = Generator(WIDE), images(2)
    degraded = corrupt(x, mixed(2))
    outputs = g(degraded, codes(g, 2, 0))
    assert [tuple(image.shape) for image in outputs] == [(2, 3, 8, 8), (2, 3, 16, 16)]
    condition = g.conditions(degraded)[1]
    moved = corrupt(x, mixed(2))
    moved.kept[0, 0, 5, 6] += 0.5  # one pixel of a patch
    assert not torch.equal(g.conditions(moved)[1][0], condition[0])
    assert torch.equal(g.conditions(moved)[1][1], condition[1])


def test_a_task_enters_by_planes_of_its_own_and_others_are_refused():
    torch.manual_seed(0)
    g = Generator(replace(WIDE, tasks=("mix", "layout"), layout_classes=3))
    labels = torch.arange(3).repeat_interleave(86)[:256].view(1, 16, 16).expand(2, -1, -1)
    layout = Layout(labels, 3)
    z = codes(g, 2, 0)
    assert g(layout, z)[-1].shape == (2, 3, 16, 16)
    other = Layout(labels.flip(1), 3)
    assert not torch.allclose(g(layout, z)[0], g(other, z)[0], atol=1e-4)
    assert g(corrupt(images(2), mixed(2)), z)[-1].shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="restores mix, layout, not decompression"):
        g(compress(images(2), torch.tensor([10.0, 20.0])), z)


def test_fills_and_colors_made_in_parts_are_the_same(monkeypatch):
    torch.manual_seed(0)
    finish = {"painter": (8, 8, 8), "colorist": (8, 8, 8), "painter_regions": 2, "schemes": 4}
    g = Generator(replace(WIDE, **finish)).eval()
    n, many = 5, 2
    action = Action(torch.ones(n, 2, 2, dtype=torch.bool), torch.zeros(n, dtype=torch.long), torch.ones(n).bool())
    action.mask[:, 0] = False
    action.decolorize[1] = False
    degraded, seen = corrupt(images(n), action), []

    def restored(at_once):
        monkeypatch.setitem(parts.BYTES_AT_ONCE, "cpu", at_once)
        with torch.no_grad():
            return g(degraded, g.codes(n * many, torch.Generator().manual_seed(1)))[-1]

    look = Painter.see
    monkeypatch.setattr(Painter, "see", lambda self, x, hidden: seen.append(len(x)) or look(self, x, hidden))
    whole = restored(2**22)
    assert len(seen) == 1
    assert torch.allclose(restored(2 * 4 * 32 * 16**2), whole, atol=1e-5)  # two of the painter's maps
    assert len(seen) == 1 + 5
    assert torch.allclose(restored(1), whole, atol=1e-5)


def test_half_precision_stays_near_and_images_stay_in_float32(any_generator):
    g, degraded = any_generator, corrupt(images(3), mixed(3))
    z = codes(g, 3, 0)
    exact = g(degraded, z)[-1]
    g.precision = torch.bfloat16
    near = g(degraded, z)[-1]
    assert near.dtype == torch.float32
    assert 0 < (near - exact).abs().max() < 0.05
    assert degraded.residual(near).max() <= 1e-6  # what was kept is as exact


def test_all_pixels_of_a_patch_begin_alike():
    for level in Generator(WIDE).levels:
        weight = level.head.weight.unflatten(0, (3, 4))
        assert torch.equal(weight, weight[:, :1].expand_as(weight))
        assert not torch.equal(weight[0], weight[1])


def test_holes_are_filled_from_what_is_visible_around_them():
    x = torch.zeros(2, 3, 16, 16)
    x[0, :, :8] = 0.2
    x[0, :, 8:] = 0.8
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 2:, 2:] = True  # one cell above, a quarter below
    mask[1] = True  # nothing is visible
    degraded = corrupt(x, Action(mask, torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.bool)))
    image = filled_at(degraded, 4)
    expected = torch.tensor([0.2, 0.2, 0.8, 0.8]).view(4, 1).repeat(1, 4)
    expected[2:, 2:] = (8 * 0.2 - 0.2 + 4 * 0.8) / 11  # the mean of all that is visible: its quarter shows nothing
    assert torch.allclose(image[0], expected.expand(3, -1, -1), atol=1e-6)
    assert (image[1] == 0.5).all()
    black = Generator(replace(WIDE, fill=False)).start(degraded).image
    filled = Generator(replace(WIDE, fill=True)).start(degraded).image
    assert (black[0, :, 5, 5] == 0).all()
    assert (filled[0, :, 5, 5] > 0.2).all()


def test_the_first_module_may_have_an_odd_number_of_patches():
    """96 pixels are halved to 6, which are 3 patches of 2."""
    torch.manual_seed(0)
    g = Generator(replace(WIDE, resolutions=(6, 12, 24), widths=(24, 16, 8), fill=True, smooth=True))
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, 0] = True
    degraded = corrupt(x, Action(mask, torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.bool)))
    images = g(degraded, g.codes(2, torch.Generator().manual_seed(0)))
    assert [image.shape[-1] for image in images] == [6, 12, 24]
    assert torch.equal(images[-1][:, :, 6:], x[:, :, 6:])
    assert images[-1][:, :, :6].isfinite().all()


@pytest.mark.parametrize("first", [2, 5])
def test_fewer_than_two_patches_or_parts_of_one_are_refused(first):
    with pytest.raises(ValueError, match="must begin with a multiple of 2, at least 4"):
        replace(WIDE, resolutions=(first, 2 * first))


@pytest.fixture
def compiler(monkeypatch):
    """torch.compile as far as it decides whether to compile once more; what it then makes runs as it was written."""
    compile = torch.compile

    def only_refinement(function):
        return compile(function, backend="eager") if function.__name__ == "_refine" else function

    monkeypatch.setattr(torch, "compile", only_refinement)
    for owner, name in ((CascadeModule, "_refine"), (Block, "forward")):
        # Without the checks of shapes, which run only in tests and cannot be compiled.
        monkeypatch.setattr(owner, name, inspect.unwrap(getattr(owner, name)))
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at it of every tensor
def test_every_module_brings_a_limit_of_compiled_versions_of_its_own(compiler):
    """Three modules with and without gradient are six versions of one function: more than one module may have here."""
    torch.manual_seed(0)
    g = Generator(GeneratorConfig(resolutions=(4, 8, 16), widths=(24, 16, 8), blocks=1, global_code=4))
    degraded, drawn = corrupt(images(2), none_deleted(2)), codes(g, 2, 3)
    expected = g(degraded, drawn)[-1]
    g.prepare(torch.float32, compile=True)
    with torch.no_grad():
        g(degraded, codes(g, 4, 3))
    assert torch.allclose(g(degraded, drawn)[-1], expected, rtol=0, atol=1e-5)
