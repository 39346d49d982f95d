"""`frozen_learner` on the real system: a step leaves everything as it was, bit for bit."""

import copy
from pathlib import Path

import pytest
import torch

from configs.reading import read
from configs.run import RunConfig
from env import reference
from env.actions import to_vector
from env.vector import CorruptionVectorEnv
from system import System
from training import structure
from training.seeding import generator_at

CPU = torch.device("cpu")
SMOKE = Path(__file__).parents[2] / "configs" / "smoke.yaml"
TINY = ("--config", str(SMOKE), "--device", "cpu", "--schedule.batch", "16", "--reward.reference.batch", "16")
SETTINGS = (
    "--reward loss-slope",
    "--reward prediction-gain",
    "--reward loss-slope --reward.measured-on training",
    "--reward loss-slope --loss spherical",
)


@pytest.fixture(params=SETTINGS)
def world(request, monkeypatch):
    monkeypatch.setattr(reference, "DRAWS", 1)
    return System(read(RunConfig, [*TINY, *request.param.split()], prog="", description=""), CPU).world


def state(world):
    """Tensors and outline of each part that a turn of the learner changes."""
    return {name: structure.split(copy.deepcopy(part.state_dict())) for name, part in world.learning.items()}


def changed(world, before):
    """The parts that are no longer what they were."""

    def same(now, then):
        bits = [(tensor.dtype, tensor.numpy().tobytes()) for tensor in now[0].values()]
        return now[1] == then[1] and bits == [(tensor.dtype, tensor.numpy().tobytes()) for tensor in then[0].values()]

    return {name for name, part in state(world).items() if not same(part, before[name])}


def steps(env, count=2):
    """The rewards of the first steps, whatever was done before."""
    env.reset(seed=0)
    actions = (env.world.prior(env.world.batch, generator_at(9, step, "actions", CPU)) for step in range(count))
    return [env.step(to_vector(action))[1] for action in actions]


def test_a_frozen_learner_is_put_back_whole_however_often_it_steps(world):
    for turn in range(2):  # as it is new, and with a past
        before = state(world)
        env = CorruptionVectorEnv(world, frozen_learner=True)
        paid = steps(env)
        assert changed(world, before) == set()
        assert all(torch.equal(again, first) for again, first in zip(steps(env), paid, strict=True))
        world.warm_up(turn + 1)


def test_every_part_that_is_put_back_does_change_in_a_step(world):
    """Or the test above would say nothing of it."""
    before = state(world)
    steps(CorruptionVectorEnv(world))
    assert changed(world, before) == {name for name, (tensors, _) in before.items() if tensors or name != "reward"}
