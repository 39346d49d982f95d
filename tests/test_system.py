"""One system behind every face: run_rl.py's loop, Gymnasium and Stable-Baselines3 step the same engine."""

import subprocess
import sys
import tempfile
from pathlib import Path

import gymnasium
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from configs.errors import UsageError
from configs.reading import read
from configs.run import RunConfig
from env import reference
from env.actions import to_vector
from env.corruption import corrupt
from env.engine import Turn
from env.sb3 import CorruptionSB3VecEnv
from env.vector import CorruptionVectorEnv
from policy import Reinforce
from system import System
from training.seeding import generator_at

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
TINY = [
    *("--config", str(ROOT / "configs" / "smoke.yaml"), "--device", "cpu", "--schedule.batch", "16"),
    *("--reward.reference.batch", "16"),
]


def test_amp_runs_the_generator_in_bfloat16_and_leaves_the_learner_alone():
    views = []
    for flags in ([], ["--amp", "True"]):
        s = system(*flags)
        x = s.data.test.images(torch.arange(4))
        views.append(
            s.world.decorrupt(x, [s.world.prior(4, generator_at(0, 0, "a", CPU))], generator_at(0, 0, "c", CPU))
        )
        assert all(p.dtype == torch.float32 for p in s.learner.parameters())
    difference = (views[0][0] - views[1][0]).abs()
    assert 0 < difference.max() < 0.05


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(reference, "DRAWS", 1)


def system(*flags):
    return System(read(RunConfig, [*TINY, *flags], prog="", description=""), CPU)


def actions(s, step):
    return s.world.prior(s.world.batch, generator_at(9, step, "actions", CPU))


def by_the_loop(s, step, a):
    """As run_rl.py does it, line by line."""
    random = generator_at(s.config.seed, step, "codes", CPU)
    rows = s.world.rows(step)
    decorrupted = s.world.decorrupt(s.data.train.images(rows), [a], random)
    r, _ = s.engine.learn(s.world.show(decorrupted, rows, random), rows, step, Turn())
    return r[0]


@pytest.mark.parametrize("reward", ["loss-slope", "prediction-gain", "val-loss"])
def test_all_faces_pay_the_same_and_leave_the_same_learner(reward):
    systems = [system("--reward", reward) for _ in range(4)]
    core, vector_system, numpy_system, sb3_system = systems
    vector, array = CorruptionVectorEnv(vector_system.world), CorruptionVectorEnv(numpy_system.world, array="numpy")
    sb3 = CorruptionSB3VecEnv(sb3_system.world)
    for face in (vector, array):
        face.reset()
    sb3.reset_torch()
    for step in range(3):
        a = actions(core, step)
        paid = by_the_loop(core, step, a)
        assert torch.equal(vector.step(to_vector(a))[1], paid)
        assert torch.equal(torch.from_numpy(array.step(to_vector(a).numpy())[1]), paid)
        assert torch.equal(sb3.step_torch(a)[1], paid)
    weights = [s.learner.state_dict() for s in systems]
    for name, value in weights[0].items():
        assert all(torch.equal(value, other[name]) for other in weights[1:]), name


@pytest.mark.parametrize(
    "flags", [[], ["--views", "all", "--views.count", "5"], ["--views", "hard", "--views.count", "5"]], ids=str
)
def test_chance_is_that_of_the_views_that_the_learner_sees(flags):
    s = system("--loss", "sincere", *flags)
    x = s.data.train.images(s.world.rows(0))
    views = s.world.showing.show(
        x.expand(s.config.views.drawn, *x.shape), s.world.rows(0), generator_at(0, 0, "v", CPU)
    )
    equal = torch.eye(64)[:1].expand(*views.shape[:2], 64)
    expected = s.contrast(equal, s.world.rows(0)).mean().item()
    assert s.alarms.chance == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["corruption", "expert", "labels"])
def test_the_reference_is_made_of_validation_images(monkeypatch, kind):
    makers = {"corruption": "corrupted_pairs", "expert": "expert_pairs", "labels": "labelled_images"}
    make, taken = getattr(reference, makers[kind]), []

    def spied(config, images, *rest):
        taken.append(images)
        return make(config, images, *rest)

    monkeypatch.setattr(f"system.{makers[kind]}", spied)
    s = system("--reward.reference.kind", kind)
    assert [images is s.data.validation for images in taken] == [True]


def test_the_accuracy_in_a_run_is_that_of_validation_images_among_training_images(monkeypatch):
    s, asked = system(), []
    monkeypatch.setattr("system.knn_top1", lambda *given: asked.append(given) or torch.tensor(0.5))
    s.validation_accuracy()
    ((learner, bank, queries),) = asked
    assert (learner, bank, queries) == (s.learner, s.data.train, s.data.validation)


@pytest.mark.parametrize("kind", ["corruption", "labels"])
def test_the_held_out_loss_leaves_the_learner_as_it_was(kind):
    s = system("--reward.reference.kind", kind)
    s.engine.learn([s.data.train.images(s.world.rows(0)).expand(2, -1, -1, -1, -1)], s.world.rows(0), 0, Turn())
    before = {name: value.clone() for name, value in s.learner.state_dict().items()}
    loss = s._held_out_loss(s.learner, *s.engine.reference.at(0))
    assert loss.requires_grad
    assert s.learner.training
    assert any(name.endswith("running_mean") for name in before)
    for name, value in s.learner.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_step_sizes_weight_decay_and_clipping_reach_their_optimizers():
    learners = ["--contrastive.learning-rate", "0.002", "--contrastive.weight-decay", "0.07"]
    policys = ["--policy.learning-rate", "0.02", "--policy.clip-norm", "0.3"]
    s = system(*learners, *policys, "--reward.reference.momentum", "0.4")
    (learner,), (policy,) = s.descent.optimizer.param_groups, s.descend_policy.optimizer.param_groups
    assert (s.descent.learning_rate, learner["lr"], learner["weight_decay"]) == (0.002, 0.002, 0.07)
    assert (s.descend_policy.learning_rate, policy["lr"], policy["weight_decay"]) == (0.02, 0.02, 0)
    assert (s.descent.clip, s.descend_policy.clip) == (1e6, 0.3)
    assert (s.reward.step_size, s.reward.momentum) == (0.002, 0.4)


FRESH = """
import sys
import gymnasium
flags = sys.argv[1:]
env = gymnasium.make("env:CorruptionPolicy-v0", flags=flags)
observation, _ = env.reset(seed=3)
_, reward, terminated, truncated, _ = env.step(env.action_space.sample())
assert terminated and not truncated and observation.shape == (3, 16, 16)
many = gymnasium.make_vec("env:CorruptionPolicy-v0", num_envs=8, flags=flags)
observation, _ = many.reset(seed=3)
_, reward, _, _, _ = many.step(many.action_space.sample())
assert observation.shape == (8, 3, 16, 16) and reward.shape == (8,)
print("made")
"""


def test_a_fresh_interpreter_makes_both_environments():
    done = subprocess.run([sys.executable, "-c", FRESH, *TINY], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("made"), done.stderr


@pytest.mark.filterwarnings(
    "ignore:.*minimal resolution for an image:UserWarning"
)  # for its own CNN, which is not used
def test_both_checkers_pass_on_the_real_system():
    env = gymnasium.make("env:CorruptionPolicy-v0", flags=TINY, render_mode="rgb_array").unwrapped
    check_env(env, skip_render_check=True)
    sb3_check_env(env)
    env.reset(seed=0)
    assert env.render().shape == (16, 48, 3)


def test_a_single_held_out_image_has_nothing_to_be_contrasted_with(monkeypatch):
    monkeypatch.setattr("env.images.VALIDATION_IMAGES", 1)

    def system(*flags: str) -> System:
        return System(read(RunConfig, [*TINY, *flags], prog="", description=""), CPU)

    for flags in ([], ["--reward", "val-loss"], *(["--reward.reference.kind", kind] for kind in ("expert", "labels"))):
        with pytest.raises(UsageError, match=r"only 1 for validation: .*--data\.classes$"):
            system(*flags)
    system("--reward", "adversarial")


def test_labels_of_held_out_images_that_all_differ_are_no_reference(monkeypatch):
    config = read(RunConfig, [*TINY, "--reward.reference.kind", "labels"], prog="", description="")
    monkeypatch.setattr("env.images.VALIDATION_IMAGES", 2)
    with pytest.raises(UsageError, match=r"^--reward\.reference\.kind labels: no two of the 2 validation images"):
        System(config, CPU)
    monkeypatch.setattr("env.images.VALIDATION_IMAGES", 11)  # of ten classes
    System(config, CPU)


def test_an_encoder_that_cannot_judge_smaller_images_is_refused_at_the_start(monkeypatch):
    flags = ["--views", "most-different", "--views.scoring-scale", "2"]
    with pytest.raises(UsageError, match=r"^--views\.scoring-scale 2: .*googlenet cannot take images of 8 x 8 .*at 1$"):
        system(*flags, "--contrastive.encoder", "googlenet")
    with monkeypatch.context() as patch:
        patch.setattr("system.feature_length", lambda encoder, name, size: size)
        with pytest.raises(
            UsageError, match=r"the encoder small makes 8 features .*, and \d+ of a whole one\..* at 1$"
        ):
            system(*flags)
    monkeypatch.setattr("system.takes_one_size", lambda encoder: True)
    with pytest.raises(UsageError, match=r"^--views\.scoring-scale 2: .*small takes only images of one size\..* at 1$"):
        system(*flags)


def test_a_single_image_a_step_is_refused():
    with pytest.raises(UsageError, match=r"^num_envs=1: .* at least 2$"):
        gymnasium.make_vec("env:CorruptionPolicy-v0", num_envs=1, flags=TINY)


@pytest.mark.parametrize("warmup", ["0", "2"])
def test_a_frozen_learner_pays_for_the_literal_slope(warmup):
    flags = [*TINY, "--reward.measured-on", "training", "--reward.credit", "batch", "--schedule.warmup", warmup]
    env = gymnasium.make_vec("env:CorruptionPolicy-v0", num_envs=16, flags=flags, frozen_learner=True)
    env.reset()
    env.action_space.seed(0)
    *_, rewards = (env.step(env.action_space.sample())[1] for _ in range(2))
    assert rewards.abs().min() > 1e-4


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_stable_baselines_leaves_rewards_on_the_device_and_no_folder(tmp_path, monkeypatch, algorithm):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stable = system("--algorithm", algorithm).stable
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(stable.algorithm, "device", torch.device("meta"))
    for paid in (True, False):
        monkeypatch.setattr(stable.env, "paid", paid)
        monkeypatch.setattr(stable.algorithm, "learn", lambda *_, **__: None)
        rewards, _ = stable.turn(0, 1.0)
        assert rewards.shape == (16,)
        assert rewards.device.type == "meta"


def test_an_environment_without_a_reward_is_refused():
    with pytest.raises(UsageError, match="--reward"):
        gymnasium.make("env:CorruptionPolicy-v0", flags=[*TINY, "--reward", "none"])


def test_reinforce_of_stable_baselines3_trains_on_the_system():
    s = system()
    model = Reinforce("CorruptionPolicy", CorruptionSB3VecEnv(s.world), seed=0, device="cpu")
    before = {name: value.clone() for name, value in model.policy.network.state_dict().items()}
    learner = {name: value.clone() for name, value in s.learner.state_dict().items()}
    model.learn(3 * 16)
    assert any(not torch.equal(value, before[name]) for name, value in model.policy.network.state_dict().items())
    assert any(not torch.equal(value, learner[name]) for name, value in s.learner.state_dict().items())


@pytest.mark.parametrize("flags", [[], ["--amp", "True"], ["--generator", "noise"], ["--generator", "blur"]], ids=str)
def test_without_a_corruption_the_generator_rests_and_the_views_are_those_that_it_would_give(monkeypatch, flags):
    s = system("--policy", "none", "--reward", "none", "--views", "all", "--views.count", "3", *flags)
    x = s.data.test.images(torch.arange(6))
    a = s.policy(x).sample(generator_at(0, 0, "a", CPU))
    expected = s.generator.views(corrupt(x, a), 3, generator_at(0, 0, "codes", CPU)).transpose(0, 1)
    monkeypatch.setattr(s.generator, "restore", None)
    (views,) = s.world.decorrupt(x, [a], generator_at(0, 0, "codes", CPU))
    assert torch.equal(views, expected)
    assert torch.equal(views, x.expand(3, -1, -1, -1, -1))


@pytest.mark.parametrize("policy", ["random", "decolorize"])
def test_with_a_corruption_the_generator_is_asked(policy):
    s = system("--policy", policy, "--reward", "none", "--policy.mask-ratio", "0")
    assert s.world.showing.restore == s.generator.views


def test_proposed_codes_reach_the_generator():
    s = system("--policy", "latent", "--policy.mask-ratio", "1")
    x = s.data.test.images(torch.arange(4))
    a = s.policy(x).sample(generator_at(0, 0, "a", CPU))
    alike = type(a)(a.mask, a.downsample, a.decolorize, code=a.code[:, :1].expand(-1, 2, -1))

    def apart(action):
        v1, v2 = s.world.decorrupt(x, [action], generator_at(0, 0, "codes", CPU))[0]
        return (v1 - v2).abs().mean()

    assert a.code.shape == (4, 2, s.generator.proposable)
    assert apart(alike) < 0.8 * apart(a)  # the spatial codes stay random and differ
