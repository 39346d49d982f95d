"""All that takes part in a run, built from its settings: where policy, generator and learner meet.

run_rl.py trains with it; the Gymnasium environment `CorruptionPolicy-v0` is the same system seen from outside.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from camnet import frozen
from camnet.fit import caution, require_fit
from configs.errors import UsageError
from configs.places import at_home
from configs.reading import read
from configs.run import RunConfig
from contrastive.accuracies import knn_top1
from contrastive.backbones import feature_length, takes_one_size
from contrastive.chance import chance
from contrastive.contrast import Contrast
from contrastive.encoder import Learner
from contrastive.features import evaluating
from contrastive.losses import ntxent
from contrastive.soft_nearest_neighbor import soft_nearest_neighbor
from contrastive.views import Choice
from env import images, pictures, rewards
from env.actions import CHOICES
from env.augment.expert import Expert
from env.corruption import Action, corrupt
from env.distribution import fixed_rates
from env.engine import Engine
from env.reference import HELD_OUT, Reference, corrupted_pairs, expert_pairs, labelled_images
from env.showing import Showing, untouched
from env.single import CorruptionEnv
from env.vector import CorruptionVectorEnv
from env.world import World
from policy import estimator
from policy.alarms import Alarms
from policy.build import LearnedPolicy, build
from policy.scaling import MovingAverage
from policy.start import start_from
from policy.unlearned import Unlearned
from training import device
from training.checkpoint import Stateful
from training.descent import Descent
from training.origin import Origin, Source, digest
from training.seeding import generator_at, seeded

if TYPE_CHECKING:
    from policy.stable import StableAlgorithm

PICTURED = 8
"""Images in the picture of views."""


class System:
    """Images, frozen generator, learner, policy and reward of one run; equal seeds build them equal."""

    def __init__(self, config: RunConfig, where: torch.device) -> None:
        self.config, self.device = config, where
        self.data = images.load(config.data, where)
        self.generator_name = frozen.resolve(config.generator, config.data)
        precision = torch.bfloat16 if config.amp else torch.float32
        self.generator = frozen.find(self.generator_name, config.data, where, precision)
        self._check()
        self.policy, self.learner = self.new_policy(), self.new_learner()
        contrastive = config.contrastive
        self.contrast = self.new_contrast()
        self.descent = Descent(
            nn.ModuleList([self.learner, self.contrast]), contrastive.learning_rate, contrastive.weight_decay
        )
        self.reward = rewards.build(config.reward, list(self.learner.parameters()), contrastive.learning_rate, where)
        self.engine = Engine(
            self.learner,
            self.descent,
            self.contrast,
            self._reference(),
            self._held_out_loss,
            self.reward,
            self.validation_accuracy,
        )
        self.world = World(
            self.data.train,
            self._showing(),
            self.engine,
            self._learning(),
            batch=config.schedule.batch,
            grid=config.policy.grid,
            prior=self._prior,
            seed=config.seed,
        )
        self.estimator = estimator.build(
            self.policy,
            config.policy,
            config.reward,
            images=len(self.data.train),
            image_size=config.data.size,
            device=where,
            seed=config.seed,
        )
        if isinstance(self.policy, nn.Module):
            self.descend_policy = Descent(self.policy, config.policy.learning_rate, clip=config.policy.clip_norm)
        self.stable: "StableAlgorithm | None" = None
        if config.algorithm != "reinforce":
            self._hand_over()
        self.reward_average = MovingAverage.start(config.reward.momentum, where)
        self.alarms = Alarms(config, chance(contrastive, config.views.shown, config.schedule.batch))

    def new_policy(self) -> LearnedPolicy | Unlearned:
        """The policy as it is before training."""
        settings = self.config.policy
        if not settings.learns:
            return Unlearned(settings)
        with seeded(self.config.seed, "policy"):
            policy = build(settings, self.config.data.size, self.generator.proposable)
        if settings.start:
            start_from(policy, at_home(Path(settings.start)))
        return policy.to(self.device)

    def new_learner(self) -> Learner:
        """The learner as it is before training."""
        with seeded(self.config.seed, "learner"):
            return Learner(self.config.contrastive, self.config.data.size).to(self.device)

    def new_contrast(self) -> Contrast:
        """The contrastive loss; some have weights of their own."""
        with seeded(self.config.seed, "contrast"):
            return Contrast(self.config.contrastive, len(self.data.train)).to(self.device)

    def parts(self) -> dict[str, Stateful]:
        """Everything that a step changes; a policy that stays as it is; and what all of it is made of."""
        parts: dict[str, Any] = {"origin": self.origin()} | self._learning()
        if self.stable is not None:
            parts |= {"algorithm": self.stable, "reward average": self.reward_average}
        elif isinstance(self.policy, nn.Module):
            parts["policy"] = self.policy
            if self.reward is not None:
                parts |= {"policy's descent": self.descend_policy, "estimator": self.estimator}
                parts |= {"reward average": self.reward_average}
        return parts | {"alarms": self.alarms}

    def origin(self) -> Origin:
        """What the run is made of and no checkpoint holds: images and generator."""
        return Origin(
            {
                "source images": self.data.source,
                "weights of the generator": Source(
                    self.generator.sha256(), f"put the former ones back (--generator {self.generator_name})"
                ),
                "settings of the generator": Source(
                    digest([json.dumps(self.generator.card.get("generator"), sort_keys=True, default=str)]),
                    f"put the former card back (--generator {self.generator_name})",
                ),
            },
            "--name OTHER",
        )

    def reward_figures(self, r: Tensor) -> dict[str, Tensor]:
        """The reward's curves: its mean over the batch, and the moving average of that."""
        self.reward_average.update(r.mean())
        return {"reward/raw": r.mean(), "reward/average": self.reward_average.value}

    def validation_accuracy(self) -> Tensor:
        """The kNN accuracy on validation images, without waiting for the device."""
        return knn_top1(self.learner, self.data.train, self.data.validation)

    @torch.no_grad()
    def sheet(self, policy: LearnedPolicy | Unlearned) -> pictures.Sheet:
        """The same few test images through a policy's corruption and two decorruptions."""
        random = generator_at(self.config.seed, 0, "pictures", self.device)
        x = self.data.test.images(torch.arange(min(PICTURED, len(self.data.test)), device=self.device))
        action = policy(x).sample(random)
        corrupted = corrupt(x, action)
        showing = self.world.showing
        views = showing.decorrupt(corrupted, random, action.code)
        shown = showing.show(views, torch.arange(len(x), device=self.device), random)
        return pictures.Sheet(x, corrupted, views, None if shown is views else shown)

    def _check(self) -> None:
        """Refuse settings that do not fit the images or the generator, before any work."""
        config = self.config
        if config.schedule.batch > len(self.data.train):
            raise UsageError(
                f"--schedule.batch {config.schedule.batch}: there are only {len(self.data.train)} training images"
            )
        if config.reward.compares_held_out:
            self._check_held_out()
        require_fit(self.generator, self.generator_name, config.data, self.data.classes, self._factors())
        if said := caution(self.generator.card, f"--generator {self.generator_name}", config.data, self.data.classes):
            print(said, file=sys.stderr)
        if config.policy.name == "latent" and not self.generator.proposable:
            raise UsageError(
                f"--policy latent proposes codes, but --generator {self.generator_name} takes none: use a CAMNet"
            )

    def _check_scoring_scale(self) -> None:
        """Refuse to let an encoder judge images so small that it does not take them."""
        scale, name, encoder = self.config.views.scoring_scale, self.config.contrastive.encoder, self.learner.encoder
        if takes_one_size(encoder):
            raise UsageError(
                f"--views.scoring-scale {scale}: the encoder {name} takes only images of one size. Leave it at 1"
            )
        try:
            length = feature_length(encoder, name, self.config.data.size // scale)
        except UsageError as error:
            raise UsageError(f"--views.scoring-scale {scale}: {error}, or leave it at 1") from error
        if length != self.learner.feature_length:
            raise UsageError(
                f"--views.scoring-scale {scale}: the encoder {name} makes {length} features of such an image, and "
                f"{self.learner.feature_length} of a whole one. Leave it at 1"
            )

    def _check_held_out(self) -> None:
        """Refuse held-out images of which no two can be compared."""
        reward, held_out = self.config.reward, self.data.validation.thinned(HELD_OUT)
        if len(held_out) < 2:
            raise UsageError(
                f"--reward {reward.name} compares held-out images with one another, and there is only {len(held_out)} "
                "for validation: take more images, or other --data.classes"
            )
        if reward.reference.kind == "labels" and len(held_out.labels.unique()) == len(held_out):
            raise UsageError(
                f"--reward.reference.kind labels: no two of the {len(held_out)} validation images are of one class, so "
                "none has a neighbor to be near to; take more images, or fewer --data.classes"
            )

    def _factors(self) -> int:
        """How many of the downsampling factors, from the first, policy and reference may draw."""
        policy, reference = self.config.policy, self.config.reward.reference
        if policy.learns or policy.name == "downsample":
            return CHOICES
        rates = [] if policy.name in ("none", "decolorize") else [policy.downsample]
        if reference.kind == "corruption":
            rates.append(reference.downsample)
        return 1 + max((index for pair in rates for index, rate in enumerate(pair, start=1) if rate > 0), default=0)

    def _hand_over(self) -> None:
        """Give the policy into the hands of one of Stable-Baselines3's algorithms, at the weights it starts from."""
        from env.sb3 import CorruptionSB3VecEnv  # here: Stable-Baselines3 takes its time to import
        from policy.stable import StableAlgorithm

        config = self.config
        assert config.algorithm != "reinforce"
        assert isinstance(self.policy, nn.Module)
        with seeded(config.seed, "algorithm"):
            env = CorruptionSB3VecEnv(self.world)
            self.stable = StableAlgorithm(config.algorithm, env, config.policy, config.seed, self.device)
        self.stable.network.load_state_dict(self.policy.state_dict())
        self.policy = self.stable.network

    def _learning(self) -> dict[str, Any]:
        """What a turn of the learner changes."""
        parts: dict[str, Any] = {"learner": self.learner, "learner's descent": self.descent}
        if list(self.contrast.parameters()):
            parts["contrast"] = self.contrast
        return parts | ({"reward": self.reward} if self.reward is not None else {})

    def _showing(self) -> Showing:
        """From degraded images to what the learner sees."""
        config, strength = self.config, self.config.augment_strength
        if config.views.chooses and config.views.scoring_scale > 1:
            self._check_scoring_scale()
        # --policy none has --reward none, which environments refuse: no other actions than its own ever come.
        restore = untouched if config.policy.name == "none" else self.generator.views
        return Showing(
            restore,
            config.views.drawn,
            Choice(self.learner, self.contrast, config.views) if config.views.chooses else None,
            Expert(config.augment, strength, config.data.size) if strength else None,
        )

    def _prior(self, n: int, random: torch.Generator) -> Action:
        """Corruptions at the configured rates, as a new policy would draw them."""
        p = self.config.policy
        return fixed_rates(n, p.grid, p.mask_ratio, p.decolorize, p.downsample, self.device).sample(random)

    def _reference(self) -> Reference:
        """The held-out examples whose loss the reward follows."""
        config = self.config
        settings, seed = config.reward.reference, config.seed
        if settings.kind == "labels":
            return labelled_images(settings, self.data.validation, seed)
        if settings.kind == "expert":
            return expert_pairs(settings, self.data.validation, Expert(config.augment, 1.0, config.data.size), seed)
        grid = config.policy.grid
        return corrupted_pairs(settings, self.data.validation, self.generator.two_views, grid, seed)

    def _held_out_loss(self, learner: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        """The reference loss, in evaluation mode: the measurement leaves BatchNorm's statistics alone."""
        temperature = self.config.contrastive.temperature
        with evaluating(learner):
            if self.config.reward.reference.kind == "labels":
                return soft_nearest_neighbor(learner(first), second, temperature).mean()
            u = learner(torch.cat([first, second])).unflatten(0, (2, -1))
            return ntxent(u, temperature).mean()


def single_environment(
    flags: Sequence[str] = (), frozen_learner: bool = True, render_mode: str | None = None
) -> CorruptionEnv:
    """Build `gymnasium.make("env:CorruptionPolicy-v0")`.

    Args:
        flags: As run_rl.py takes them, for example ["--data", "cifar10"].
        frozen_learner: Put the learner back after every step, so that equal seeds and actions give equal rewards.
        render_mode: None or rgb_array.
    """
    return CorruptionEnv(_world(flags), frozen_learner=frozen_learner, render_mode=render_mode)


def vector_environment(
    num_envs: int,
    flags: Sequence[str] = (),
    array: Literal["torch", "numpy"] = "torch",
    frozen_learner: bool = False,
) -> CorruptionVectorEnv:
    """Build `gymnasium.make_vec("env:CorruptionPolicy-v0", num_envs=...)`.

    Args:
        num_envs: Images per step.
        flags: As run_rl.py takes them.
        array: What actions, observations and rewards are.
        frozen_learner: Put the learner back after every step.

    Raises:
        UsageError: If there are fewer than 2 images per step, or the flags are not usable.
    """
    if num_envs < 2:
        raise UsageError(f"num_envs={num_envs}: the learner contrasts images with one another, so give at least 2")
    world = _world([*flags, "--schedule.batch", str(num_envs)])
    return CorruptionVectorEnv(world, array=array, frozen_learner=frozen_learner)


def _world(flags: Sequence[str]) -> World:
    config = read(RunConfig, flags, prog="CorruptionPolicy-v0", description=str(__doc__))
    if config.reward.name == "none":
        raise UsageError("the environment pays a reward: choose another --reward than none")
    system = System(config, device.resolve(config.device))
    # The literal slope compares with the past: without one, a learner that is put back after every step earns nothing.
    is_literal = config.reward.name == "loss-slope" and config.reward.measured_on == "training"
    system.world.warm_up(max(config.schedule.warmup, int(is_literal)), pays_last=is_literal)
    return system.world
