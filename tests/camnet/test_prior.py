"""The learned prior: drawn in proportion to its scores, taught by the search, and no burden to the network."""

import math
from dataclasses import replace

import pytest
import torch

from camnet.code import Candidates, Code
from camnet.distance import Distance
from camnet.frozen import FrozenGenerator
from camnet.generator import Generator
from camnet.imle import pyramid, search
from camnet.prior import Lesson, Prior
from camnet.tasks import training_actions
from configs.camnet import CamnetConfig, GeneratorConfig
from env.corruption import Action, corrupt
from training.descent import Descent

SMALL = GeneratorConfig(
    resolutions=(4, 8, 16), widths=(16, 8, 8), blocks=1, global_code=4, regions=(1, 2, 2), prior=(6, 3)
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return Generator(SMALL)


def images(n, seed=1):
    return torch.nn.functional.interpolate(torch.rand(n, 3, 4, 4, generator=seeded(seed)), 16, mode="bilinear")


def degraded(n, seed=2):
    return corrupt(images(n), training_actions(n, (4,), seeded(seed)))


def test_candidates_are_drawn_in_proportion_to_the_exponential_of_their_scores():
    n, m, g = 20_000, 3, 2
    codes = Code(
        torch.arange(n * m, dtype=torch.float).view(-1, 1, 1, 1).expand(-1, 2, g, g), torch.zeros(n * m, 0, 4, 4)
    )
    candidates = Candidates.of(codes, m, seeded(0))
    assert torch.equal(candidates.codes().style, codes.style)
    share = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    scores = share.log()[:, :, None].expand(2, m, g)  # of the two rows of regions
    drawn = candidates.drawn(scores.permute(1, 0, 2).repeat(n, 1, 1) + 5.0)
    assert drawn.style.shape == (n, 2, g, g)
    taken = drawn.style[:, 0].long() - m * torch.arange(n)[:, None, None]
    assert taken.min() == 0
    for row in range(g):
        for column in range(g):
            found = taken[:, row, column].bincount(minlength=m) / n
            assert torch.allclose(found, share[row], atol=0.015)
    both = (taken[:, 0, 0] == 0) & (taken[:, 0, 1] == 0)
    assert both.float().mean() == pytest.approx(0.49, abs=0.015)  # regions are drawn independently


def test_an_untaught_prior_leaves_the_standard_normal(generator):
    codes = generator.codes(4000, seeded(3))
    assert [type(code) for code in codes] == [Candidates, Candidates, Code]
    assert [code.style.shape[1] for code in codes[:2]] == [6, 3]
    for code in codes[:2]:
        drawn = code.drawn(torch.zeros_like(code.luck).flatten(0, 1))
        assert drawn.style.mean().abs() < 0.02
        assert drawn.style.std() == pytest.approx(1, abs=0.02)


def test_of_candidates_the_one_is_restored_that_the_scores_choose(generator):
    torch.nn.init.normal_(generator.priors[0].head.weight, std=5.0)
    given, codes = degraded(4), generator.codes(8, seeded(3))
    with torch.no_grad():
        result = generator(given, codes)
        conditions, stage = generator.conditions(given), generator.start(given)
        settled = []
        for image in range(4):
            one, at = slice(image, image + 1), slice(2 * image, 2 * image + 2)
            entered = generator.enter(0, conditions[0][one], stage.select(one))
            candidates = codes[0].select(at)
            scores = generator.priors[0](generator.refine(0, entered, candidates.codes()).features)
            best = (scores.view(2, 6) + candidates.luck.view(2, 6)).argmax(dim=1)
            settled.append(candidates.codes().select(best + torch.tensor([0, 6])))
        settled = Code(torch.cat([code.style for code in settled]), torch.cat([code.noise for code in settled]))
        again = generator(given, [settled, *codes[1:]])
    for one, other in zip(result, again, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    first = codes[0].codes().select(torch.arange(8) * 6)
    assert (settled.style != first.style).any()


def test_regions_are_chosen_one_by_one(generator):
    given, codes = degraded(3), generator.codes(3, seeded(3))
    entered = generator.enter(
        1,
        generator.conditions(given)[1],
        generator.step(0, generator.conditions(given)[0], generator.draw(3, 0, seeded(4)), generator.start(given)),
    )
    code = generator.preferred(1, entered, codes[1])
    of_luck = codes[1].luck.argmax(dim=1)  # an untaught prior has equal scores
    assert len(of_luck.unique()) > 1
    assert torch.equal(code.style, codes[1].codes().patchwork(of_luck).style)


def test_a_search_teaches_what_it_chose(generator):
    given, x = degraded(5), images(5)
    distance, targets, m = Distance(x, 1.0), pyramid(x, SMALL.resolutions), (4, 3, 2)
    found = search(generator, distance, given, targets, m, seeded(7))
    random = seeded(7)
    drawn = [generator.draw(5 * count, level, random) for level, count in enumerate(m)]
    assert len(found.lessons) == 2
    first, second = found.lessons
    assert first.features.shape == (5, 4, 16, 4, 4)
    assert second.features.shape == (5, 3, 8, 8, 8)
    assert second.choice.shape == (5, 2, 2)
    chosen = drawn[0].select(first.choice.flatten() + 4 * torch.arange(5))
    assert torch.equal(chosen.style, found.codes[0].style)
    with torch.no_grad():
        entered = generator.enter(0, generator.conditions(given)[0], generator.start(given))
        made = generator.refine(0, entered, drawn[0]).features
    assert torch.allclose(first.features.flatten(0, 1), made, atol=1e-6)
    patched = (drawn[1].patchwork(second.choice).style == found.codes[1].style).flatten(1).all(dim=1)
    whole = (found.codes[1].style[:, None] == drawn[1].style.unflatten(0, (5, 3))).flatten(2).all(dim=2).any(dim=1)
    assert (patched | whole).all()
    assert patched.any()


def test_a_module_with_one_candidate_teaches_nothing(generator):
    x = images(2)
    found = search(generator, Distance(x, 1.0), degraded(2), pyramid(x, SMALL.resolutions), (1, 3, 2), seeded(7))
    assert len(found.lessons) == 1


def test_what_is_learned_reaches_the_priors_alone(generator):
    x = images(4)
    found = search(generator, Distance(x, 1.0), degraded(4), pyramid(x, SMALL.resolutions), (4, 3, 2), seeded(7))
    loss = sum(prior.loss(lesson).mean() for prior, lesson in zip(generator.priors, found.lessons, strict=True))
    assert loss.item() == pytest.approx(math.log(4) + math.log(3), abs=1e-5)  # at first all scores are equal
    loss.backward()
    learned = {name.split(".")[0] for name, p in generator.named_parameters() if p.grad is not None}
    assert learned == {"priors"}


@pytest.mark.parametrize("regions", [1, 2])
def test_a_prior_learns_which_candidates_are_taken_and_no_more(regions):
    """Taken is always the brightest of three; of what tells nothing, the prior can at best know that."""
    torch.manual_seed(0)
    prior = Prior(5, regions)
    descent = Descent(prior, 3e-3)

    def lesson(n, seed, is_told):
        features = torch.randn(n, 3, 5, 4, 4, generator=seeded(seed))
        bright = torch.randn(n, 3, regions, regions, generator=seeded(seed + 1))
        if is_told:
            features[:, :, 0] += bright.repeat_interleave(4 // regions, 2).repeat_interleave(4 // regions, 3)
        return Lesson(features, bright.argmax(dim=1))

    for step in range(150):
        descent.step(prior.loss(lesson(128, 10 * step, is_told=True)).mean())
    with torch.no_grad():
        told = prior.loss(lesson(500, 9_000, is_told=True)).mean()
        untold = prior.loss(lesson(500, 9_000, is_told=False)).mean()
    assert told < 0.6
    assert untold > math.log(3) - 0.02


def test_codes_that_no_search_takes_are_drawn_seldom():
    """The truth is always what one half of the codes restore; once that is learned, the other half is left out."""
    torch.manual_seed(0)
    generator = Generator(replace(SMALL, prior=(8,), regions=(), spatial_code=0, global_code=1, norm=False))
    hidden = Action(torch.ones(64, 4, 4, dtype=torch.bool), torch.zeros(64, dtype=torch.long), torch.zeros(64).bool())
    given = corrupt(images(64), hidden)
    distance, descent = Distance(images(64), 1.0), Descent(generator.priors, 1e-2)

    def codes(random):
        style = torch.randn(64, 1, 1, 1, generator=random).abs()
        drawn = [generator.draw(64, level, random) for level in range(3)]
        return [Code(style, drawn[0].noise), *drawn[1:]]

    def wrong(seed):
        entered = generator.enter(0, generator.conditions(given)[0], generator.start(given))
        return (generator.preferred(0, entered, generator.codes(64, seeded(seed))[0]).style[:, 0] < 0).float().mean()

    with torch.no_grad():
        assert wrong(5) == pytest.approx(0.5, abs=0.15)
        for step in range(60):
            targets = generator(given, codes(seeded(100 + step)))
            found = search(generator, distance, given, targets, (8, 1, 1), seeded(step))
            with torch.enable_grad():
                descent.step(generator.priors[0].loss(found.lessons[0]).mean())
        assert wrong(5) < 0.15


def test_a_frozen_generator_with_a_prior_keeps_its_promises(generator):
    torch.nn.init.normal_(generator.priors[0].head.weight, std=2.0)
    operator = FrozenGenerator(generator, {})
    given, codes = degraded(6), operator.codes(12, seeded(1))
    together = operator.views(given, 2, codes=codes)
    assert torch.equal(together, operator.views(given, 2, seeded(1)))
    assert given.residual(together[:, 0]).max() <= 1e-6
    for i in range(6):
        rows = torch.tensor([i, 6 + i])
        alone = operator.views(given.select(torch.tensor([i])), 2, codes=[code.select(rows) for code in codes])
        assert (alone[0] - together[i]).abs().max() <= 1e-5
    assert (together[:, 0] - together[:, 1]).abs().max() > 0.01


def test_a_proposed_style_is_taken_without_a_choice(generator):
    operator = FrozenGenerator(generator, {})
    assert operator.proposable == 4
    codes, proposed = operator.codes(6, seeded(1)), torch.randn(6, 4, generator=seeded(2))
    replaced = operator.with_proposal(codes, proposed)
    assert isinstance(replaced[0], Code)
    assert torch.equal(replaced[0].style[:, :, 0, 0], proposed)
    assert replaced[0].noise.shape == (6, 1, 4, 4)
    assert replaced[1] is codes[1]
    views = operator.views(degraded(3), 2, codes=codes, proposed=proposed.view(2, 3, 4).transpose(0, 1))
    assert views.shape == (3, 2, 3, 16, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": (4, 4, 4, 4)}, "at most one count per module: 3, got 4"),
        ({"prior": (1,)}, "generator.prior"),
    ],
)
def test_priors_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": (4, 1, 2)}, "need --candidates 2 or"),
        ({"only_prior": True}, "--only-prior True needs weights, --start"),
        ({"only_prior": True, "start": "digits", "generator": replace(SMALL, prior=())}, "a prior to learn"),
    ],
)
def test_trainings_that_would_learn_no_prior_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CamnetConfig(**{"generator": SMALL, "candidates": (4, 2, 2)} | settings)
