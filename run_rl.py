"""Learn which corruption makes the best positive pairs: `python run_rl.py --reward loss-slope`.

A policy corrupts each image, the frozen CAMNet decorrupts it twice, SimCLR learns from the pairs, and REINFORCE pays
the policy for what the pairs did to a held-out loss. What departs from the method's first wording: that loss is
measured on pairs that the policy cannot touch, and each image is paid its own share of its slope (README, "Why the
reward is measured where it is"). Who takes part is built in system.py.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from configs.errors import as_program
from configs.reading import read
from configs.run import RunConfig
from contrastive import export as backbone_export
from contrastive.accuracies import QUERIES, accuracies
from contrastive.features import BATCH
from env import pictures
from env.distribution import CorruptionDistribution
from env.engine import Turn
from policy import export as policy_export
from policy.reinforce import ratio_penalty
from policy.unlearned import Unlearned
from system import System
from training import curves, device, tags
from training.folder import SUMMARY, RunFolder
from training.memory import within_memory
from training.ranks import require_single
from training.run import Run
from training.schedule import one_cycle
from training.seeding import generator_at

if TYPE_CHECKING:
    from policy.stable import StableAlgorithm

MAY_DIFFER = frozenset(
    {"schedule.steps", "schedule.max-minutes", "device", "runs", "name", "data.root", "data.download"}
)
"""Settings that may change when a run goes on."""


def train(config: RunConfig, run: Run, s: System) -> None:
    """Let the learner and the policy take turns: the algorithm, top to bottom."""
    schedule = config.schedule
    for step in run.steps():
        share = one_cycle(run.progress)  # of both step sizes
        random = generator_at(config.seed, step, "step", s.device)  # every draw is a function of (seed, step)
        turn = Turn(share, policy_is_due(config, run, s), run.due(schedule.log_every), run.watch)
        with run.watch("data"):
            rows = s.world.rows(step)
            x = s.data.train.images(rows)
        with run.watch("policy"):
            pi = s.estimator.look(x, random) if turn.rewarded else s.policy(x)  # π_θ(· | x)
            # One corruption per image; where there is a reward, as many as the estimator compares.
            a = s.estimator.draw(pi, random) if turn.rewarded else [pi.sample(random)]
        with run.watch("generator"):
            v = s.world.decorrupt(x, a, random)  # g(c(x, a), z₁), g(c(x, a), z₂), ...
        with run.watch("views"):
            v = s.world.show(v, rows, random)  # those that the learner is to see, augmented
        r, figures = s.engine.learn(v, rows, step, turn)  # one step of f_φ on them; what each image is paid for it
        run.note(figures | rates(pi, config.policy.learns))
        if r is not None:
            with run.watch("policy"):
                loss, figures = s.estimator.loss(pi, a, r, x, rows)  # its gradient: minus that of the expected reward
                bonus = config.policy.entropy_weight * pi.entropy().mean()
                guard = config.policy.ratio_weight * ratio_penalty(pi.mask_ratio(), *config.policy.ratio_range).mean()
                norm = s.descend_policy.step(loss - bonus + guard, share)
            run.note(figures | s.reward_figures(r) | {"policy/grad_norm": norm})
        evaluate(config, run, s)


def train_stably(config: RunConfig, run: Run, s: System, stable: "StableAlgorithm") -> None:
    """The same turns with the policy in the hands of Stable-Baselines3: a batch and an update per step."""
    schedule = config.schedule
    for step in run.steps():
        share = one_cycle(run.progress)
        s.world.turn = Turn(share, True, run.due(schedule.log_every), run.watch)
        r, figures = stable.turn(step, share if policy_is_due(config, run, s) else 0.0)
        run.note(figures | s.reward_figures(r))
        if run.due(schedule.log_every):
            with torch.no_grad():
                run.note(rates(s.policy(s.data.train.images(s.world.rows(step))), True))
        evaluate(config, run, s)


def evaluate(config: RunConfig, run: Run, s: System) -> None:
    """Measure and picture what the step has come to, where that is due."""
    if run.due(config.schedule.evaluate_every):
        run.note({"evaluate/knn_top1": s.validation_accuracy()})
        run.logbook.picture("views", s.sheet(s.policy).grid(), run.step)


def policy_is_due(config: RunConfig, run: Run, s: System) -> bool:
    """Whether the policy has its turn in the step in hand."""
    schedule = config.schedule
    within = schedule.warmup <= run.step and run.progress < schedule.policy_until
    return s.reward is not None and within and run.step % schedule.policy_every == 0


def rates(pi: CorruptionDistribution, learns: bool) -> dict[str, Tensor]:
    """How often a policy corrupts, averaged over images: the curves of the policy."""
    p = pi.probabilities()
    figures = {
        "policy/mask_ratio": pi.mask_ratio().mean(),
        "policy/p_decolorize": p["decolorize"].mean(),
        "policy/p_downsample_2": p["downsample"][:, 1].mean(),
        "policy/p_downsample_4": p["downsample"][:, 2].mean(),
    }
    return figures | ({"policy/entropy": pi.entropy().mean()} if learns else {})


@torch.no_grad()
def final_rates(s: System) -> dict[str, float]:
    """`rates` of the policy on test images, part by part, so that they are never all held as floats."""
    test = s.data.test.thinned(QUERIES)
    parts = torch.arange(len(test), device=s.device).split(BATCH)
    found = [(len(rows) / len(test), rates(s.policy(test.images(rows)), False)) for rows in parts]
    return {name: sum(share * part[name].item() for share, part in found) for name in found[0][1]}


def finish(config: RunConfig, run: Run, s: System, sha256_before: str) -> dict[str, Any]:
    """Measure on the test images; write pictures, policy, backbone and summary.json; returns the summary."""
    path = run.folder.path
    known: dict[str, Any] = {
        "seconds": round(run.seconds, 2),
        "steps": run.step,
        "policy": config.policy.name,
        "reward": config.reward.name,
        "algorithm": config.algorithm,
        "estimator": config.policy.estimator,
        "baseline": config.reward.baseline,
        "measured_on": config.reward.measured_on,
        "credit": config.reward.credit,
        "reference": config.reward.reference.kind,
        "views": config.views.name,
        "loss": config.contrastive.loss,
        "encoder": config.contrastive.encoder,
        "augment_strength": config.augment_strength,
        "seed": config.seed,
        "generator": s.generator_name,
        "generator_file_sha256": s.generator.card.get("file_sha256"),
    }
    export(config, s, path, known, renew=False)  # first of all: no figure that fails may cost the weights
    final, untrained = final_rates(s), accuracies(s.new_learner(), s.data.train, s.data.test)
    rewards_seen = run.logbook.history().get("reward/average", ([], [None]))[1]
    summary = known | {
        "images_per_second": round(run.step * config.schedule.batch / run.seconds, 1),
        **accuracies(s.learner, s.data.train, s.data.test),
        **{f"{name}_untrained": value for name, value in untrained.items()},
        "mask_ratio": final["policy/mask_ratio"],
        "p_decolorize": final["policy/p_decolorize"],
        "p_downsample": [final["policy/p_downsample_2"], final["policy/p_downsample_4"]],
        "reward_average": rewards_seen[-1],
        "camnet_sha256_before": sha256_before,
        "camnet_sha256_after": s.generator.sha256(),
        "alarms": s.alarms.raised,
    }
    export(config, s, path, summary)
    pictures.draw({"before training": s.sheet(s.new_policy()), "after training": s.sheet(s.policy)}, path / "views.png")
    curves.draw(run.logbook.history(), tags.PANELS, path / "curves.png")
    run.folder.write_json(SUMMARY, summary)
    return summary


def export(config: RunConfig, s: System, path: Path, about: dict[str, Any], renew: bool = True) -> None:
    """Write the backbone and, where it can learn, the policy, with what their cards tell of the run.

    Without `renew`, weights that are there already stay with what their cards tell.
    """
    about = {"run": path.name, "data": config.data.told(), **about}
    backbone_export.export(s.learner, path, about, renew=renew)
    if not isinstance(s.policy, Unlearned):
        policy_export.export(s.policy, path, about, renew)


@within_memory("lower --schedule.batch or --views.count, or give a (smaller) --contrastive.chunk, under another --name")
def main(argv: list[str]) -> None:
    """Read the settings, open (or go on with) the run, train, finish, and print the table."""
    config = read(RunConfig, argv, prog="python run_rl.py", description=str(__doc__), resumes=True)
    require_single("run_rl.py")
    where = device.resolve(config.device)
    system = System(config, where)  # refuses what does not fit, before there is a folder
    for caution in config.cautions:
        print(caution, file=sys.stderr)
    sha256_before = system.generator.sha256()
    schedule = config.schedule
    with RunFolder.open(config.runs / config.run_name, config, MAY_DIFFER) as folder:
        run = Run(
            folder,
            system.parts(),
            tags.RUN,
            steps=schedule.steps,
            log_every=schedule.log_every,
            save_every=schedule.checkpoint_every,
            show=tags.SHOWN,
            max_minutes=schedule.max_minutes,
            device=where,
            check=system.alarms.check,
        )
        if system.stable:
            train_stably(config, run, system, system.stable)
        else:
            train(config, run, system)
        summary = finish(config, run, system, sha256_before)
        run.logbook.close()
    print(f"\n{folder.path}")
    for name, value in summary.items():
        print(f"  {name:22s} {value:.4g}" if isinstance(value, float) else f"  {name:22s} {value}")
    print(f"\ntensorboard --logdir {config.runs}")


if __name__ == "__main__":
    as_program("run_rl.py", main, "the same command goes on from the last checkpoint, if there is one")
