"""The batched, cached search finds what a slow loop finds; training by it lowers its loss."""

from dataclasses import replace

import pytest
import torch

from camnet.code import Code
from camnet.distance import Distance, RandomFeatures, by_region, entering, folded
from camnet.generator import Generator
from camnet.imle import imle_loss, pyramid, search
from camnet.tasks import training_actions
from configs.camnet import GeneratorConfig
from env.corruption import corrupt
from training.descent import Descent

CONFIG = GeneratorConfig(resolutions=(4, 8, 16), widths=(16, 8, 8), blocks=1, global_code=4, spatial_code=1)


def images(n, seed=1):
    """Smooth images in two colors: something can be learned of them."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.rand(n, 2, 3, 1, 1, generator=generator)
    shape = torch.nn.functional.interpolate(torch.rand(n, 1, 4, 4, generator=generator), 16, mode="bilinear")
    return colors[:, 0] * shape + colors[:, 1] * (1 - shape)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return Generator(CONFIG)


def problem(n, seed=2):
    x = images(n)
    corrupted = corrupt(x, training_actions(n, (4,), torch.Generator().manual_seed(seed)))
    return Distance(x, 1.0), corrupted, pyramid(x, CONFIG.resolutions)


def draws(generator, n, candidates, seed):
    """What the search draws: m codes an image, module by module."""
    random = torch.Generator().manual_seed(seed)
    return [generator.draw(n * m, level, random) for level, m in enumerate(candidates)]


@pytest.mark.parametrize("candidates", [(5, 4, 3), (4, 1, 3), (1, 6, 1)])
def test_the_search_finds_what_a_slow_loop_finds(generator, candidates):
    n, seed = 4, 11
    distance, corrupted, targets = problem(n)
    found = search(generator, distance, corrupted, targets, candidates, torch.Generator().manual_seed(seed)).codes
    drawn = draws(generator, n, candidates, seed)
    chosen = set()
    for i in range(n):
        row = torch.tensor([i])
        winners = []
        for level, m in enumerate(candidates):
            tried = []
            for j in range(m):
                code = drawn[level].select(torch.tensor([i * m + j]))
                rest = [drawn[k].select(torch.tensor([0])) for k in range(level + 1, len(candidates))]
                with torch.no_grad():
                    image = generator(corrupted.select(row), [*winners, code, *rest])[level]
                tried.append(distance(image, targets[level][row]).item())
            best = min(range(m), key=tried.__getitem__)
            chosen.add(best)
            winners.append(drawn[level].select(torch.tensor([i * m + best])))
            assert torch.equal(found[level].style[i], winners[-1].style[0]), (i, level)
            assert torch.equal(found[level].noise[i], winners[-1].noise[0]), (i, level)
    assert len(chosen) > 1  # else the first candidate would do


def test_by_region_it_finds_what_a_slow_loop_finds():
    n, m, seed, regions = 6, 4, 11, 4
    torch.manual_seed(0)
    generator = Generator(replace(CONFIG, regions=(1, 1, regions)))
    distance, corrupted, targets = problem(n)
    found = search(generator, distance, corrupted, targets, (1, 1, m), torch.Generator().manual_seed(seed)).codes
    drawn = draws(generator, n, (1, 1, m), seed)
    taken = 0
    for i in range(n):
        row = torch.tensor([i])
        fixed = [code.select(row) for code in drawn[:2]]

        def restored(code, row=row, fixed=fixed):
            with torch.no_grad():
                return generator(corrupted.select(row), [*fixed, code])[-1]

        tried = [drawn[2].select(torch.tensor([i * m + j])) for j in range(m)]
        images = [restored(code) for code in tried]
        whole = [distance(image, targets[2][row]).item() for image in images]
        best = min(range(m), key=whole.__getitem__)
        style, noise = tried[best].style.clone(), tried[best].noise.clone()
        for a in range(regions):
            for b in range(regions):
                here = [region_of(distance, image, targets[2][row], a, b, regions) for image in images]
                won = tried[min(range(m), key=here.__getitem__)]
                style[..., a, b] = won.style[..., a, b]
                noise[..., 4 * a : 4 * a + 4, 4 * b : 4 * b + 4] = won.noise[..., 4 * a : 4 * a + 4, 4 * b : 4 * b + 4]
        patched = distance(restored(Code(style, noise)), targets[2][row]).item() < whole[best]
        taken += patched
        assert torch.equal(found[2].style[i], style[0] if patched else tried[best].style[0]), i
        assert torch.equal(found[2].noise[i], noise[0] if patched else tried[best].noise[0]), i
    assert taken > n // 2  # else the whole candidates would do


def test_a_patchwork_is_left_out_where_it_is_nearer_than_allowed():
    n, m = 16, 4
    torch.manual_seed(0)
    generator = Generator(replace(CONFIG, regions=(1, 1, 4)))
    distance, corrupted, targets = problem(n)
    drawn = draws(generator, n, (1, 1, m), 4)

    def distances(code):
        with torch.no_grad():
            return distance(generator(corrupted, [*drawn[:2], code])[-1], targets[-1])

    def found(reject):
        random = torch.Generator().manual_seed(4)
        return distances(search(generator, distance, corrupted, targets, (1, 1, m), random, reject).codes[2])

    whole = torch.stack([distances(drawn[2].select(torch.arange(n) * m + j)) for j in range(m)], dim=1)
    patched, middle = found(0.0), whole.median(dim=1).values
    reject = (patched / middle).nanmedian().item() + 1e-4  # where nothing was deleted, both are 0
    assert reject < 1
    assert (patched < whole.amin(dim=1)).sum() > n // 2  # else there is nothing to leave out
    bound = reject * middle
    every = (whole >= bound[:, None]).all(dim=1)  # where some are left out, patchworks are made of the others
    expected = torch.where(patched < bound, whole.amin(dim=1), patched)
    assert torch.allclose(found(reject)[every], expected[every], atol=1e-5)
    assert (expected - patched)[every].max() > 1e-3
    assert (found(reject) >= bound).all()


def test_no_region_is_taken_from_what_is_left_out():
    n, m = 16, 4
    torch.manual_seed(0)
    generator = Generator(replace(CONFIG, regions=(1, 1, 4), prior=(2, 2, 2)))
    distance, corrupted, targets = problem(n)
    drawn = draws(generator, n, (1, 1, m), 4)
    candidates = [drawn[2].select(torch.arange(n) * m + j) for j in range(m)]
    with torch.no_grad():
        images = [generator(corrupted, [*drawn[:2], code])[-1] for code in candidates]
    whole = torch.stack([distance(image, targets[-1]) for image in images], dim=1)
    is_rejected = whole < whole.median(dim=1, keepdim=True).values

    def taken_of_these(reject):
        random = torch.Generator().manual_seed(4)
        found = search(generator, distance, corrupted, targets, (1, 1, m), random, reject)
        return is_rejected.gather(1, found.lessons[-1].choice.flatten(1))

    assert taken_of_these(0.0).float().mean() > 0.3
    assert not taken_of_these(1.0).any()


def test_what_is_left_out_does_not_depend_on_the_units_of_the_distance(generator):
    class Scaled(Distance):
        def terms(self, a, b):
            return [8 * term for term in super().terms(a, b)]

    distance, corrupted, targets = problem(8)
    winners = {
        (name, reject): search(
            generator, measure, corrupted, targets, (6, 4, 4), torch.Generator().manual_seed(4), reject
        )
        .codes[0]
        .style
        for name, measure in (("plain", distance), ("scaled", Scaled(images(8), 1.0)))
        for reject in (0.0, 0.99)
    }
    assert torch.equal(winners["plain", 0.99], winners["scaled", 0.99])
    changed = (winners["plain", 0.99] != winners["plain", 0.0]).flatten(1).any(dim=1)
    assert changed.float().mean() > 0.5


def region_of(distance, a, b, row, column, regions):
    """The distance of two images in one region: the mean over its places, term by term."""
    total = 0.0
    for term in distance.terms(distance.features(a), distance.features(b)):
        side = term.shape[-1] // regions
        total += term[0, side * row : side * (row + 1), side * column : side * (column + 1)].mean().item()
    return total


def test_the_regions_add_up_to_the_whole():
    x = images(6)
    distance = Distance(x, 2.0, grid_weight=3.0)
    terms = distance.terms(distance.features(x), distance.features(x.flip(0)))
    assert torch.allclose(by_region(terms, 2).mean(dim=(1, 2)), distance(x, x.flip(0)), atol=1e-5)
    assert by_region(terms, 8).shape == (6, 8, 8)  # more regions than the coarsest term has places
    half = x.clone()
    half[..., :8] = 0.5
    apart = by_region(distance.terms(distance.features(x), distance.features(half)), 4)
    assert apart[..., 3].mean() < 0.05 * apart[..., 0].mean()  # what differs on the left is not seen at the right


def test_a_search_by_region_gains_more_than_one_of_wholes():
    n, m = 32, 8
    distance, corrupted, targets = problem(n)
    torch.manual_seed(0)
    generator = Generator(replace(CONFIG, regions=(1, 1, 4)))
    drawn = draws(generator, n, (1, 1, m), 4)
    found = search(generator, distance, corrupted, targets, (1, 1, m), torch.Generator().manual_seed(4)).codes

    def distances(code):
        with torch.no_grad():
            return distance(generator(corrupted, [*drawn[:2], code])[-1], targets[-1])

    tried = torch.stack([distances(drawn[2].select(torch.arange(n) * m + j)) for j in range(m)], dim=1)
    by_chance, whole, by_regions = tried.mean(), tried.amin(dim=1).mean(), distances(found[2]).mean()
    assert by_chance - by_regions > 1.5 * (by_chance - whole) > 0


def test_one_candidate_each_returns_the_codes_drawn(generator):
    distance, corrupted, targets = problem(5)
    found = search(generator, distance, corrupted, targets, (1, 1, 1), torch.Generator().manual_seed(4)).codes
    for code, drawn in zip(found, draws(generator, 5, (1, 1, 1), 4), strict=True):
        assert torch.equal(code.style, drawn.style)
        assert torch.equal(code.noise, drawn.noise)


def test_searching_changes_neither_weights_nor_gradients(generator):
    distance, corrupted, targets = problem(3)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    search(generator, distance, corrupted, targets, (3, 2, 2), torch.Generator().manual_seed(4))
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert all(p.grad is None for p in generator.parameters())


def test_a_search_is_nearer_than_chance(generator):
    distance, corrupted, targets = problem(16)

    def loss(candidates):
        found = search(generator, distance, corrupted, targets, candidates, torch.Generator().manual_seed(4)).codes
        with torch.no_grad():
            return imle_loss(generator, distance, corrupted, targets, found)

    assert loss((8, 8, 8)).mean() < 0.98 * loss((1, 1, 1)).mean()


def test_the_loss_sums_the_modules_distances(generator):
    distance, corrupted, targets = problem(3)
    z = generator.codes(3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        total = imle_loss(generator, distance, corrupted, targets, z)
        parts = [distance(a, b) for a, b in zip(generator(corrupted, z), targets, strict=True)]
        of_two = imle_loss(generator, distance, corrupted, targets[:2], z[:2])
    assert total.shape == (3,)
    assert torch.allclose(total, sum(parts))
    assert torch.allclose(of_two, sum(parts[:2]))
    assert min(part.mean() for part in parts) > 0


def test_training_lowers_the_loss(generator):
    distance, corrupted, targets = problem(32)
    descent = Descent(generator, 3e-3, clip=1.0)

    def level():
        codes = search(generator, distance, corrupted, targets, (4, 2, 2), torch.Generator().manual_seed(99)).codes
        with torch.no_grad():
            return imle_loss(generator, distance, corrupted, targets, codes).mean().item()

    start = level()
    for step in range(30):
        codes = search(generator, distance, corrupted, targets, (4, 2, 2), torch.Generator().manual_seed(step)).codes
        descent.step(imle_loss(generator, distance, corrupted, targets, codes).mean())
    assert level() < 0.8 * start
    assert descent.skipped == 0


def test_the_distance_is_zero_at_the_truth_alone_and_symmetric():
    x = images(6)
    distance = Distance(x, 1.0)
    assert (distance(x, x) == 0).all()
    there, back = distance(x, x.flip(0)), distance(x.flip(0), x)
    assert torch.allclose(there, back, atol=1e-6)
    assert there.min() > 0.01
    assert torch.equal(distance(x, x.flip(0)), Distance(x, 1.0)(x, x.flip(0)))  # no draw of its own


def test_every_random_filter_has_mean_0_and_deviation_1(monkeypatch):
    x, seen = images(20), []
    random = Distance(x, 1.0).random
    relu = lambda h, inplace: seen.append(h.clone()) or torch.relu(h)  # noqa: E731
    monkeypatch.setattr("torch.nn.functional.relu", relu)
    random(x)
    assert len(seen) == 3
    for raw in seen:
        assert raw.mean(dim=(0, 2, 3)).abs().max() < 1e-5
        assert (raw.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-5


def test_calibrated_a_few_images_at_a_time_it_is_the_same(monkeypatch):
    x, sizes = images(20), []
    whole = Distance(x, 1.0)(x, x.flip(0))
    monkeypatch.setattr("camnet.distance.CHUNK", 7)
    filtered = RandomFeatures._filtered
    monkeypatch.setattr(
        RandomFeatures, "_filtered", lambda own, x, stage: sizes.append(len(x)) or filtered(own, x, stage)
    )
    assert torch.allclose(Distance(x, 1.0)(x, x.flip(0)), whole, rtol=1e-5)
    assert sizes == 3 * [7, 7, 6]


def test_the_grid_term_sees_what_repeats_and_nothing_else():
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::4] = 0.1
    assert torch.allclose(folded(x + stripes) - folded(x), folded(stripes).expand(3, -1, -1, -1), atol=1e-6)
    assert folded(stripes).abs().mean().item() == pytest.approx(0.1 * 2 * 0.25 * 0.75)
    assert folded(torch.full((1, 3, 32, 32), 0.7)).abs().max() < 1e-6
    moving = torch.zeros(1, 3, 32, 32)
    for tile in range(8):
        moving[..., 4 * tile + tile % 4] = 0.1  # a stripe in every tile, never twice in a row at the same place
    assert folded(moving).abs().max() < 1e-6
    plain, guarded = Distance(x, 1.0), Distance(x, 1.0, grid_weight=5.0)
    extra = guarded(x, x + stripes) - plain(x, x + stripes)
    assert torch.allclose(extra, torch.tensor(5 * 0.1 * 2 * 0.25 * 0.75).expand(3), atol=1e-5)
    assert guarded.name == "random-relu16+l1+5 grid"


def test_the_distance_sees_where_stripes_of_one_pixel_lie():
    x = images(50)
    distance = Distance(x, 0.0)
    stripes = torch.full((1, 3, 16, 16), 0.3)
    stripes[..., ::2] = 0.7
    flat, moved = torch.full_like(stripes, 0.5), stripes.roll(1, dims=3)
    right, none, wrong = (distance(stripes, other).item() for other in (stripes, flat, moved))
    assert right == 0
    assert wrong > 0.5 * none > 0.1  # compared after pooling, the wrong ones are nearly right


def test_a_stage_sees_the_mean_of_what_lies_below_it():
    h = torch.arange(9.0).view(1, 1, 3, 3)
    assert entering(h, 0) is h
    assert entering(h, 1).flatten().tolist() == [2, 3.5, 6.5, 8]  # the last row and column are not lost
    assert torch.equal(entering(h[..., :1, :1], 2), h[..., :1, :1])


def test_the_name_says_what_is_summed():
    x = images(4)
    assert Distance(x, 1.0).name == "random-relu16+l1"
    assert Distance(x, 8.0).name == "random-relu16+8 l1"
    features = lambda x: [x]  # noqa: E731
    features.name = "mine"
    assert Distance(x, 1.0, [features]).name == "random-relu16+mine+l1"


def test_training_sees_every_mix_that_a_policy_may_ask_for():
    a = training_actions(4000, (4,), torch.Generator().manual_seed(0))
    ratio = a.mask.float().mean(dim=(1, 2))
    assert 0.2 < (ratio == 0).float().mean() < 0.35
    assert (ratio > 0.9).any()
    assert a.decolorize.float().mean().item() == pytest.approx(0.5, abs=0.04)
    for index in (1, 2):
        assert (a.downsample == index).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert ((ratio == 0) & ~a.decolorize & (a.downsample == 0)).any()
    assert ((ratio > 0) & a.decolorize & (a.downsample == 2)).any()
