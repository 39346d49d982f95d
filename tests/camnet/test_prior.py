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
from env.rows import Rows
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


def test_styles_are_drawn_in_proportion_to_the_exponential_of_their_scores():
    n, m, g = 20_000, 3, 2
    share = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])  # in the two rows of regions
    scores = share.log().T[None, :, :, None].expand(n, m, g, g) + 5.0
    styles = torch.arange(m, dtype=torch.float).view(1, m, 1, 1, 1).expand(n, m, 2, g, g)
    torch.manual_seed(0)
    waiting = torch.empty(n, m, g, g).exponential_()
    drawn = Candidates(styles, torch.randn(n, 1, 4, 4), -waiting.log()).drawn(scores)
    assert drawn.style.shape == (n, 2, g, g)
    assert torch.equal(drawn.style[:, 0], drawn.style[:, 1])
    for row in range(g):
        for column in range(g):
            found = drawn.style[:, 0, row, column].long().bincount(minlength=m) / n
            assert torch.allclose(found, share[row], atol=0.015)
    both = (drawn.style[:, 0, 0, 0] == 0) & (drawn.style[:, 0, 0, 1] == 0)
    assert both.float().mean() == pytest.approx(0.49, abs=0.015)  # regions are drawn independently


def test_an_untaught_prior_leaves_the_standard_normal(generator):
    codes, given = generator.codes(3000, seeded(3)), degraded(3000)
    assert [type(code) for code in codes] == [Candidates, Candidates, Code]
    assert [code.styles.shape[1] for code in codes[:2]] == [6, 3]
    for code in codes[:2]:  # Gumbel, or the chances would not be those of the scores
        assert code.luck.mean() == pytest.approx(0.5772, abs=0.03)
        assert code.luck.std() == pytest.approx(math.pi / 6**0.5, abs=0.03)
    with torch.no_grad():
        entered = generator.enter(0, generator.conditions(given)[0], generator.start(given))
        style = generator.preferred(0, entered, codes[0]).style
    assert style.mean().abs() < 0.03
    assert style.std() == pytest.approx(1, abs=0.03)
    assert not torch.equal(style, codes[0].styles[:, 0])


@pytest.mark.parametrize("temperature", [1.0, 0.4])
@pytest.mark.parametrize("level", [0, 1])
def test_of_candidates_the_one_is_restored_that_scores_and_luck_choose(generator, level, temperature):
    generator.config = replace(generator.config, prior_temperature=temperature)
    for parameter in generator.priors[level].parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # so that scores depend on the image, too
    given, codes = degraded(4), generator.codes(8, seeded(3))
    codes[1 - level] = generator.draw(8, 1 - level, seeded(4))
    with torch.no_grad():
        result = generator(given, codes)
        conditions, stage = generator.conditions(given), generator.start(given)
        settled = []
        for row in range(8):
            one, alone = slice(row // 2, row // 2 + 1), slice(row, row + 1)
            before = stage.select(one)
            if level:
                before = generator.step(0, conditions[0][one], codes[0].select(alone), before)
            entered = generator.enter(level, conditions[level][one], before)
            mine = codes[level].select(alone)
            total = generator.priors[level](entered.features, mine.styles) / temperature + mine.luck
            style = torch.zeros_like(mine.styles[:, 0])
            for a in range(style.shape[-2]):
                for b in range(style.shape[-1]):
                    style[0, :, a, b] = mine.styles[0, total[0, :, a, b].argmax(), :, a, b]
            settled.append(Code(style, mine.noise))
        again = generator(given, [*codes[:level], Rows.joined(settled), *codes[level + 1 :]])
    for one, other in zip(result, again, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert any(not torch.equal(code.style[0], codes[level].styles[row, 0]) for row, code in enumerate(settled))


def test_a_search_teaches_what_it_chose(generator):
    given, x = degraded(5), images(5)
    distance, targets, m = Distance(x, 1.0), pyramid(x, SMALL.resolutions), (4, 3, 2)
    found = search(generator, distance, given, targets, m, seeded(7))
    random = seeded(7)
    drawn = [generator.draw(5 * count, level, random) for level, count in enumerate(m)]
    assert len(found.lessons) == 2
    first, second = found.lessons
    assert torch.equal(first.styles.flatten(0, 1), drawn[0].style)
    assert torch.equal(second.styles.flatten(0, 1), drawn[1].style)
    assert second.choice.shape == (5, 2, 2)
    chosen = drawn[0].select(first.choice.flatten() + 4 * torch.arange(5))
    assert torch.equal(chosen.style, found.codes[0].style)
    with torch.no_grad():
        entered = generator.enter(0, generator.conditions(given)[0], generator.start(given))
    assert torch.allclose(first.seen, entered.features, atol=1e-6)
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
def test_a_prior_learns_which_styles_are_taken_and_no_more(regions):
    """Taken is the style most like what is seen there; where nothing is seen, all that can be known is that."""
    torch.manual_seed(0)
    prior = Prior(5, 4)
    descent = Descent(prior, 3e-3)

    def lesson(n, seed, is_seen):
        wanted = torch.randn(n, 4, regions, regions, generator=seeded(seed))
        styles = torch.randn(n, 3, 4, regions, regions, generator=seeded(seed + 1))
        choice = (styles * wanted[:, None]).sum(dim=2).argmax(dim=1)
        seen = torch.zeros(n, 5, 4, 4)
        if is_seen:
            seen[:, :4] = wanted.repeat_interleave(4 // regions, 2).repeat_interleave(4 // regions, 3)
        return Lesson(seen, styles, choice)

    for step in range(300):
        descent.step(prior.loss(lesson(128, 10 * step, is_seen=step % 4 > 0)).mean())
    with torch.no_grad():
        told = prior.loss(lesson(500, 9_000, is_seen=True)).mean()
        untold = prior.loss(lesson(500, 9_000, is_seen=False)).mean()
    assert told < 0.7
    assert math.log(3) - 0.03 < untold < math.log(3) + 0.1


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
    for prior in generator.priors:
        torch.nn.init.normal_(prior.head.weight, std=2.0)
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
        ({"prior_temperature": 0.0}, "generator.prior-temperature"),
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
