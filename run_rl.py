"""Learn which corruption makes the best positive pairs: `python run_rl.py --reward loss-slope`.

The one place where policy, generator and learner meet. A policy corrupts each image, the frozen CAMNet decorrupts it
twice, SimCLR learns from the pairs, and REINFORCE pays the policy for what the pairs did to a held-out loss. What
departs from the method's first wording: that loss is measured on pairs that the policy cannot touch, and each image is
paid its own share of its slope (README, "Why the reward is measured where it is").
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from camnet import frozen
from configs.errors import UsageError
from configs.reading import read
from configs.run import RunConfig
from contrastive.encoder import Learner
from contrastive.evaluate import QUERIES, accuracies, evaluating, knn_top1
from contrastive.ntxent import ntxent, soft_nearest_neighbor
from env import images, pictures, rewards
from env.corruption import corrupt
from env.distribution import CorruptionDistribution
from env.engine import Engine
from env.reference import Reference, corrupted_pairs, labelled_images
from policy import export
from policy.baseline import Baseline
from policy.fixed import FixedPolicy
from policy.network import PolicyNetwork
from policy.reinforce import MovingAverage, RunningScale, advantage, ratio_penalty, reinforce_loss
from training import curves, device, tags
from training.descent import Descent
from training.folder import RunFolder
from training.ranks import require_single
from training.run import Run, Stateful
from training.schedule import one_cycle
from training.seeding import generator_at, seeded

MAY_DIFFER = frozenset(
    {"schedule.steps", "schedule.max-minutes", "device", "runs", "name", "data.root", "data.download"}
)
"""Settings that may change when a run goes on."""
PICTURED = 8
"""Images in the picture of views."""


def train(config: RunConfig, run: Run, s: "System") -> None:
    """Let the learner and the policy take turns: the algorithm, top to bottom."""
    schedule = config.schedule
    for step in run.steps():
        share = one_cycle(run.progress)  # of both step sizes
        random = generator_at(config.seed, step, "step", s.device)  # every draw is a function of (seed, step)
        with run.watch("data"):
            x = s.data.train.batch(config.seed, step, schedule.batch)
        with run.watch("policy"):
            pi = s.policy(x)  # π_θ(· | x)
            a = pi.sample(random)
        with run.watch("generator"):
            v1, v2 = s.generator.two_views(corrupt(x, a), random)  # g(c(x, a), z₁), g(c(x, a), z₂)
        turn = s.engine.reward is not None and step >= schedule.warmup and step % schedule.policy_every == 0
        r, figures = s.engine.learn(  # one step of f_φ on the pairs; what each image is paid for it
            v1, v2, step, share, rewarded=turn, watched=run.due(schedule.log_every), watch=run.watch
        )
        run.note(figures | rates(pi))
        if r is not None:
            with run.watch("policy"):
                A = s.scale(advantage(r, s.baseline.value(r)))
                gain = config.policy.entropy_weight * pi.entropy().mean() - reinforce_loss(pi.log_prob(a), A)
                guard = config.policy.ratio_weight * ratio_penalty(pi.mask_ratio(), *config.policy.ratio_range).mean()
                norm = s.descend_policy.step(guard - gain, share)
            run.note(s.reward_figures(r) | {"reward/advantage_std": A.std(), "policy/grad_norm": norm})
        if run.due(schedule.evaluate_every):
            run.note({"evaluate/knn_top1": s.validation_accuracy()})
            run.logbook.picture("views", s.sheet(s.policy).grid(), step)


class System:
    """All that takes part in a run, built from its settings; equal seeds build it equal."""

    def __init__(self, config: RunConfig, where: torch.device) -> None:
        self.config, self.device = config, where
        self.data = images.load(config.data, where)
        self.generator_name = frozen.resolve(config.generator, config.data.name)
        self.generator = frozen.find(self.generator_name, config.data, where)
        self.check()
        self.policy, self.learner = self.new_policy(), self.new_learner()
        self.baseline = Baseline(config.reward.baseline_kind, config.reward.momentum, where)
        self.scale = RunningScale.start(config.reward.momentum, where)
        self.reward_average = MovingAverage.start(config.reward.momentum, where)
        contrastive, weights = config.contrastive, list(self.learner.parameters())
        self.engine = Engine(
            self.learner,
            Descent(self.learner, contrastive.learning_rate, contrastive.weight_decay),
            lambda u1, u2: ntxent(u1, u2, contrastive.temperature),
            self.reference(),
            self.held_out_loss,
            rewards.build(config.reward, weights, where),
        )
        if isinstance(self.policy, PolicyNetwork):
            self.descend_policy = Descent(self.policy, config.policy.learning_rate, clip=config.policy.clip_norm)

    def check(self) -> None:
        """Refuse settings that do not fit the images or the generator, before any work."""
        if self.config.schedule.batch > len(self.data.train):
            raise UsageError(
                f"--schedule.batch {self.config.schedule.batch}: there are only {len(self.data.train)} training images"
            )
        frozen.require_fit(self.generator, self.generator_name, self.config.data)

    def new_policy(self) -> "PolicyNetwork | FixedPolicy":
        """The policy as it is before training."""
        if self.config.policy.name == "fixed":
            return FixedPolicy(self.config.policy)
        with seeded(self.config.seed, "policy"):
            return PolicyNetwork(self.config.policy, self.config.data.size).to(self.device)

    def new_learner(self) -> Learner:
        """The learner as it is before training."""
        with seeded(self.config.seed, "learner"):
            return Learner(self.config.contrastive, self.config.data.size).to(self.device)

    def reference(self) -> Reference:
        """The held-out examples whose loss the reward follows."""
        settings, seed = self.config.reward.reference, self.config.seed
        if settings.kind == "labels":
            return labelled_images(settings, self.data.validation, seed)
        grid = self.config.policy.grid
        return corrupted_pairs(settings, self.data.validation, self.generator.two_views, grid, seed)

    def held_out_loss(self, learner: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        """The reference loss, in evaluation mode: the measurement leaves BatchNorm's statistics alone."""
        temperature = self.config.contrastive.temperature
        with evaluating(learner):
            if self.config.reward.reference.kind == "labels":
                return soft_nearest_neighbor(learner(first), second, temperature).mean()
            u1, u2 = learner(torch.cat([first, second])).chunk(2)
            return ntxent(u1, u2, temperature).mean()

    def parts(self) -> dict[str, Stateful]:
        """Everything that a step changes."""
        parts: dict[str, Any] = {"learner": self.learner, "learner's descent": self.engine.descent}
        if self.engine.reward is not None:
            parts |= {"policy": self.policy, "policy's descent": self.descend_policy}
            parts |= {"reward": self.engine.reward}
            parts |= {"baseline": self.baseline, "scale": self.scale, "reward average": self.reward_average}
        return parts

    def reward_figures(self, r: Tensor) -> dict[str, Tensor]:
        """The reward's curves: its mean over the batch, and the moving average of that."""
        self.reward_average.update(r.mean())
        return {"reward/raw": r.mean(), "reward/average": self.reward_average.value}

    def validation_accuracy(self) -> Tensor:
        """The kNN accuracy on validation images, without waiting for the device."""
        return knn_top1(self.learner, self.data.train, self.data.validation)

    @torch.no_grad()
    def sheet(self, policy: "PolicyNetwork | FixedPolicy") -> pictures.Sheet:
        """The same few test images through a policy's corruption and two decorruptions."""
        random = generator_at(self.config.seed, 0, "pictures", self.device)
        x = self.data.test.images(torch.arange(PICTURED, device=self.device))
        corrupted = corrupt(x, policy(x).sample(random))
        return pictures.Sheet(x, corrupted, *self.generator.two_views(corrupted, random))


def rates(pi: CorruptionDistribution) -> dict[str, Tensor]:
    """How often a policy corrupts, averaged over images: the curves of the policy."""
    p = pi.probabilities()
    return {
        "policy/entropy": pi.entropy().mean(),
        "policy/mask_ratio": pi.mask_ratio().mean(),
        "policy/p_decolorize": p["decolorize"].mean(),
        "policy/p_downsample_2": p["downsample"][:, 1].mean(),
        "policy/p_downsample_4": p["downsample"][:, 2].mean(),
    }


def finish(config: RunConfig, run: Run, s: System, sha256_before: str) -> dict[str, Any]:
    """Measure on the test images, write pictures, the exported policy and summary.json; returns the summary."""
    with torch.no_grad():
        final = {name: value.item() for name, value in rates(s.policy(s.data.test.spread(QUERIES))).items()}
    untrained = accuracies(s.new_learner(), s.data.train, s.data.test)
    rewards_seen = run.logbook.history().get("reward/average", ([], [None]))[1]
    summary = {
        "seconds": round(run.seconds, 2),
        "steps": run.step,
        "images_per_second": round(run.step * config.schedule.batch / run.seconds, 1),
        **accuracies(s.learner, s.data.train, s.data.test),
        **{f"{name}_untrained": value for name, value in untrained.items()},
        "mask_ratio": final["policy/mask_ratio"],
        "p_decolorize": final["policy/p_decolorize"],
        "p_downsample": [final["policy/p_downsample_2"], final["policy/p_downsample_4"]],
        "policy": config.policy.name,
        "reward": config.reward.name,
        "reward_average": rewards_seen[-1],
        "measured_on": config.reward.measured_on,
        "credit": config.reward.credit,
        "reference": config.reward.reference.kind,
        "seed": config.seed,
        "generator": s.generator_name,
        "generator_file_sha256": s.generator.card.get("file_sha256"),
        "camnet_sha256_before": sha256_before,
        "camnet_sha256_after": s.generator.sha256(),
    }
    path = run.folder.path
    if isinstance(s.policy, PolicyNetwork):
        export.export(s.policy, path, {"run": path.name, "data": config.data.name, **summary})
    pictures.draw({"before training": s.sheet(s.new_policy()), "after training": s.sheet(s.policy)}, path / "views.png")
    curves.draw(run.logbook.history(), tags.PANELS, path / "curves.png")
    run.folder.write_json("summary.json", summary)
    return summary


def main(argv: list[str]) -> None:
    """Read the settings, open (or go on with) the run, train, finish, and print the table."""
    config = read(RunConfig, argv, prog="python run_rl.py", description=str(__doc__))
    require_single("run_rl.py")
    where = device.resolve(config.device)
    system = System(config, where)  # refuses what does not fit, before there is a folder
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
        )
        train(config, run, system)
        summary = finish(config, run, system, sha256_before)
        run.logbook.close()
    print(f"\n{folder.path}")
    for name, value in summary.items():
        print(f"  {name:22s} {value:.4g}" if isinstance(value, float) else f"  {name:22s} {value}")
    print(f"\ntensorboard --logdir {config.runs}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UsageError as error:
        sys.exit(f"run_rl.py: {error}")
    except KeyboardInterrupt:  # outside the steps, or pressed twice
        sys.exit("run_rl.py: interrupted; the same command goes on from the last checkpoint, if there is one")
