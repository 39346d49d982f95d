"""The policy network in Stable-Baselines3's hands is the policy network."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO

import policy
from benchmarks.policy_step import Bandit
from configs.policy import PolicyConfig
from env.actions import from_vector, observation_space, space, to_vector
from policy.actor import CorruptionActorCriticPolicy, CorruptionBits
from policy.algorithm import Reinforce
from policy.network import PolicyNetwork

CONFIG = PolicyConfig(grid=2, width=8, mask_ratio=0.4)


def actor(size=8, **settings):
    torch.manual_seed(0)
    settings = {"network_config": CONFIG} | settings
    acting = CorruptionActorCriticPolicy(observation_space(size), space(2), lambda _: 1e-3, **settings)
    for parameter in acting.parameters():  # a new network treats all images alike
        torch.nn.init.normal_(parameter, std=0.3)
    return acting


def pixels(n=6, size=8):
    return torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(1)).byte()


def test_distribution_is_that_of_the_network():
    acting, x = actor(), pixels()
    pi = acting.network(x.float() / 255)
    bits = acting.get_distribution(x)
    vector = bits.sample()
    assert vector.shape == (6, 6)
    assert all(row in space(2) for row in vector.numpy())
    action = from_vector(vector, 2)
    assert torch.equal(bits.log_prob(vector), pi.log_prob(action))
    assert torch.equal(bits.log_prob(vector.float()), pi.log_prob(action))  # as rollout buffers keep it
    assert torch.equal(bits.entropy(), pi.entropy())
    assert torch.equal(bits.mode(), to_vector(pi.mode()))
    assert torch.equal(bits.get_actions(deterministic=True), bits.mode())


def test_samples_come_from_the_global_generator_and_follow_the_probabilities():
    acting, x = actor(), pixels()
    torch.manual_seed(3)
    drawn = acting.get_distribution(x).sample()
    torch.manual_seed(3)
    assert torch.equal(acting.get_distribution(x).sample(), drawn)
    bits = acting.get_distribution(x[:1].expand(4000, -1, -1, -1))
    p = bits.distribution.probabilities()
    expected = torch.cat([p["mask"][0].flatten(), p["downsample"][0] @ torch.arange(3.0)[:, None], p["decolorize"][:1]])
    assert torch.allclose(bits.sample().float().mean(dim=0), expected, atol=0.05)


def test_parameters_make_actions_and_log_probabilities():
    pi = actor().network(pixels().float() / 255)
    bits = CorruptionBits(2)
    actions, log_prob = bits.log_prob_from_params(pi)
    assert torch.equal(log_prob, pi.log_prob(from_vector(actions, 2)))
    assert torch.equal(bits.actions_from_params(pi, deterministic=True), to_vector(pi.mode()))


def test_forward_and_evaluate_agree():
    acting, x = actor(), pixels()
    actions, values, log_prob = acting(x)
    again, same, entropy = acting.evaluate_actions(x, actions)
    assert values.shape == (6, 1)
    assert torch.equal(values, again)
    assert torch.equal(values, acting.predict_values(x))
    assert torch.equal(log_prob, same)
    assert entropy.shape == (6,)


def test_predict_takes_one_image_or_many():
    acting, x = actor(), pixels().numpy()
    many, _ = acting.predict(x, deterministic=True)
    one, _ = acting.predict(x[0], deterministic=True)
    assert many.shape == (6, 6)
    assert np.array_equal(one, many[0])
    assert one in space(2)


def test_network_and_its_state_are_those_of_run_rl():
    torch.manual_seed(0)
    acting = CorruptionActorCriticPolicy(observation_space(8), space(2), lambda _: 1e-3, CONFIG)
    torch.manual_seed(0)
    network = PolicyNetwork(CONFIG, 8)
    state = acting.network.state_dict()
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_policy_survives_saving(tmp_path):
    acting, x = actor(), pixels()
    acting.save(tmp_path / "policy.pth")
    loaded = CorruptionActorCriticPolicy.load(tmp_path / "policy.pth", device="cpu")
    assert loaded.network_config == CONFIG
    for one, other in zip(acting(x, deterministic=True), loaded(x, deterministic=True), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("algorithm", "settings"), [(A2C, {"n_steps": 2}), (PPO, {"n_steps": 2, "batch_size": 16, "n_epochs": 2})]
)
def test_unmodified_algorithms_train_the_network(algorithm, settings, tmp_path):
    model = algorithm(
        CorruptionActorCriticPolicy,
        Bandit(8, 8, 2),
        policy_kwargs={"network_config": CONFIG},
        seed=0,
        device="cpu",
        **settings,
    )
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(48)
    after = model.policy.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    for name in ("network.mask_head.common", "network.trunk.stages.0.0.weight", "value_net.value.weight"):
        assert not torch.equal(before[name], after[name])
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    assert all(torch.equal(value, after[name]) for name, value in loaded.policy.state_dict().items())


def test_configuration_may_be_left_out():
    acting = CorruptionActorCriticPolicy(observation_space(8), space(2), lambda _: 1e-3)
    assert acting.network_config == PolicyConfig(grid=2)


@pytest.mark.parametrize(
    ("observations", "actions", "config", "message"),
    [
        (observation_space(8), space(4), CONFIG, "the network's grid is 2, that of the actions is 4"),
        (observation_space(8), space(2), PolicyConfig(grid=2, mask="budget"), "one bit per cell"),
        (observation_space(8), spaces.MultiDiscrete([2, 2, 2, 2, 4, 2]), None, "actions must be"),
        (observation_space(8), spaces.MultiDiscrete([3, 2]), None, "actions must be"),
        (observation_space(8), spaces.MultiBinary(6), None, "actions must be"),
        (spaces.Box(0, 1, (3, 8, 8)), space(2), CONFIG, "square images of bytes"),
        (spaces.Box(0, 255, (3, 8, 4), np.uint8), space(2), CONFIG, "square images of bytes"),
        (spaces.Discrete(3), space(2), CONFIG, "square images of bytes"),
    ],
)
def test_what_does_not_fit_is_refused(observations, actions, config, message):
    with pytest.raises(ValueError, match=message):
        CorruptionActorCriticPolicy(observations, actions, lambda _: 1e-3, config)


def test_the_network_alone_needs_no_stable_baselines3():
    code = "import sys, policy, policy.network; assert 'stable_baselines3' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_offers_both_classes():
    assert policy.Reinforce is Reinforce
    assert policy.CorruptionActorCriticPolicy is CorruptionActorCriticPolicy
    with pytest.raises(AttributeError, match="nonsense"):
        policy.__getattr__("nonsense")
