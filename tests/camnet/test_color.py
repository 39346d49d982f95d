"""Fine modules that decide on lightness alone: no code of theirs chooses a color."""

from dataclasses import replace

import pytest
import torch

from camnet.generator import Generator
from camnet.start import take_over
from configs.camnet import GeneratorConfig
from configs.errors import UsageError
from env.corruption import Action, corrupt

CONFIG = GeneratorConfig(
    resolutions=(4, 8, 16), widths=(24, 16, 8), blocks=1, global_code=4, patch=2, norm=False, lightness_only=2
)


@pytest.fixture
def generator():
    """A network whose colors follow by random weights (drawn anew they would not: their heads begin at zero)."""
    torch.manual_seed(0)
    g = Generator(CONFIG)
    for level in (1, 2):
        torch.nn.init.normal_(g.levels[level].color.head.weight, std=0.05)
    return g


def degraded(n):
    """Everything is hidden, so nothing is put back."""
    x = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return corrupt(
        x, Action(torch.ones(n, 4, 4, dtype=torch.bool), torch.zeros(n, dtype=torch.long), torch.zeros(n) > 0)
    )


def stage(generator, level, seed):
    """A stage of a module with a given code, on what the modules before it made of the same codes."""
    conditions, stage = generator.conditions(degraded(3)), generator.start(degraded(3))
    for k in range(level + 1):
        code = generator.draw(3, k, torch.Generator().manual_seed(seed if k == level else 0))
        stage = generator.step(k, conditions[k], code, stage)
    return stage


def parts(image):
    lightness = image.mean(dim=1, keepdim=True)
    return lightness, image - lightness


@pytest.mark.parametrize("level", [1, 2])
def test_two_codes_of_a_fine_module_differ_in_lightness_and_in_what_follows_from_it(generator, level):
    (light, color), (other_light, other_color) = (parts(stage(generator, level, seed).image) for seed in (5, 6))
    assert (light - other_light).abs().mean() > 1e-3
    assert (color - other_color).abs().mean() > 0
    generator.levels[level].color.lightness.weight.data.zero_()
    (light, color), (other_light, other_color) = (parts(stage(generator, level, seed).image) for seed in (5, 6))
    assert (light - other_light).abs().mean() > 1e-3
    assert torch.allclose(color, other_color, rtol=0, atol=1e-6)


def test_the_codes_of_coarse_modules_choose_colors(generator):
    colors = [parts(stage(generator, 0, seed).image)[1] for seed in (5, 6)]
    assert (colors[0] - colors[1]).abs().mean() > 1e-3


@pytest.mark.parametrize("level", [1, 2])
def test_colors_ask_nothing_of_lightness(generator, level):
    """Or lightness would be made to hint at colors where it is put back anyway, as in colorization."""
    module = generator.levels[level]
    made = parts(stage(generator, level, 5).image)
    made[1].square().sum().backward()
    of_lightness = [p.grad.abs().max() for p in [*module.blocks.parameters(), *module.head.parameters()]]
    assert max(of_lightness) < 1e-5 * min(p.grad.abs().max() for p in module.color.parameters())


def test_colors_leave_lightness_as_it_is(generator):
    module, lightness = generator.levels[2], torch.rand(3, 1, 16, 16)
    condition, image = torch.randn(3, module.known - 3, 8, 8), torch.randn(3, 3, 8, 8)
    correction = module.color(module.color.enter(condition, image, torch.contiguous_format), lightness)
    assert correction.shape == (3, 3, 16, 16)
    assert correction.abs().mean() > 1e-3
    assert correction.sum(dim=1).abs().max() < 1e-6


def test_at_first_colors_are_those_of_the_module_before():
    torch.manual_seed(0)
    fresh = Generator(CONFIG)
    enlarged = torch.nn.functional.interpolate(stage(fresh, 1, 0).image, scale_factor=2, mode="nearest")
    assert torch.allclose(parts(stage(fresh, 2, 5).image)[1], parts(enlarged)[1], rtol=0, atol=1e-6)


def test_a_head_of_colors_becomes_one_of_their_mean(generator):
    torch.manual_seed(1)
    before = Generator(replace(CONFIG, lightness_only=0))
    take_over(before.state_dict(), generator, "before")
    for level in (1, 2):  # rows: red, green, blue, four pixels of a patch each
        weight = before.levels[level].head.weight
        assert torch.allclose(generator.levels[level].head.weight, (weight[:4] + weight[4:8] + weight[8:]) / 3)
    assert torch.equal(generator.levels[0].head.weight, before.levels[0].head.weight)


def test_other_tensors_of_three_times_the_width_are_not_taken(generator):
    before = Generator(replace(CONFIG, widths=(72, 48, 24), lightness_only=0))
    with pytest.raises(UsageError, match=r"--start before: only 15 of this generator's \d+ tensors are among"):
        take_over(before.state_dict(), generator, "before")


@pytest.mark.parametrize("count", [-1, 3])
def test_some_module_has_to_choose_colors(count):
    with pytest.raises(ValueError, match=r"--generator\.lightness-only"):
        replace(CONFIG, lightness_only=count)
