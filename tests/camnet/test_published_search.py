"""The published procedure of the search, written from its description, and ours find the same codes."""

import pytest
import torch

from benchmarks import published_search
from camnet import imle
from camnet.distance import Distance
from camnet.generator import Generator
from configs.camnet import GeneratorConfig
from env.corruption import corrupt
from env.distribution import fixed_rates

SETTINGS = {"resolutions": (4, 8, 16), "widths": (16, 8, 8), "blocks": 1, "global_code": 4}
PLAIN = GeneratorConfig(**SETTINGS)
FOLDED = GeneratorConfig(**SETTINGS, patch=2, norm=False, context=True)


def problem(config, n=3):
    torch.manual_seed(0)
    generator = Generator(config)
    x = torch.nn.functional.interpolate(torch.rand(n, 3, 4, 4), 16, mode="bilinear")
    action = fixed_rates(n, 4, 0.3, 0.5, (0.2, 0.2), x.device).sample(torch.Generator().manual_seed(1))
    return generator, Distance(x, 1.0), corrupt(x, action), imle.pyramid(x, config.resolutions)


def drawn(generator, n, counts):
    random = torch.Generator().manual_seed(7)
    return [generator.draw(n * m, level, random) for level, m in enumerate(counts)]


@pytest.mark.parametrize("config", [PLAIN, FOLDED], ids=["plain", "folded"])
@pytest.mark.parametrize("counts", [(25, 25, 25), (21, 1, 4)])  # one more than a minibatch, and one alone
def test_both_searches_find_the_same_codes(config, counts):
    generator, distance, degraded, targets = problem(config)
    candidates = drawn(generator, 3, counts)
    ours = imle.search(generator, distance, degraded, targets, counts, torch.Generator().manual_seed(7)).codes
    found = published_search.search(generator, distance, degraded, targets, candidates)
    for a, b, codes, m in zip(ours, found, candidates, counts, strict=True):
        assert torch.equal(a.style, b.style)
        assert torch.equal(a.noise, b.noise)
        firsts = codes.style[torch.arange(3) * m]
        assert m == 1 or not torch.equal(b.style, firsts)  # else the first candidate would do


def test_nothing_is_kept_between_minibatches():
    generator, distance, degraded, targets = problem(PLAIN, n=2)
    calls = []
    step = generator.step

    def counted(level, condition, code, before):
        calls.append((level, len(code)))
        return step(level, condition, code, before)

    generator.step = counted
    published_search.search(generator, distance, degraded, targets, drawn(generator, 2, (30, 30, 30)))
    one_image = [(level, b) for k in (1, 2, 3) for b in (20, 10) for level in range(k)]
    assert calls == one_image * 2  # images one after another


def test_the_last_image_of_a_run_is_that_of_the_generator():
    generator, _, degraded, _ = problem(FOLDED)
    one, codes = degraded.select(torch.tensor([1])), drawn(generator, 1, (1, 1, 1))
    with torch.no_grad():
        expected = generator(one, codes)
        for k in (1, 2, 3):
            image = published_search.up_to(generator, generator.conditions(one), one, codes[:k])
            assert torch.allclose(image, expected[k - 1], atol=1e-5)
