"""The vector face keeps Gymnasium's contract, in torch and in numpy; no checker exists for it but this one."""

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from torch.utils._python_dispatch import TorchDispatchMode

from env.vector import CorruptionVectorEnv

aten = torch.ops.aten


def actions(env, seed=0):
    env.action_space.seed(seed)
    return torch.from_numpy(env.action_space.sample())


def as_numpy(value):
    return value.numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("array", ["torch", "numpy"])
def test_shapes_types_and_spaces(world, array):
    env = CorruptionVectorEnv(world, array=array)
    kind = torch.Tensor if array == "torch" else np.ndarray
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.num_envs == world.batch == 4
    assert env.action_space.shape == (4, 6)
    x, infos = env.reset()
    assert isinstance(x, kind)
    assert as_numpy(x) in env.observation_space
    assert as_numpy(x)[0] in env.single_observation_space
    for _ in range(6):  # goes past the end of an epoch, which has two whole batches
        row = actions(env) if array == "torch" else actions(env).numpy()
        x, rewards, terminated, truncated, infos = env.step(row)
        assert all(isinstance(part, kind) for part in (x, rewards, terminated, truncated, infos["index"]))
        assert as_numpy(x) in env.observation_space
        assert as_numpy(rewards).dtype == np.float32
        for flags in (terminated, truncated, infos["_final_obs"]):
            assert as_numpy(flags).dtype == bool
        assert terminated.all()
        assert not truncated.any()
        assert rewards.shape == terminated.shape == truncated.shape == infos["index"].shape == (4,)
    env.close()


def test_every_step_pays_and_shows_the_next_images(world):
    env = CorruptionVectorEnv(world, frozen_learner=True)
    shown, infos = env.reset()
    for step in range(6):
        rows = world.rows(step)
        assert torch.equal(infos["index"], rows)
        assert torch.equal(shown, world.images.pixels[rows])
        following, rewards, *_, infos = env.step(actions(env, step))
        assert (rewards > 0).all()
        assert torch.equal(infos["final_obs"], shown)  # what the rewards belong to
        assert infos["_final_obs"].all()
        shown = following


def test_figures(world):
    env = CorruptionVectorEnv(world)
    env.reset()
    *_, infos = env.step(actions(env))
    loss = infos["figures"]["learner/loss"]
    assert loss.shape == ()
    assert not loss.requires_grad  # or the learner's graph would be kept
    env = CorruptionVectorEnv(world, array="numpy")
    env.reset()
    *_, infos = env.step(actions(env))
    assert infos["figures"]["learner/loss"].tolist() == [infos["figures"]["learner/loss"][0]] * 4


def test_final_images_in_numpy_have_the_form_of_gymnasium_s_own(world):
    env = CorruptionVectorEnv(world, array="numpy")
    shown, _ = env.reset()
    *_, infos = env.step(actions(env))
    assert infos["final_obs"].shape == (4,)
    assert infos["final_obs"].dtype == object
    assert np.array_equal(np.stack(list(infos["final_obs"])), shown)


def test_what_is_given_away_is_nobody_else_s(world):
    for array in ("torch", "numpy"):
        env = CorruptionVectorEnv(world, array=array)
        pixels = world.images.pixels.clone()
        x, infos = env.reset()
        x[:] = 0
        infos["index"][:] = 0
        *_, infos = env.step(actions(env))
        assert torch.equal(world.asked[-1][0], world.rows(0))
        assert np.array_equal(as_numpy(infos["final_obs"][0]), pixels[world.rows(0)[0]].numpy())
        assert torch.equal(world.images.pixels, pixels)


def played(env, seed, steps=5):
    """All that an agent sees of a few steps."""
    seen = [env.reset(seed=seed)[0]]
    for step in range(steps):
        x, rewards, *_ = env.step(actions(env, step))
        seen += [x, rewards]
    return [as_numpy(part) for part in seen]


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_numpy_equals_torch(make_world):
    pair = [played(CorruptionVectorEnv(make_world(), array=array), None) for array in ("torch", "numpy")]
    assert equal(*pair)


def test_equal_seeds_replay_a_frozen_environment_and_others_do_not(world):
    env = CorruptionVectorEnv(world, frozen_learner=True)
    first = played(env, 7)
    assert world.turns.count == 0
    assert equal(first, played(env, 7))
    assert not equal(first, played(env, 8))
    assert equal(first, played(env, [7, 8, 9, 10]))  # as Gymnasium spreads one seed over several environments
    learning = CorruptionVectorEnv(world)
    first = played(learning, 7)
    assert not equal(first, played(learning, 7))
    assert world.turns.count == 10


def test_the_world_s_own_seed_comes_first_and_no_seed_goes_on(world):
    env = CorruptionVectorEnv(world, frozen_learner=True)
    first = played(env, None)
    assert equal(first, played(env, world.seed))
    env.reset(seed=world.seed)
    for step in range(3):
        env.step(actions(env, step))
    x, _ = env.reset()
    assert env.next_step == 3
    assert torch.equal(x, world.images.pixels[world.rows(3)])


def test_a_sequence_goes_on_where_it_was_cut(world):
    env = CorruptionVectorEnv(world, frozen_learner=True)
    whole = played(env, None)
    later = CorruptionVectorEnv(world, frozen_learner=True)
    later.next_step = 3
    x, _ = later.reset()
    assert np.array_equal(x.numpy(), whole[2 * 3 - 1])
    for step in (3, 4):
        x, rewards, *_ = later.step(actions(later, step))
        assert np.array_equal(x.numpy(), whole[2 * step + 1])
        assert np.array_equal(rewards.numpy(), whole[2 * step + 2])


def test_gymnasium_s_statistics_take_the_numpy_mode(world):
    env = RecordEpisodeStatistics(CorruptionVectorEnv(world, array="numpy"))
    env.reset()
    for _ in range(3):
        _, rewards, *_, infos = env.step(actions(env).numpy())
        assert np.allclose(infos["episode"]["r"], rewards)  # under NEXT_STEP, every second would be nothing
        assert (infos["episode"]["l"] == 1).all()


def test_gymnasium_s_infos_one_by_one_take_the_numpy_mode(world):
    plain, env = (CorruptionVectorEnv(world, array="numpy") for _ in range(2))
    plain.reset()
    one_by_one = DictInfoToList(env)
    assert [info["index"] for info in one_by_one.reset()[1]] == world.rows(0).tolist()
    *_, expected = plain.step(actions(plain).numpy())
    *_, infos = one_by_one.step(actions(env).numpy())
    assert [info["index"] for info in infos] == expected["index"].tolist()
    assert all(set(info["figures"]) == {"learner/loss"} for info in infos)


def test_misuse(world):
    with pytest.raises(ValueError, match="torch or numpy, got 'jax'"):
        CorruptionVectorEnv(world, array="jax")
    env = CorruptionVectorEnv(world)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(actions(env))
    env.reset()
    with pytest.raises(ValueError, match="needs 6 integers per action, got 5"):
        env.step(actions(env)[:, 1:])


class Waits(TorchDispatchMode):
    """Fails where the host would wait for the device: a value is read, or a shape depends on values."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        assert op.overloadpacket not in (aten._local_scalar_dense, aten.nonzero, aten.equal, aten.masked_select)
        return op(*args, **(kwargs or {}))


def test_no_step_reads_a_value(world):
    env = CorruptionVectorEnv(world)
    env.reset()
    row = actions(env)
    with Waits():
        env.step(row)
        with pytest.raises(AssertionError):
            row.sum().item()
