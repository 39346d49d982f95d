"""Stable-Baselines3 trains on the environment as it is, and all faces pay alike."""

import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import A2C
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from env.actions import from_vector, to_vector
from env.images import ImageSet
from env.sb3 import CorruptionSB3VecEnv
from env.single import CorruptionEnv
from env.vector import CorruptionVectorEnv


def actions(seed=0, n=4, d=6):
    """Bits alone: 0 and 1 are choices for every number of an action."""
    return np.random.default_rng(seed).integers(0, 2, size=(n, d))


def a2c(env, **options):
    return A2C("MlpPolicy", env, n_steps=2, policy_kwargs={"net_arch": [8]}, device="cpu", **options)


def test_every_step_ends_every_episode_and_says_what_it_paid(world):
    env = CorruptionSB3VecEnv(world)
    shown = env.reset()
    assert shown in CorruptionVectorEnv(world).observation_space
    for step in range(4):
        following, rewards, dones, infos = env.step(actions(step))
        assert following in CorruptionVectorEnv(world).observation_space
        assert rewards.dtype == np.float32
        assert rewards.shape == (4,)
        assert dones.dtype == bool
        assert dones.all()
        for info, image, r in zip(infos, shown, rewards, strict=True):
            assert np.array_equal(info["terminal_observation"], image)
            assert info["TimeLimit.truncated"] is False
            assert info["episode"]["r"] == r
            assert info["episode"]["l"] == 1
            assert info["episode"]["t"] >= 0
        assert env.figures["learner/loss"].shape == ()
        shown = following
    env.close()


def test_rewards_that_are_no_numbers_are_told(world, monkeypatch):
    env = CorruptionSB3VecEnv(world)
    env.reset()
    env.step(actions())
    assert env.paid
    monkeypatch.setattr(world, "act", lambda *_: (torch.full((4,), torch.nan), {}))
    assert not env.step(actions())[1].any()
    assert not env.paid


def test_the_torch_path_is_the_numpy_path(make_world):
    env, other = CorruptionSB3VecEnv(make_world()), CorruptionSB3VecEnv(make_world())
    assert np.array_equal(env.reset(), other.reset_torch().numpy())
    for step in range(4):
        x, rewards, *_ = env.step(actions(step))
        pixels, r, figures = other.step_torch(from_vector(torch.from_numpy(actions(step)), 2))
        assert pixels.dtype == torch.uint8
        assert np.array_equal(x, pixels.numpy())
        assert np.array_equal(rewards, r.numpy())
        assert figures is other.figures


def test_all_faces_pay_the_same_for_the_same(world, monkeypatch):
    """For the same images, actions and step; each face is put back, so that the learner is the same as well."""
    rows = torch.from_numpy(actions())
    vector = CorruptionVectorEnv(world, frozen_learner=True)
    vector.reset()
    _, from_vector_face, *_ = vector.step(rows)
    sb3 = CorruptionSB3VecEnv(world, frozen_learner=True)
    sb3.reset()
    _, from_sb3_face, *_ = sb3.step(rows.numpy())
    assert np.array_equal(from_vector_face.numpy(), from_sb3_face)

    single = CorruptionEnv(world)
    single.reset(seed=0)
    _, own, *_ = single.step(rows[0].numpy())
    (first, action, step), asked_by_sb3, (chosen, joined, number) = world.asked
    assert torch.equal(first, asked_by_sb3[0])
    assert torch.equal(to_vector(action), to_vector(asked_by_sb3[1]))
    assert (step, step) == (asked_by_sb3[2], vector.next_step - 1)

    # The vector face, shown the single face's images at its step, and told to do what that one did.
    monkeypatch.setattr(ImageSet, "rows", lambda *_: chosen)
    vector.next_step = number
    vector.reset()
    _, again, *_ = vector.step(to_vector(joined))
    assert again[0].item() == own


def test_a2c_learns_as_it_is(world):
    env = CorruptionSB3VecEnv(world)
    logged = []
    model = a2c(env, seed=1, stats_window_size=world.batch)
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.logger.dump = lambda step=0: logged.append(dict(model.logger.name_to_value))
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(total_timesteps=3 * 2 * 4, log_interval=1)
    assert world.turns.count == env.next_step == 6
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))
    paid = np.mean([entry["r"] for entry in model.ep_info_buffer])
    assert logged[-1]["rollout/ep_rew_mean"] == pytest.approx(paid)  # without a Monitor
    assert logged[-1]["rollout/ep_len_mean"] == 1


def test_evaluation_believes_the_episodes(world):
    env = CorruptionSB3VecEnv(world, frozen_learner=True)
    model = a2c(CorruptionSB3VecEnv(world))
    rewards, lengths = evaluate_policy(model, env, n_eval_episodes=8, return_episode_rewards=True)
    assert len(rewards) == 8
    assert set(lengths) == {1}


def test_the_algorithm_s_seed_chooses_the_images_and_a_later_step_goes_on(world):
    env = CorruptionSB3VecEnv(world, frozen_learner=True)
    assert env.seed(9) == [9, 10, 11, 12]
    first = env.reset()
    assert np.array_equal(first, world.images.pixels[world.images.rows(9, 0, 4)].numpy())
    following, *_ = env.step(actions())
    env.seed(9)
    assert env.next_step == 0
    assert np.array_equal(env.reset(), first)
    model = a2c(env, seed=9)  # calls env.seed
    env.next_step = 1
    assert np.array_equal(model.env.reset(), following)
    assert all(isinstance(seed, int) for seed in env.seed())  # drawn


def test_what_stable_baselines3_asks_of_an_environment(world):
    env = CorruptionSB3VecEnv(world)
    assert env.get_attr("next_step") == [0] * 4
    assert env.get_attr("next_step", indices=[0, 2]) == [0] * 2
    assert env.get_attr("render_mode", indices=1) == [None]
    env.set_attr("next_step", 7)
    assert env.next_step == 7
    with pytest.raises(ValueError, match="all 4 images share one environment"):
        env.set_attr("next_step", 8, indices=[1])
    assert not env.has_attr("nothing")
    assert env.env_method("get_attr", "next_step", indices=[0]) == [[7] * 4]
    assert env.env_is_wrapped(Monitor) == [True] * 4
    assert env.env_is_wrapped(TimeLimit, indices=0) == [False]
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        VecMonitor(env)


def test_wrappers_go_around_it(world):
    env = VecNormalize(CorruptionSB3VecEnv(world), norm_obs=False)
    env.reset()
    _, rewards, dones, _ = env.step(actions())
    assert rewards.shape == (4,)
    assert dones.all()
