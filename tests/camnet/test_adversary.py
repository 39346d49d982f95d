"""The discriminator and what the generator learns from it: pairs, conditions, drawn codes, no gradient elsewhere."""

import math
from dataclasses import replace

import pytest
import torch

from camnet import adversary as adversaries
from camnet.adversary import PENALTY, Adversary
from camnet.discriminator import REACH, Discriminator, _smaller, pair_loss, roughness
from camnet.generator import Generator
from camnet.tasks import training_actions
from camnet.trainer import Trainer
from configs.camnet import CamnetConfig, GeneratorConfig
from configs.data import DataConfig
from configs.errors import UsageError
from env.corruption import Corrupted, corrupt
from env.images import load
from training.ranks import Ranks
from training.schedule import one_cycle

SMALL = GeneratorConfig(resolutions=(4, 8, 16), widths=(8, 8, 8), blocks=1, global_code=4)
CPU = torch.device("cpu")
UNDECIDED = math.log(2)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def images(n, seed=1):
    return torch.nn.functional.interpolate(torch.rand(n, 3, 4, 4, generator=seeded(seed)), 16, mode="bilinear")


def degraded(n, seed=2):
    return corrupt(images(n), training_actions(n, (4,), seeded(seed)))


def config(**settings):
    given = {"batch": 4, "group": 2, "candidates": (4, 2, 2), "generator": SMALL, "adversarial_weight": 0.5}
    return CamnetConfig(**(given | settings))


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return Generator(SMALL)


@pytest.fixture
def opponent():
    made = Adversary(config(learning_rate=2e-3), CPU, Ranks.single())
    torch.manual_seed(1)
    torch.nn.init.normal_(made.discriminator.head.weight, std=0.1)
    return made


def contest(opponent, generator, given, truth, random, share):
    """As the trainer has it: restorations of codes as they are drawn."""
    made = generator(given, generator.codes(len(truth), random))[-1]
    return opponent.contest(generator, generator.told(given), truth, made, random, share)


def copy_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("tasks", [("mix",), ("mix", "decompression", "layout")])
def test_scores_are_equal_at_first_and_one_for_each_place_of_a_coarse_grid(patch, tasks):
    setting = replace(SMALL, patch=patch, tasks=tasks)
    told = Generator(setting).told(degraded(3))
    made = Discriminator(setting)
    assert made(images(3), told).shape == (3, 16 // patch // 4, 16 // patch // 4)
    assert made(images(3), told).unique().numel() == 1


def test_scores_depend_on_the_image_and_on_what_is_known_of_it(opponent, generator):
    told, x = generator.told(degraded(2)), images(2)
    scores = opponent.discriminator(x, told)
    assert not torch.allclose(scores, opponent.discriminator(x.flip(-1), told))
    assert not torch.allclose(scores, opponent.discriminator(x, told.flip(0)))


def test_every_image_is_judged_under_its_own_condition(opponent, generator):
    told, x = generator.told(degraded(3)), images(6)
    both = opponent._scores(generator, x, told)
    assert torch.allclose(both[:3], opponent.discriminator(x[:3], told), atol=1e-6)
    assert torch.allclose(both[3:], opponent.discriminator(x[3:], told), atol=1e-6)


def test_maps_are_halved_so_that_every_pixel_counts_alike():
    h = torch.arange(8.0).repeat(1, 1, 8, 1).requires_grad_()
    half = _smaller(h)
    assert torch.allclose(half[0, 0, :, 1:], torch.tensor([2.0, 4.0, 6.0]).expand(4, 3))
    assert half[0, 0, 0, 0] == 0.25  # of 0, 0 and 1: the border is repeated
    half.sum().backward()
    inner = h.grad[0, 0, 1:-1, 1:-1]
    assert torch.allclose(inner, torch.full_like(inner, 0.25))


def test_a_pair_counts_by_the_difference_of_its_scores_patch_by_patch():
    real, fake = torch.tensor([1.0, -2.0]).view(2, 1, 1), torch.tensor([0.0, 3.0]).view(2, 1, 1)
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(5))) / 2
    assert pair_loss(real, fake).item() == pytest.approx(expected)
    assert pair_loss(real + 7, fake + 7).item() == pytest.approx(expected, rel=1e-5)
    assert pair_loss(real, real).item() == pytest.approx(UNDECIDED)


def test_roughness_is_the_mean_squared_gradient_of_the_scores():
    torch.manual_seed(0)
    slope, x = torch.randn(12, dtype=torch.float64), torch.rand(20_000, 12, dtype=torch.float64)
    scores, moved = ((y @ slope).view(-1, 1, 1) for y in (x, x + REACH * torch.randn_like(x)))
    assert roughness(scores, moved).item() == pytest.approx(slope.square().sum().item(), rel=0.03)


def test_a_contest_steps_the_discriminator_alone_and_leaves_the_generator_its_gradient(opponent, generator):
    before, judged = copy_of(opponent.discriminator), copy_of(generator)
    loss, _ = contest(opponent, generator, degraded(8), images(8), seeded(3), 1.0)
    assert same(judged, generator.state_dict())
    assert not same(before, opponent.discriminator.state_dict())
    assert all(p.requires_grad for p in opponent.discriminator.parameters())
    opponent.descent.optimizer.zero_grad()
    loss.backward()
    assert all(p.grad is None for p in opponent.discriminator.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.levels[-1].head.parameters())


def test_the_discriminator_learns_to_tell_and_a_step_of_the_generator_makes_it_harder(opponent, generator):
    given, truth = degraded(16), images(16)
    losses = [contest(opponent, generator, given, truth, seeded(step), 1.0)[1].item() for step in range(60)]
    assert losses[-1] < 0.8 * UNDECIDED < losses[0]
    first, _ = contest(opponent, generator, given, truth, seeded(99), 0.0)
    assert first > 1.2 * UNDECIDED
    first.backward()
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
    second, _ = contest(opponent, generator, given, truth, seeded(99), 0.0)
    assert second < first - 1e-3


def test_what_is_judged_lies_beside_its_truth_with_noise_and_without(opponent, generator, monkeypatch):
    seen, scores = [], opponent._scores
    monkeypatch.setattr(opponent, "_scores", lambda g, x, told: seen.append(x.detach()) or scores(g, x, told))
    truth, made = images(3), images(3, seed=2)
    opponent.contest(generator, generator.told(degraded(3)), truth, made, seeded(5), 1.0)
    learned, asked = seen
    assert torch.equal(learned[:6], torch.cat([truth, made]))  # then the same with noise
    assert (learned[6:] - learned[:6]).std().item() == pytest.approx(REACH, rel=0.1)
    assert torch.equal(asked, torch.cat([truth, made]))


def judged_by(t, monkeypatch):
    """What the trainer's contests are given: degraded images, truth, restorations, seed and share of each."""
    select, parts, seen = Corrupted.select, [], []

    def contest(generator, condition, truth, made, random, share):
        given = [part for part in parts if torch.equal(generator.told(part), condition)][-1]
        seen.append((given, truth, made, random.initial_seed(), share))
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr(Corrupted, "select", lambda self, index: parts.append(select(self, index)) or parts[-1])
    monkeypatch.setattr(t.adversary, "contest", contest)
    return seen


def test_what_is_judged_are_codes_as_they_are_drawn(monkeypatch):
    t, drawn = trainer(), []

    def codes(n, random):
        drawn.append(Generator.codes(t.generator, n, random))
        return drawn[-1]

    monkeypatch.setattr(t.generator, "codes", codes)
    monkeypatch.setattr(t.descent, "step", lambda *asked: torch.zeros(()))  # so that what was judged can be made again
    seen = judged_by(t, monkeypatch)
    list(t.round(0, 0.3))
    assert len(seen) == 2
    for (given, _, made, *_), own in zip(seen, drawn, strict=True):
        assert torch.allclose(made, t.generator(given, own)[-1], atol=1e-6)


def test_the_penalty_keeps_scores_smooth(generator, monkeypatch):
    slopes = {}
    for penalty in (PENALTY, 0.0):
        monkeypatch.setattr(adversaries, "PENALTY", penalty)
        made = Adversary(config(learning_rate=2e-3), CPU, Ranks.single())
        for step in range(60):
            contest(made, generator, degraded(16), images(16), seeded(step), 1.0)
        told, x = generator.told(degraded(16)), images(16)
        with torch.no_grad():
            noise = REACH * torch.randn(x.shape, generator=seeded(7))
            scores, moved = made.discriminator(x, told), made.discriminator(x + noise, told)
        slopes[penalty] = roughness(scores, moved).item()
    assert slopes[PENALTY] < 0.5 * slopes[0.0]


def trainer(**settings):
    made = Trainer(config(**settings), load(DataConfig(), CPU).train, CPU)
    made.begin()
    return made


def test_a_round_with_an_adversary_has_its_curves_and_trains_with_its_weight():
    weights = {}
    for weight in (0.0, 1.0, 50.0):
        t = trainer(adversarial_weight=weight, reuse=2)
        for step in (0, 4):
            figures = list(t.round(step, 0.3))
        assert len(figures) == 4
        assert all(
            ("camnet/adversarial_loss" in f) == ("camnet/discriminator_loss" in f) == (weight > 0) for f in figures
        )
        weights[weight] = copy_of(t.generator)
    assert not same(weights[0.0], weights[1.0])
    assert not same(weights[1.0], weights[50.0])


def test_a_contest_is_about_half_of_a_batch_each_beside_its_own_truth(monkeypatch):
    t = trainer(reuse=2)
    seen = judged_by(t, monkeypatch)
    list(t.round(0, 0.3))
    assert all(given.residual(truth).max() < 1e-5 for given, truth, *_ in seen)
    assert [len(given) for given, *_ in seen] == [2, 2, 2, 2]
    assert not torch.equal(seen[0][1], seen[1][1])
    assert len({seed for *_, seed, _ in seen}) == 4  # other codes at every step
    assert {share for *_, share in seen} == {one_cycle(0.3)}


def test_a_training_resumes_with_its_adversary_bit_for_bit():
    whole, first, second = trainer(), trainer(), trainer()
    for step in (0, 2, 4):
        list(whole.round(step, 0.3))
    list(first.round(0, 0.3))
    assert "adversary" in first.parts()
    for name, part in second.parts().items():
        part.load_state_dict(first.parts()[name].state_dict())
    for step in (2, 4):
        list(second.round(step, 0.3))
    assert same(copy_of(whole.generator), second.generator.state_dict())
    assert same(copy_of(whole.adversary.discriminator), second.adversary.discriminator.state_dict())


def test_a_checkpoint_with_another_discriminator_is_refused_by_name(opponent):
    state = opponent.state_dict()
    state["discriminator"] = {**state["discriminator"], "look.weight": torch.zeros(24, 4, 3, 3)}
    with pytest.raises(UsageError, match=r"the checkpoint's discriminator.*look\.weight has shape"):
        opponent.load_state_dict(state)


def test_without_weight_there_is_no_adversary():
    assert trainer(adversarial_weight=0.0).adversary is None
    assert "adversary" not in trainer(adversarial_weight=0.0).parts()
    with pytest.raises(ValueError, match=r"--only-prior True learns without a discriminator"):
        config(only_prior=True, start="digits", generator=replace(SMALL, prior=(4,)))
