"""Each way to go wrong is said once and names its flag; healthy runs hear nothing."""

import json
import math

import pytest
import torch

from configs.contrastive import ContrastiveConfig
from configs.policy import PolicyConfig
from configs.reward import RewardConfig
from configs.run import RunConfig, ScheduleConfig
from contrastive.chance import chance
from env.distribution import CorruptionDistribution, log, logit
from env.masks.cells import Cells
from policy.alarms import CONSECUTIVE, EXPLORING, Alarms, cases, largest_entropy
from policy.trunk import BOUND
from training import checkpoint, tags

CHANCE = math.log(2 * 128 - 1)
COLUMNS = (
    *("policy/mask_ratio", "policy/entropy", "policy/p_decolorize", "policy/p_downsample_2", "policy/p_downsample_4"),
    *("reward/advantage_std", "learner/loss"),
)
HEALTHY = [  # a default run on digits, every third point; no advantages before the policy's first turn
    (10, 0.300, 10.738, 0.100, 0.100, 0.100, None, 3.334),
    (20, 0.337, 11.137, 0.149, 0.076, 0.078, 1.168, 2.471),
    (30, 0.508, 11.965, 0.495, 0.025, 0.062, 1.187, 2.928),
    (40, 0.503, 11.577, 0.870, 0.011, 0.035, 0.674, 2.773),
    (70, 0.274, 9.574, 0.975, 0.007, 0.005, 0.981, 1.940),
    (100, 0.208, 8.331, 0.975, 0.003, 0.002, 1.044, 1.675),
    (130, 0.143, 6.730, 0.973, 0.003, 0.002, 0.913, 1.551),
    (160, 0.135, 6.613, 0.974, 0.021, 0.012, 0.960, 1.487),
    (190, 0.083, 5.394, 0.975, 0.716, 0.030, 0.990, 1.447),
    (220, 0.087, 5.531, 0.977, 0.678, 0.024, 1.021, 1.406),
    (250, 0.110, 6.004, 0.976, 0.907, 0.008, 0.960, 1.393),
    (310, 0.122, 6.319, 0.969, 0.942, 0.008, 1.016, 1.370),
    (400, 0.128, 6.484, 0.972, 0.946, 0.007, 0.958, 1.353),
]
WELL = dict(zip(COLUMNS, HEALTHY[-1][1:], strict=True)) | {"learner/positive_similarity": 0.9}
UNCORRUPTED = {
    "policy/mask_ratio": 0.013,
    "policy/p_decolorize": 0.012,
    "policy/p_downsample_2": 0.006,
    "policy/p_downsample_4": 0.004,
    "policy/entropy": 2.0,
    "learner/positive_similarity": 0.9975,
}
BAD = {
    "no-corruption": (UNCORRUPTED, ["0.013", "0.9975", "raise the lower end of --policy.ratio-range"]),
    "everything-hidden": (
        {"policy/mask_ratio": 0.985},
        ["0.985", "Lower the upper end of --policy.ratio-range", "raise --policy.ratio-weight"],
    ),
    "nothing-shared": (
        {"learner/loss": 5.5, "learner/positive_similarity": 0.3},
        ["5.500", "5.541", "raise --contrastive.learning-rate"],
    ),
    "collapse": (
        {"learner/loss": CHANCE, "learner/positive_similarity": 0.9999},
        ["5.541", "0.9999", "Lower --contrastive.learning-rate", "raise --contrastive.temperature"],
    ),
    "dead-exploration": (
        {"policy/entropy": 1.0},
        ["1.00 nats", "8%", "12.88", "Raise --policy.entropy-weight or lower --policy.learning-rate"],
    ),
    "dead-advantage": ({"reward/advantage_std": 0.0}, ["advantages 0)", "Raise --reward.reference.batch"]),
    "ratio-pressed": ({"policy/mask_ratio": 0.56}, ["0.560", "0 0.5", "raise the upper end", "--policy.ratio-weight"]),
}


def alarms(means, config=RunConfig(), level=CHANCE):  # noqa: B008 (frozen)
    """What is wrong with one point of the curves, messages by name, whatever the points before it."""
    judged = {case.name: case.judge(means, config) for case in cases(config, level) if case.tags <= means.keys()}
    return {name: message for name, message in judged.items() if message is not None}


def watch(points, config=RunConfig(), step=100):  # noqa: B008 (frozen)
    """The names of all alarms at a run's points, in order."""
    watched, said = Alarms(config, CHANCE), []
    for number, point in enumerate(points):
        said += watched.check(point, step + 10 * number)
    return [message.split(":")[0].split(", ")[1] for message in said]


def test_a_healthy_run_hears_nothing():
    watched = Alarms(RunConfig(), CHANCE)
    for step, *values in HEALTHY:
        means = {name: value for name, value in zip(COLUMNS, values, strict=True) if value is not None}
        for repeated in range(CONSECUTIVE):  # even if each point stayed
            assert watched.check(means | {"learner/positive_similarity": 0.7}, step + repeated) == []
    assert watched.raised == {}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_case_is_told_from_all_others_and_names_number_and_flag(name):
    change, words = BAD[name]
    found = alarms(WELL | change)
    expected = {name, "ratio-pressed"} if name == "everything-hidden" else {name}  # the guard is there, too
    assert set(found) == expected
    for word in words:
        assert word in found[name]


def test_all_is_well_at_the_point_that_the_bad_ones_start_from():
    assert alarms(WELL) == {}


@pytest.mark.parametrize(
    ("loss", "k", "n", "healthy"),
    [("ntxent", 16, 16, 3.9), ("paper", 2, 128, 5.9), ("rince", 2, 16, -5.0)],
)
def test_chance_is_that_of_the_loss_in_use(loss, k, n, healthy):
    level = chance(ContrastiveConfig(loss=loss), k, n)
    for found, similarity, expected in (
        (healthy, 0.9, []),
        (level, 0.3, ["nothing-shared"]),
        (level, 0.9999, ["collapse"]),
    ):
        point = WELL | {"learner/loss": found, "learner/positive_similarity": similarity}
        raised = alarms(point, level=level)
        assert list(raised) == expected
        assert all(f"is that of chance, {level:.3f}" in message for message in raised.values())


def test_where_no_level_is_chance_the_loss_is_not_judged():
    assert alarms(WELL | {"learner/loss": 99.0}, level=None) == {}
    assert {case.name for case in cases(RunConfig(), None)} == BAD.keys() - {"nothing-shared", "collapse"}


def test_it_takes_three_points_to_raise_an_alarm_and_it_is_said_once():
    bad = WELL | BAD["collapse"][0]
    assert watch([bad, bad, WELL, bad, bad]) == []
    assert watch([bad] * 10) == ["collapse"]


def test_an_alarm_that_went_away_and_came_back_is_said_again():
    bad = WELL | BAD["collapse"][0]
    assert watch([bad] * 3 + [WELL] * 2 + [bad] * 3) == ["collapse"]
    assert watch([bad] * 3 + [WELL] * 3 + [bad] * 3) == ["collapse", "collapse"]


def test_the_first_step_of_each_is_kept():
    watched, bad = Alarms(RunConfig(), CHANCE), WELL | BAD["collapse"][0]
    for number, point in enumerate([bad] * 3 + [WELL] * 3 + [bad] * 3):
        watched.check(point, 100 + 10 * number)
    assert watched.raised == {"collapse": 120}


def test_the_start_is_not_judged():
    config = RunConfig(schedule=ScheduleConfig(steps=5000, warmup=20))
    watched, bad = Alarms(config, CHANCE), WELL | BAD["nothing-shared"][0]
    assert [step for step in range(10, 200, 10) if watched.check(bad, step)] == [150]


def test_a_point_without_the_curve_neither_raises_nor_withdraws():
    bad, silent = WELL | BAD["dead-advantage"][0], {k: v for k, v in WELL.items() if k != "reward/advantage_std"}
    assert watch([silent] * 9) == []
    assert watch([bad, silent, bad, silent, bad, silent, silent, silent, bad]) == ["dead-advantage"]
    assert watch([{}] * 9) == []


def test_nan_is_no_alarm():
    assert alarms(dict.fromkeys(WELL, math.nan)) == {}


def test_a_resumed_run_does_not_repeat_itself(tmp_path):
    config, bad = RunConfig(), WELL | BAD["collapse"][0]
    whole, cut = Alarms(config, CHANCE), Alarms(config, CHANCE)
    points = [bad, bad, bad, WELL, bad, bad, WELL, WELL, WELL, bad, bad, bad]
    said = [whole.check(point, 100 + 10 * i) for i, point in enumerate(points)]
    assert sum(map(len, said)) == 2
    for i, point in enumerate(points):
        assert cut.check(point, 100 + 10 * i) == said[i]
        saved = checkpoint.save(tmp_path, i + 1, {"alarms": cut.state_dict()})
        assert json.loads(json.dumps(cut.state_dict())) == cut.state_dict()
        cut = Alarms(config, CHANCE)
        cut.load_state_dict(checkpoint.newest_valid(tmp_path, print).state["alarms"])
    assert saved.exists()
    assert cut.raised == whole.raised == {"collapse": 120}


def test_a_state_is_a_copy():
    watched, bad = Alarms(RunConfig(), CHANCE), WELL | BAD["collapse"][0]
    state = watched.state_dict()
    for step in (100, 110, 120):
        watched.check(bad, step)
    assert state == {"raised": {}, "standing": [], "against": {}}


NONE = RewardConfig(name="none")


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(policy=PolicyConfig(name="none"), reward=NONE),
        RunConfig(policy=PolicyConfig(name="random", mask_ratio=1.0), reward=NONE),
        RunConfig(reward=NONE),
    ],
)
def test_where_no_policy_is_taught_the_learner_alone_is_watched(config):
    everything = {name for change, _ in BAD.values() for name in alarms(WELL | change, config)}
    assert everything == {"nothing-shared", "collapse"}


@pytest.mark.parametrize(
    ("config", "silent"),
    [
        (RunConfig(reward=RewardConfig(credit="batch")), {"dead-advantage"}),
        (RunConfig(reward=RewardConfig(name="val-loss")), {"dead-advantage"}),
        (RunConfig(policy=PolicyConfig(mask="budget")), {"everything-hidden", "ratio-pressed", "dead-exploration"}),
        (RunConfig(policy=PolicyConfig(name="autodropout")), {"dead-exploration"}),
        (RunConfig(algorithm="ppo"), {"ratio-pressed"}),
        (
            RunConfig(policy=PolicyConfig(name="latent")),
            {"no-corruption", "everything-hidden", "ratio-pressed", "dead-exploration"},
        ),
    ],
)
def test_what_the_settings_ask_for_or_leave_out_is_no_alarm(config, silent):
    assert {case.name for case in cases(config, CHANCE)} == BAD.keys() - silent


def test_unscaled_advantages_may_be_small():
    config = RunConfig(reward=RewardConfig(scaling="none"))
    assert alarms(WELL | {"reward/advantage_std": 1e-5}, config) == {}
    assert list(alarms(WELL | {"reward/advantage_std": 0.0}, config)) == ["dead-advantage"]


def test_a_held_mask_ratio_may_waver_but_not_be_pulled_away():
    config = RunConfig(policy=PolicyConfig(ratio_range=(0.3, 0.3)))
    assert alarms(WELL | {"policy/mask_ratio": 0.315}, config) == {}
    (above,) = alarms(WELL | {"policy/mask_ratio": 0.40}, config).values()  # where the adversarial reward takes it
    assert "raise the upper end" in above
    (below,) = alarms(WELL | {"policy/mask_ratio": 0.20}, config).values()
    assert "lower the lower end" in below


def test_stable_baselines_has_no_guard_and_no_entropy_weight():
    config = RunConfig(algorithm="a2c")
    (hidden,) = alarms(WELL | {"policy/mask_ratio": 0.99}, config).values()
    assert "se --algorithm reinforce" in hidden
    assert "ratio-weight" not in hidden
    (bored,) = alarms(WELL | {"policy/entropy": 0.96}, config).values()
    assert "entropy-weight" not in bored
    assert "Lower --policy.learning-rate" in bored


def entropy(mask: float, gray: float, coarse: float) -> float:
    """Of a policy on a 4 x 4 grid with these rates."""
    factors = torch.tensor([[log(1 - coarse), log(coarse / 2), log(coarse / 2)]])
    pi = CorruptionDistribution(Cells(torch.full((1, 4, 4), logit(mask))), factors, torch.tensor([logit(gray)]))
    return pi.entropy().item()


def test_the_bound_on_entropy_lies_between_what_is_dead_and_what_is_bold():
    floor = 1 / (1 + math.exp(BOUND))
    assert largest_entropy(4) == pytest.approx(12.882, abs=1e-3)
    assert entropy(0.5, 0.5, 2 / 3) == pytest.approx(largest_entropy(4), abs=1e-5)
    bound = EXPLORING * largest_entropy(4)
    assert entropy(floor, 1 - floor, 0.001) < bound  # all at their limits
    assert entropy(0.0125, 0.97, 0.05) < bound  # where rates of 0 and 1 start
    assert entropy(0.02, 0.97, 0.95) > bound
    assert entropy(0.128, 0.972, 0.953) > 3 * bound  # a healthy end


def test_every_curve_that_is_judged_is_logged():
    assert set().union(*(case.tags for case in cases(RunConfig(), CHANCE))) <= tags.RUN
