"""`env:CorruptionPolicy-v0` is found by Gymnasium, without loading torch before it is made."""

import importlib
import subprocess
import sys
import types

import gymnasium
import pytest

import env
from env.single import CorruptionEnv
from env.vector import CorruptionVectorEnv

NAME = "env:CorruptionPolicy-v0"


@pytest.fixture
def system(monkeypatch, make_world):
    """What the entry points name, with a world of its own."""
    asked = []

    def single_environment(flags=(), frozen_learner=True, render_mode=None):
        asked.append(flags)
        return CorruptionEnv(make_world(), frozen_learner=frozen_learner, render_mode=render_mode)

    def vector_environment(num_envs, flags=(), array="torch", frozen_learner=False):
        asked.append(flags)
        return CorruptionVectorEnv(make_world(batch=num_envs), array=array, frozen_learner=frozen_learner)

    module = types.ModuleType("system")
    module.single_environment, module.vector_environment = single_environment, vector_environment
    monkeypatch.setitem(sys.modules, "system", module)
    return asked


def test_make(system):
    flags = ["--data", "digits"]
    single = gymnasium.make(NAME, flags=flags, render_mode="rgb_array")
    single.reset(seed=0)
    _, _, terminated, truncated, _ = single.step(single.action_space.sample())
    assert (terminated, truncated) == (True, False)  # a time limit would call it a truncation
    assert single.render().shape == (8, 24, 3)
    assert system == [flags]


def test_make_vec(system):
    env = gymnasium.make_vec(NAME, num_envs=3, array="numpy")
    assert isinstance(env, CorruptionVectorEnv)
    assert env.reset(seed=0)[0].shape == (3, 3, 8, 8)
    assert env.spec.id == "CorruptionPolicy-v0"


def test_make_vec_of_single_environments(system):
    """Gymnasium's own vector environment around them works as well, only slower."""
    mode = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
    env = gymnasium.make_vec(NAME, num_envs=2, vectorization_mode="sync", vector_kwargs=mode)
    env.reset(seed=0)
    _, rewards, *_, infos = env.step(env.action_space.sample())
    assert (rewards > 0).all()
    assert infos["_final_obs"].all()


def test_importing_twice_does_not_warn():
    importlib.reload(env)
    spec = gymnasium.spec("CorruptionPolicy-v0")
    assert (spec.entry_point, spec.vector_entry_point) == ("system:single_environment", "system:vector_environment")
    assert spec.nondeterministic is False
    assert spec.max_episode_steps is None


def test_a_fresh_interpreter_finds_it_without_torch():
    code = (
        "import gymnasium, sys\n"
        "from gymnasium.envs.registration import _find_spec\n"
        f"print(_find_spec({NAME!r}).entry_point, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["system:single_environment", "False"]
