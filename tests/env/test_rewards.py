"""Rewards are what their formulas say: shares add up to the slope, averages equal their recursions."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.func import jvp

from configs.contrastive import ContrastiveConfig
from configs.reward import ReferenceConfig, RewardConfig
from contrastive.encoder import Learner
from contrastive.losses import ntxent
from env import rewards
from env.credit import credit_shares
from env.engine import Engine, Turn, positive_similarity, running_statistics, without_gaps
from env.reference import Reference
from env.rewards import (
    Accuracy,
    BatchSlope,
    ImageSlope,
    Judged,
    Level,
    LiteralSlope,
    Moment,
    PredictionGain,
    Shared,
    ValidationLoss,
)
from training.descent import Descent

CPU = torch.device("cpu")


class SmallModel:
    """Two layers in float64; per-image and reference losses as functions of the weights."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.weights = [draw(6, 5) / 2, draw(6) / 2, draw(3, 6) / 2]
        self.x, self.target = draw(7, 5), draw(7, 3)
        self.held_x, self.held_target = draw(9, 5), draw(9, 3)
        self.diagonal = [torch.rand(w.shape, generator=generator, dtype=torch.float64) * 4 + 0.1 for w in self.weights]

    def losses(self, weights, x=None, target=None):
        x, target = (self.x, self.target) if x is None else (x, target)
        first, bias, last = weights
        return (torch.tanh(x @ first.T + bias) @ last.T - target).square().sum(dim=1)

    def reference(self, weights):
        return self.losses(weights, self.held_x, self.held_target).mean()

    def gradient(self, loss):
        weights = [w.clone().requires_grad_() for w in self.weights]
        return torch.autograd.grad(loss(weights), weights)


def inner(a, b):
    return sum((p * q).sum() for p, q in zip(a, b, strict=True))


@pytest.fixture
def model():
    return SmallModel()


@pytest.fixture(params=["plain", "preconditioned"])
def diagonal(request, model):
    return model.diagonal if request.param == "preconditioned" else [torch.ones_like(w) for w in model.weights]


def shares_of(model, diagonal):
    direction = [p * g for p, g in zip(diagonal, model.gradient(model.reference), strict=True)]
    return credit_shares(model.losses, model.weights, direction, model.losses(model.weights)), direction


def test_shares_are_the_inner_products_of_the_gradients_image_by_image(model, diagonal):
    shares, direction = shares_of(model, diagonal)
    one_by_one = torch.stack([inner(direction, model.gradient(lambda w, i=i: model.losses(w)[i])) for i in range(7)])
    assert torch.allclose(shares, one_by_one, rtol=0.01, atol=0.01 * one_by_one.abs().mean().item())
    assert one_by_one.min() < 0 < one_by_one.max()  # both signs, or the sign would go untested


def test_the_mean_share_times_the_step_size_is_the_slope(model, diagonal):
    shares, _ = shares_of(model, diagonal)
    eta = 1e-5
    step = model.gradient(lambda w: model.losses(w).mean())
    moved = [w - eta * p * g for w, p, g in zip(model.weights, diagonal, step, strict=True)]
    slope = model.reference(model.weights) - model.reference(moved)
    assert slope != 0
    assert (eta * shares.mean()).item() == pytest.approx(slope.item(), rel=0.02)


def test_a_direction_of_zero_gives_shares_of_zero(model):
    zero = [torch.zeros_like(w) for w in model.weights]
    assert (credit_shares(model.losses, model.weights, zero, model.losses(model.weights)) == 0).all()


# The real learner: convolutions, BatchNorm in training mode, float32.


class Spy(rewards.Stateless):
    """Hands the engine's moment to a test before the learner's step."""

    def __init__(self, look):
        self.look = look

    def before(self, moment):
        self.look(moment)

    def after(self, moment):
        return moment.losses


@pytest.fixture
def learner():
    torch.manual_seed(0)
    return Learner(ContrastiveConfig(width=8, projection=16), 16)


def pairs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, 16, 16, generator=generator)
    return torch.stack([(x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1) for _ in range(2)])


def engine_for(learner, reward, rate=1e-3):
    def held_out(net, first, second):
        net.eval()
        loss = ntxent(net(torch.cat([first, second])).unflatten(0, (2, -1)), 0.2).mean()
        net.train()
        return loss

    reference = Reference(*pairs(24, 7)[:, None], batch=24, seed=0)
    contrast = lambda u, rows: ntxent(u, 0.2)  # noqa: E731
    return Engine(learner, Descent(learner, rate), contrast, reference, held_out, reward, lambda: torch.tensor(0.5))


def learn(engine, step=0, rewarded=True, watched=False, n=16, compared=1):
    of_each = [pairs(n, 100 + step + 1000 * k) for k in range(compared)]
    return engine.learn(of_each, torch.arange(n), step, Turn(1.0, rewarded, watched))


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at its first derivative
@pytest.mark.parametrize("steps_before", [0, 3])  # without and with Adam's moments
def test_on_the_learner_the_difference_agrees_with_the_forward_mode_derivative(learner, steps_before):
    seen = {}

    def look(moment):
        before = snapshot(learner)
        gradient = list(torch.autograd.grad(moment.reference_loss(), moment.weights))
        direction = moment.precondition(gradient)
        judged = moment.judged[0]
        shares = credit_shares(judged.per_image, moment.weights, direction, judged.losses)
        weights = [w.detach() for w in moment.weights]
        _, exact = jvp(judged.per_image, (weights,), (direction,))
        seen.update(shares=shares, exact=exact, quiet=unchanged(learner, before))

    quiet = engine_for(learner, None)
    for step in range(steps_before):
        learn(quiet, step)
    quiet.reward = Spy(look)
    engine = quiet
    learn(engine, steps_before)
    assert seen["quiet"]
    assert seen["exact"].std() > 0
    assert torch.cosine_similarity(seen["shares"], seen["exact"], dim=0) > 0.99
    assert seen["shares"].norm() / seen["exact"].norm() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("watched", [False, True])
def test_measuring_leaves_no_trace_in_the_learner(watched):
    after = []
    for reward in ("image", None):
        torch.manual_seed(0)
        learner = Learner(ContrastiveConfig(width=8, projection=16), 16)
        engine = engine_for(learner, ImageSlope(list(learner.parameters()), 0.5, 1.0) if reward else None)
        for step in range(3):
            r, _ = learn(engine, step, watched=watched and reward is not None)
            assert (r is None) == (reward is None)
        assert learner.training
        after.append(snapshot(learner))
    measured, plain = after
    for name, value in plain.items():
        assert torch.equal(measured[name], value), name
    assert any(name.endswith("running_mean") and value.any() for name, value in plain.items())


def test_the_image_reward_foretells_the_slope_that_the_engine_measures(learner):
    """On the same pairs again and again, without momentum, Adam's step is P g: its first order is what is paid."""
    rate = 1e-4
    engine = engine_for(learner, ImageSlope(list(learner.parameters()), 0.0, rate))
    engine.descent = Descent(learner, rate, betas=(0.0, 0.999))
    views, norms = pairs(16, 5), [part for part in learner.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms
    for step in range(4):
        for norm in norms:  # after the first pairs, statistics stay: what they make of the loss is no first order
            norm.momentum = 0.0 if step else 1.0
        r, figures = engine.learn([views], torch.arange(16), step, Turn(watched=True))
    slope = figures["reference/slope"].item()
    assert slope > 1e-5
    assert r.mean().item() == pytest.approx(slope, rel=0.1)


# Rewards made of numbers alone.


def moment(*losses, reference=lambda: torch.tensor(0.0), after=None, accuracy=lambda: torch.tensor(0.0)):
    judged = [Judged(one, lambda weights, one=one: one if after is None else after) for one in losses]
    return Moment(judged, reference, [], lambda gradient: gradient, accuracy)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_the_literal_reward_is_its_recursion(beta):
    series = torch.rand(60, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    batch, image = Shared(LiteralSlope(beta, CPU)), LiteralSlope(beta, CPU)
    level = [losses.mean().item() for losses in series]
    literal, r = [0.0], 0.0
    for before, now in itertools.pairwise(level):
        r = beta * r + (1 - beta) * (before - now)
        literal.append(r)
    for losses, expected in zip(series, literal, strict=True):
        for reward in (batch, image):
            reward.before(moment(losses))
        shared, own = batch.after(moment(losses))[0], image.after(moment(losses))[0]
        assert shared.shape == own.shape == (5,)
        assert (shared == shared[0]).all()
        assert shared[0].item() == pytest.approx(expected, abs=1e-6)
        assert own.mean().item() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(own.argsort(), losses.argsort(descending=True))  # the easier, the better paid
    assert max(map(abs, literal)) > 0.05 * (1 - beta)


def test_the_literal_reward_goes_on_from_a_checkpoint():
    series = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    uncut, cut = Shared(LiteralSlope(0.9, CPU)), Shared(LiteralSlope(0.9, CPU))
    for losses in series[:3]:
        uncut.after(moment(losses))
        cut.after(moment(losses))
    resumed = Shared(LiteralSlope(0.9, CPU))
    resumed.load_state_dict(cut.state_dict())
    for losses in series[3:]:
        assert torch.equal(uncut.after(moment(losses)), resumed.after(moment(losses)))


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("first", [False, True])
def test_the_literal_reward_goes_on_after_a_loss_that_is_not_finite(strange, first):
    series = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    undisturbed, disturbed = LiteralSlope(0.9, CPU), LiteralSlope(0.9, CPU)
    for step, losses in enumerate(series):
        if step == (0 if first else 2):
            disturbed.after(moment(torch.full((3,), strange)))
        assert torch.equal(undisturbed.after(moment(losses)), disturbed.after(moment(losses)))


def test_the_image_reward_averages_the_references_gradient():
    weights = [torch.zeros(2, dtype=torch.float64, requires_grad=True)]
    fixed = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    reward = ImageSlope(weights, 0.75, 0.1)
    average = torch.zeros(2, dtype=torch.float64)
    series = torch.tensor([[2.0, 0.0], [0.0, 4.0], [-1.0, 1.0]], dtype=torch.float64)
    for t, gradient in enumerate(series, start=1):
        reward.before(
            Moment(
                [Judged(torch.zeros(3, dtype=torch.float64), lambda w: fixed @ w[0])],
                lambda g=gradient: (g * weights[0]).sum(),
                weights,
                lambda g: g,
                lambda: torch.tensor(0.0),
            )
        )
        average = 0.75 * average + 0.25 * gradient
        r = reward.after(moment(torch.zeros(3)))[0]
        assert torch.allclose(r, 0.1 * fixed @ average / (1 - 0.75**t), atol=1e-6)  # corrected for its start at zero
        assert not r.requires_grad


def test_the_batch_reward_is_the_references_decrease():
    levels = iter([2.5, 2.25])
    reward = BatchSlope()
    m = moment(torch.rand(4), reference=lambda: torch.tensor(next(levels)))
    reward.before(m)
    assert reward.after(m).tolist() == [[0.25] * 4]


def test_the_batch_reward_is_what_the_engine_measures(learner):
    engine = engine_for(learner, BatchSlope())
    for step in range(2):
        r, figures = learn(engine, step, watched=True)
        assert r.std() == 0
        assert r[0, 0].item() == pytest.approx(figures["reference/slope"].item(), abs=1e-7)
        assert r[0, 0] != 0


@pytest.mark.parametrize(("name", "sign"), [("adversarial", 1), ("cooperative", -1)])
def test_level_rewards_are_the_signed_loss(name, sign):
    losses = torch.rand(4)
    reward = rewards.build(RewardConfig(name=name), [], 1.0, CPU)
    assert isinstance(reward, Level)
    assert torch.equal(reward.after(moment(losses))[0], sign * losses)


@pytest.mark.parametrize(
    ("name", "measured_on", "credit", "kind"),
    [
        ("none", "reference", "image", type(None)),
        ("loss-slope", "reference", "image", ImageSlope),
        ("loss-slope", "reference", "batch", BatchSlope),
        ("loss-slope", "training", "image", LiteralSlope),
        ("loss-slope", "training", "batch", Shared),
        ("val-loss", "reference", "image", ValidationLoss),
        ("knn", "reference", "batch", Accuracy),
        ("prediction-gain", "reference", "image", PredictionGain),
        ("adversarial", "training", "batch", Shared),
    ],
)
def test_settings_choose_the_reward(name, measured_on, credit, kind):
    config = RewardConfig(name=name, measured_on=measured_on, credit=credit)
    reward = rewards.build(config, [torch.zeros(2)], 1.0, CPU)
    assert type(reward) is kind


def test_the_image_reward_is_built_with_the_references_momentum_and_the_learners_step_size():
    config = RewardConfig(momentum=0.8, reference=ReferenceConfig(momentum=0.25))
    reward = rewards.build(config, [torch.zeros(2)], 3e-3, CPU)
    assert (reward.momentum, reward.step_size) == (0.25, 3e-3)


@pytest.mark.parametrize("due", [False, True])
def test_the_engine_pays_only_where_the_policy_has_its_turn(learner, due):
    r, figures = learn(engine_for(learner, Level(1.0)), rewarded=due)
    assert (r is not None) == due
    assert math.isfinite(figures["learner/loss"].item())
    assert "reference/slope" not in figures


def test_the_engine_descends(learner):
    engine = engine_for(learner, None, rate=3e-3)
    views = pairs(16, 1)
    levels = []
    for _ in range(12):
        _, figures = engine.learn([views], torch.arange(16), 0, Turn(rewarded=False))
        levels.append(figures["learner/loss"].item())
    assert levels[-1] < levels[0] - 0.1
    assert isinstance(learner, nn.Module)


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_the_engines_step_is_as_long_as_its_turn_says(learner, share):
    engine, before = engine_for(learner, None, rate=4e-3), [p.detach().clone() for p in learner.parameters()]
    engine.learn([pairs(16, 1)], torch.arange(16), 0, Turn(share, rewarded=False))
    moved = max((now - then).abs().max().item() for now, then in zip(learner.parameters(), before, strict=True))
    assert moved == pytest.approx(share * 4e-3, rel=0.01)  # Adam's first step moves each weight by one step size


def test_the_engine_learns_from_all_views_of_an_image(learner):
    three = torch.cat([pairs(16, 1), pairs(16, 2)[:1]])
    fresh = Learner(ContrastiveConfig(width=8, projection=16), 16)
    fresh.load_state_dict(learner.state_dict())
    expected = ntxent(fresh(three.flatten(0, 1)).unflatten(0, (3, -1)), 0.2)
    r, figures = engine_for(learner, Level(1.0)).learn([three], torch.arange(16), 0, Turn())
    assert torch.allclose(figures["learner/loss"], expected.mean(), atol=1e-6)
    assert torch.allclose(r[0], expected, atol=1e-5)


def test_shared_rewards_are_their_mean_for_every_image():
    losses = torch.rand(4)
    r = Shared(Level(1.0)).after(moment(losses, 2 * losses))
    assert torch.allclose(r, torch.stack([losses.mean(), 2 * losses.mean()])[:, None].expand(2, 4))


def test_the_validation_loss_is_minus_the_reference_loss_after_the_step():
    levels = iter([2.5])
    reward = ValidationLoss()
    m = moment(torch.rand(3), reference=lambda: torch.tensor(next(levels)))
    reward.before(m)  # asks nothing: the one level is left for the measurement after the step
    assert reward.after(m).tolist() == [[-2.5] * 3]


def test_the_accuracy_is_paid_to_all():
    assert rewards.build(RewardConfig(name="knn"), [], 1.0, CPU).after(
        moment(torch.rand(2), accuracy=lambda: torch.tensor(0.75))
    ).tolist() == [[0.75, 0.75]]


def test_prediction_gain_is_the_decrease_on_the_very_pairs(learner):
    engine = engine_for(learner, PredictionGain(), rate=3e-3)
    before = snapshot(learner)
    r, figures = learn(engine)
    views = pairs(16, 100).flatten(0, 1)
    fresh = Learner(ContrastiveConfig(width=8, projection=16), 16)
    levels = []
    for state in (before, snapshot(learner)):
        fresh.load_state_dict(state)
        levels.append(ntxent(fresh(views).unflatten(0, (2, -1)), 0.2).detach())
    assert torch.allclose(r[0], levels[0] - levels[1], atol=1e-5)
    assert r.mean() > 0.01  # a step helps its own pairs
    assert levels[0].mean().item() == pytest.approx(figures["learner/loss"].item(), abs=1e-6)


@pytest.mark.parametrize("name", ["loss-slope", "adversarial"])
def test_compared_corruptions_are_paid_as_if_each_had_come_first(learner, name):
    """The second pairs' rewards equal what they get when they come first, from the same learner."""
    before = snapshot(learner)
    second = pairs(16, 1100)
    both = [pairs(16, 100), second]
    paid = []
    for shown in (both, [second]):
        learner.load_state_dict(before)
        reward = rewards.build(RewardConfig(name=name), list(learner.parameters()), 1.0, CPU)
        r, _ = engine_for(learner, reward).learn(shown, torch.arange(16), 0, Turn())
        paid.append(r)
    assert paid[0].shape == (2, 16)
    # Not exactly: the running statistics behind the reference gradient have seen the first pairs, which differ.
    assert torch.corrcoef(torch.stack([paid[0][1], paid[1][0]]))[0, 1] > 0.99
    assert torch.corrcoef(torch.stack([paid[0][0], paid[1][0]]))[0, 1] < 0.9


def test_other_corruptions_leave_the_learners_step_as_it_is(learner):
    before, ends = snapshot(learner), []
    for compared in (1, 3):
        learner.load_state_dict(before)
        learn(engine_for(learner, Level(1.0)), compared=compared)
        ends.append(snapshot(learner))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("k", [2, 3])
def test_positive_similarity_is_the_mean_over_all_pairs_of_an_images_views(k):
    u = torch.nn.functional.normalize(torch.randn(k, 4, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    pairs = [(u[a] * u[b]).sum(dim=-1) for a in range(k) for b in range(a)]
    assert torch.allclose(positive_similarity(u), torch.stack(pairs).mean(), atol=1e-6)


def test_an_image_without_a_reward_gets_what_the_others_get_on_average():
    nan, inf = math.nan, math.inf
    r = torch.tensor([[1.0, nan, 5.0, inf], [7.0, -inf, 7.0, 1.0], [nan, inf, -inf, nan], [1.0, 2.0, 3.0, 4.0]])
    whole = without_gaps(r)
    assert whole[:2].tolist() == [[1, 3, 5, 3], [7, 5, 7, 1]]
    assert whole[2].isnan().all()
    assert torch.equal(whole[3], r[3])


@pytest.mark.parametrize(("spoiled", "usable"), [(slice(0, 1), True), (slice(None), False)])
def test_the_engine_pays_no_zeros_for_what_it_could_not_measure(learner, spoiled, usable):
    class Spoiled(Level):
        def after(self, moment):
            r = super().after(moment).clone()
            r[:, spoiled] = math.nan
            return r

    r, _ = learn(engine_for(learner, Spoiled(1.0)))
    assert r.isfinite().all() if usable else r.isnan().all()
    if usable:
        assert r[0, 0].item() == pytest.approx(r[0, 1:].mean().item(), rel=1e-5)


def test_a_step_without_numbers_changes_no_statistics(learner):
    engine = engine_for(learner, None)
    for step in range(3):
        before = snapshot(learner)
        spoiled = pairs(16, step) * (math.nan if step == 1 else 1)
        engine.learn([spoiled], torch.arange(16), step, Turn(rewarded=False))
        assert unchanged(learner, before) == (step == 1)
        counts = [value.item() for name, value in learner.state_dict().items() if name.endswith("num_batches_tracked")]
        assert counts
        assert set(counts) == {(1, 1, 2)[step]}


def test_a_learner_may_be_without_statistics():
    torch.manual_seed(0)
    learner = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
    before = snapshot(learner)
    r, _ = learn(engine_for(learner, Level(1.0)))
    assert r.isfinite().all()
    assert not unchanged(learner, before)


def test_running_statistics_are_the_buffers_that_a_forward_pass_changes():
    plain = nn.Linear(3, 3)
    plain.register_buffer("fixed", torch.ones(3))
    without = nn.BatchNorm1d(3, track_running_stats=False)
    module = nn.Sequential(plain, nn.BatchNorm1d(3), without, nn.Sequential(nn.InstanceNorm1d(3)))
    names = [name for name, buffer in module.named_buffers() if any(buffer is s for s in running_statistics(module))]
    assert names == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
