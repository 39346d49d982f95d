"""Reinforce: the update of run_rl.py's loop, in the clothes of Stable-Baselines3."""

import json
import zipfile

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecMonitor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from benchmarks import policy_step
from benchmarks.policy_step import Bandit, TorchBandit
from configs.policy import PolicyConfig
from policy.actor import CorruptionActorCriticPolicy
from policy.algorithm import Reinforce
from policy.network import PolicyNetwork
from policy.reinforce import ratio_penalty
from training.descent import Descent
from training.seeding import generator_at

CONFIG = PolicyConfig(grid=2, width=8, mask_ratio=0.4)
N = 8


def reinforce(env=None, config=CONFIG, **settings):
    settings = {"seed": 0, "device": "cpu"} | settings
    env = env or TorchBandit(N, 8, 2)
    return Reinforce("CorruptionPolicy", env, policy_kwargs={"network_config": config}, **settings)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.policy.network.parameters()])


class Rewards(BaseCallback):
    """Keeps the mean reward of each step."""

    def _on_training_start(self):
        self.means = []

    def _on_step(self):
        self.means.append(float(self.locals["rewards"].mean()))
        return True


@pytest.mark.parametrize("baseline", ["batch", "ema", "critic"])
def test_learns_a_planted_corruption(baseline):
    bandit = TorchBandit(64, 8, 2)
    model = reinforce(bandit, baseline=baseline, learning_rate=0.02, ratio_weight=0.0)
    p = model.policy.get_distribution(bandit.pixels).distribution.probabilities()
    assert p["decolorize"].max() < 0.2
    model.learn(64 * 60)
    p = model.policy.get_distribution(bandit.pixels).distribution.probabilities()
    assert p["decolorize"].min() > 0.8
    assert p["mask"][:, :, 0].min() > 0.7 > 0.3 > p["mask"][:, :, 1].max()


def test_mask_ratio_is_held_in_its_range():
    def ratio(weight):
        model = reinforce(learning_rate=0.02, ratio_range=(0.1, 0.15), ratio_weight=weight).learn(N * 40)
        return model.policy.get_distribution(model.env.pixels).distribution.mask_ratio().mean()

    assert 0.1 < ratio(100.0) < 0.2
    assert ratio(0.0) > 0.35


@pytest.mark.parametrize("paid", [1.0, 50.0])
@pytest.mark.parametrize("baseline", ["batch", "none"])
def test_one_update_is_that_of_the_loop(baseline, paid):
    env = TorchBandit(N, 8, 2)
    pay, env.pay = env.pay, lambda action: paid * pay(action)
    settings = {"entropy_weight": 0.1, "ratio_range": (0.0, 0.2), "ratio_weight": 3.0, "max_grad_norm": 0.7}
    model = reinforce(env, baseline=baseline, **settings)
    torch.manual_seed(0)
    network = PolicyNetwork(CONFIG, 8)
    descent = Descent(network, 3e-3, clip=0.7)
    pi = network(env.pixels.float() / 255)
    action = pi.sample(generator_at(0, 0, "actions", torch.device("cpu")))
    r = env.pay(action)
    A = r - r.mean() if baseline == "batch" else r
    A = A / A.square().mean().sqrt()
    loss = -(pi.log_prob(action) * A).mean() - 0.1 * pi.entropy().mean()
    norm = descent.step(loss + 3.0 * ratio_penalty(pi.mask_ratio(), 0.0, 0.2).mean())
    assert norm > 0.7  # so the clip matters
    model.learn(N)
    expected = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    assert torch.allclose(weights(model), expected, rtol=0, atol=1e-6)


def test_torch_and_numpy_paths_take_the_same_steps():
    one, other = reinforce(TorchBandit(N, 8, 2)).learn(5 * N), reinforce(Bandit(N, 8, 2)).learn(5 * N)
    assert not torch.equal(weights(one), weights(reinforce()))
    assert torch.equal(weights(one), weights(other))


def test_wrappers_are_not_passed_by():
    class Refuses(TorchBandit):
        def step_torch(self, action):
            raise AssertionError("past its wrapper")

    model = reinforce(VecMonitor(Refuses(N, 8, 2))).learn(2 * N)
    assert torch.equal(weights(model), weights(reinforce().learn(2 * N)))


def test_nothing_waits_for_the_device_between_lines_of_the_log(monkeypatch):
    model = reinforce().learn(N)

    def waits(*_):
        raise AssertionError("the host waits for the device")

    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, waits)
    model.learn(3 * N, log_interval=None, reset_num_timesteps=False)
    with pytest.raises(AssertionError, match="waits"):
        model.dump_logs()


@pytest.mark.parametrize("baseline", ["ema", "critic"])
def test_a_loaded_model_goes_on_as_if_it_had_never_stopped(baseline, tmp_path):
    uncut = reinforce(baseline=baseline).learn(8 * N)
    first = reinforce(baseline=baseline).learn(4 * N)
    first.save(tmp_path / "model")
    torch.manual_seed(99)  # what else has been drawn must not matter
    second = Reinforce.load(tmp_path / "model", env=TorchBandit(N, 8, 2), device="cpu")
    assert torch.equal(weights(first), weights(second))
    assert str(second.estimator.state_dict()) == str(first.estimator.state_dict())
    assert second.estimator.state_dict()["scaling"]["rms"]["weight"] > 0
    second.learn(4 * N, reset_num_timesteps=False)
    assert second.num_timesteps == uncut.num_timesteps
    assert torch.equal(weights(uncut), weights(second))
    assert str(uncut.estimator.state_dict()) == str(second.estimator.state_dict())


def test_a_saved_model_predicts_alike_without_an_environment(tmp_path):
    model = reinforce().learn(2 * N)
    model.save(tmp_path / "model")
    loaded = Reinforce.load(tmp_path / "model", device="cpu")
    p, q = (m.policy.get_distribution(model.env.pixels).distribution.probabilities() for m in (model, loaded))
    assert all(torch.equal(p[name], q[name]) for name in p)
    assert loaded.predict(model.env.pixels[0].numpy(), deterministic=True)[0].shape == (6,)


def test_a_saved_model_holds_settings_and_weights_alone(tmp_path):
    env = TorchBandit(512, 16, 2)
    env.learner = nn.Linear(512, 512)
    model = reinforce(env).learn(2 * 512)
    model.save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = json.loads(archive.read("data"))
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    assert {"policy.pth", "policy.optimizer.pth", "estimator.pth"} < sizes.keys()
    # By name, so that whatever is hung on the algorithm some day is looked at before it is saved.
    own = {"baseline", "momentum", "ratio_range", "ratio_weight", "drawn_seed"}
    stock = set(vars(model)) - {"_turn", "_noted", "descent", "estimator", "policy", "env", "rollout_buffer"}
    assert own < data.keys() <= stock
    assert not {"_last_obs", "_last_episode_starts", "_last_original_obs"} & data.keys()
    assert sizes["data"] < 40_000  # the images alone are 393,216 bytes
    assert sum(sizes.values()) < 500_000  # the learner alone is 1 MB


def test_callbacks_run(tmp_path):
    callbacks = [
        CheckpointCallback(2, str(tmp_path), name_prefix="model"),
        EvalCallback(TorchBandit(N, 8, 2), eval_freq=2, n_eval_episodes=N, warn=False, verbose=0),
        rewards := Rewards(),
    ]
    model = reinforce().learn(4 * N, callbacks)
    assert {path.name for path in tmp_path.iterdir()} == {f"model_{k * N}_steps.zip" for k in (2, 4)}
    assert callbacks[1].last_mean_reward > 0
    assert len(rewards.means) == 4
    assert Reinforce.load(tmp_path / f"model_{2 * N}_steps", env=model.env).num_timesteps == 2 * N


def test_training_stops_when_a_callback_says_so():
    model = reinforce().learn(100 * N, StopTrainingOnMaxEpisodes(3))
    assert model.num_timesteps == 3 * N
    assert model._n_updates == 2


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")  # the bar itself is one of tqdm's experiments
def test_progress_bar_runs():
    pytest.importorskip("rich")
    assert reinforce().learn(2 * N, progress_bar=True).num_timesteps == 2 * N


@pytest.mark.parametrize("bandit", [Bandit, TorchBandit])
def test_curves_are_written_at_every_line_of_the_log(bandit, tmp_path):
    rewards = Rewards()
    reinforce(bandit(N, 8, 2), tensorboard_log=str(tmp_path)).learn(6 * N, rewards, log_interval=2)
    curves = EventAccumulator(str(tmp_path / "Reinforce_1")).Reload()
    points = curves.Scalars("rollout/ep_rew_mean")
    assert [point.step for point in points] == [2 * N, 4 * N, 6 * N]
    expected = [np.mean(rewards.means[:k]) for k in (2, 4, 6)]
    assert np.allclose([point.value for point in points], expected, atol=1e-6)
    assert all(point.value == 1 for point in curves.Scalars("rollout/ep_len_mean"))
    tags = set(curves.Tags()["scalars"])
    train = ("policy_gradient_loss", "entropy_loss", "grad_norm", "advantage_std", "learning_rate")
    assert {f"train/{name}" for name in train} <= tags
    assert ("learner/loss" in tags) == (bandit is TorchBandit)
    if bandit is TorchBandit:  # the mean of the steps since the last line
        assert np.isclose(curves.Scalars("learner/loss")[1].value, -np.mean(rewards.means[2:4]))


def test_learning_rate_follows_its_schedule():
    model = reinforce(learning_rate=lambda remaining: 0.01 * remaining)
    model.learn(4 * N)
    assert np.isclose(model.policy.optimizer.param_groups[0]["lr"], 0.0)
    before = weights(model)
    model.learn(2 * N)
    assert not torch.equal(weights(model), before)


def test_batchnorm_is_refused():
    class Normalized(CorruptionActorCriticPolicy):
        def _build(self, lr_schedule):
            super()._build(lr_schedule)
            self.network.trunk.stages[0][1] = nn.BatchNorm2d(8)

    with pytest.raises(ValueError, match="BatchNorm"):
        Reinforce(Normalized, TorchBandit(N, 8, 2), policy_kwargs={"network_config": CONFIG}, device="cpu")


def test_what_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="CorruptionActorCriticPolicy"):
        Reinforce(ActorCriticPolicy, TorchBandit(N, 8, 2), device="cpu")
    model = reinforce(_init_setup_model=False)
    model.baseline = "table"
    with pytest.raises(ValueError, match="baseline must be one of"):
        model._setup_model()
    with pytest.raises(ValueError, match="more than one environment"):
        reinforce(TorchBandit(1, 8, 2)).learn(2)


def test_seeding_leaves_cudnn_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    model = reinforce()
    model.device = torch.device("cuda")
    model.set_random_seed(0)
    assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.deterministic


def test_benchmark_ends_with_its_figures(capsys):
    threads = str(torch.get_num_threads())
    small = ["--envs", "4", "--size", "8", "--grid", "2", "--width", "8", "--steps", "1", "--repeats", "1"]
    policy_step.main([*small, "--threads", threads])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["bare_4_to_bare_ratio"] == 1
    assert all(figures[f"{name}_4_ms"] > 0 for name in ("bare", "reinforce", "a2c", "ppo"))
