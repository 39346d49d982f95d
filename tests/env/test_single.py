"""One image at a time: Gymnasium's and Stable-Baselines3's checkers agree to it, and its reward is its own."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from env.actions import from_vector, to_vector
from env.corruption import corrupt
from env.single import CorruptionEnv

ACTION = np.array([0, 1, 0, 0, 2, 1])


@pytest.fixture
def registered(make_world):
    """The checker renders, and makes the environment again, only if it is registered."""
    name = "TestOfCorruption-v0"
    gymnasium.register(name, entry_point=lambda **options: CorruptionEnv(make_world(), **options))
    yield name
    del gymnasium.registry[name]


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_gymnasium_agrees(registered, render_mode):
    env = gymnasium.make(registered, render_mode=render_mode).unwrapped
    assert env.spec.nondeterministic is False  # so that the checker compares rewards, too
    check_env(env)


def test_gymnasium_sees_that_a_learner_that_goes_on_is_not_deterministic(registered):
    env = gymnasium.make(registered, frozen_learner=False).unwrapped
    with pytest.raises(AssertionError, match="Deterministic step rewards are not equivalent"):
        check_env(env)


# The images are smaller than Stable-Baselines3's default network wants; the policies here bring their own.
@pytest.mark.filterwarnings("ignore:The minimal resolution for an image is 36x36")
def test_stable_baselines3_agrees(world):
    sb3_check_env(CorruptionEnv(world, render_mode="rgb_array"), skip_render_check=False)


def test_an_episode_is_one_step_that_terminates(world):
    env = CorruptionEnv(world)
    first, info = env.reset(seed=1)
    last, reward, terminated, truncated, after = env.step(ACTION)
    assert (terminated, truncated) == (True, False)
    assert type(reward) is float
    assert np.array_equal(first, last)
    assert not np.shares_memory(first, last)
    assert np.array_equal(first, world.images.pixels[info["index"]].numpy())
    assert after["index"] == info["index"]
    assert (after["mask_ratio"], after["factor"], after["decolorize"]) == (0.25, 4, True)
    assert type(after["learner/loss"]) is float


def test_what_is_shown_is_a_copy(world):
    pixels = world.images.pixels.clone()
    env = CorruptionEnv(world)
    env.reset(seed=1)[0][:] = 0
    env.step(ACTION)[0][:] = 0
    assert torch.equal(world.images.pixels, pixels)


def test_the_reward_is_the_image_s_own_among_companions(world):
    env = CorruptionEnv(world)
    _, info = env.reset(seed=1)
    _, reward, *_ = env.step(ACTION)
    ((rows, action, step),) = world.asked
    assert rows[0] == info["index"]
    assert len(set(rows.tolist())) == world.batch  # all different
    assert np.array_equal(to_vector(action)[0].numpy(), ACTION)
    assert len({tuple(row) for row in to_vector(action)[1:].tolist()}) > 1  # the companions' are drawn
    assert reward == world.act(rows, action, step)[0][0].item()


def test_frozen_means_equal_seeds_and_actions_give_equal_rewards(world):
    def rewards(env, episodes=5):
        env.reset(seed=3)
        paid = []
        for _ in range(episodes):
            paid.append(env.step(ACTION)[1])
            env.reset()
        return paid

    frozen = CorruptionEnv(world)
    assert rewards(frozen) == rewards(frozen)
    assert len(set(rewards(frozen))) == 5  # images and codes differ from episode to episode
    assert world.turns.count == 0
    learning = CorruptionEnv(world, frozen_learner=False)
    assert rewards(learning) != rewards(learning)
    assert world.turns.count == 10


def test_every_image_gets_its_turn(world):
    env = CorruptionEnv(world)
    env.reset(seed=0)
    assert {env.reset()[1]["index"] for _ in range(200)} == set(range(len(world.images)))


def test_steps_out_of_turn_are_refused(world):
    env = CorruptionEnv(world, render_mode="rgb_array")
    for early in (lambda: env.step(ACTION), env.render):
        with pytest.raises(ResetNeeded):
            early()
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="no element of MultiDiscrete"):
        env.step(np.array([0, 1, 0, 0, 3, 1]))
    env.step(ACTION)
    with pytest.raises(ResetNeeded):
        env.step(ACTION)


def test_the_picture_shows_image_mask_and_corrupted_image(world):
    env = CorruptionEnv(world, render_mode="rgb_array")
    pixels, _ = env.reset(seed=0)
    image = pixels.transpose(1, 2, 0)
    black = np.zeros_like(image)
    assert np.array_equal(env.render(), np.concatenate([image, black, image], axis=1))
    env.step(ACTION)
    left, mask, right = np.split(env.render(), 3, axis=1)
    assert np.array_equal(left, image)
    assert (mask[:4, 4:] == 255).all()  # the second cell of the first row, 1 = hidden
    assert mask.sum() == 255 * 4 * 4 * 3
    action = from_vector(torch.from_numpy(ACTION)[None], 2)
    kept = corrupt(torch.from_numpy(pixels)[None].float() / 255, action).kept[0]
    assert np.array_equal(right, (kept * 255).round().byte().permute(1, 2, 0).numpy())


def test_render_modes(world):
    with pytest.raises(ValueError, match="rgb_array or None, got 'human'"):
        CorruptionEnv(world, render_mode="human")
    env = CorruptionEnv(world)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="nothing is rendered"):
        assert env.render() is None
