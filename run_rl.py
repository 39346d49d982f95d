"""Learn which corruption makes the best positive pairs: `python run_rl.py --reward loss-slope`.

The one place where policy, generator and learner meet. A policy corrupts each image, the frozen CAMNet decorrupts it
twice, SimCLR learns from the pairs, and REINFORCE pays the policy for what the pairs did to a held-out loss. What
departs from the method's first wording: the loss is measured on pairs that the policy cannot touch, and each image is
paid its own share of its slope (README, "Why the reward is measured where it is").
"""

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from camnet import frozen
from configs.errors import UsageError
from configs.reading import read
from configs.run import RunConfig
from contrastive.encoder import Learner
from contrastive.evaluate import Accuracy, evaluating, measure
from contrastive.ntxent import ntxent, soft_nearest_neighbor
from env import images, pictures, reference, rewards
from env.corruption import corrupt
from policy import export
from policy.baseline import Baseline
from policy.fixed import FixedPolicy
from policy.network import PolicyNetwork
from policy.reinforce import RunningScale, advantage, ratio_penalty, reinforce_loss
from training import curves, device, tags
from training.descent import Descent
from training.folder import RunFolder
from training.run import Run, Stateful
from training.schedule import one_cycle
from training.seeding import generator_at, seeded

MAY_DIFFER = frozenset({"schedule.steps", "schedule.max-minutes", "device", "runs", "name"})
"""Settings that may change when a run goes on."""


def train(config: RunConfig, run: Run, s: "System") -> None:
    """Let the learner and the policy take turns: the algorithm, top to bottom."""
    for step in run.steps():
        share = one_cycle(run.progress)  # of both step sizes
        with run.watch("data"):
            random = generator_at(config.seed, step, "step", s.device)  # all draws below: functions of (seed, step)
            x = s.data.train.batch(config.seed, step, config.schedule.batch)
        with run.watch("policy"):
            pi = s.policy(x)  # π_θ(· | x)
            a = pi.sample(random)
        with run.watch("generator"):
            v1, v2 = s.generator.two_views(corrupt(x, a), random)  # g(c(x, a), z₁), g(c(x, a), z₂)
        with run.watch("learner"):
            losses = s.contrast(v1, v2)  # ℓ_i of f_φ
        moment = s.moment(v1, v2, losses.detach(), step)
        turn = s.reward is not None and step >= config.schedule.warmup and step % config.schedule.policy_every == 0
        if turn:
            with run.watch("reward"):
                s.reward.before(moment)
        with run.watch("learner"):
            level = s.reference_level(moment, run)
            norm = s.descend_learner.step(losses.mean(), share)
        run.note({"learner/loss": losses.mean(), "learner/grad_norm": norm} | s.reference_slope(moment, level, run))
        if turn:
            with run.watch("reward"):
                r = s.reward.after(moment)
                A = s.scale(advantage(r, s.baseline.value(r)))
            with run.watch("policy"):
                gain = -reinforce_loss(pi.log_prob(a), A) + config.policy.entropy_weight * pi.entropy().mean()
                guard = ratio_penalty(pi.mask_ratio(), *config.policy.ratio_range).mean()
                s.descend_policy.step(config.policy.ratio_weight * guard - gain, share)
