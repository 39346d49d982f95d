"""Alarms: curves that say that a run has gone wrong, what each means, and which setting to change.

A case judges one point of the curves and remembers nothing; `Alarms` waits until a case has held for some points, and
says it once. Chance is the loss of a learner that tells no image from another; only who knows the loss knows it, so it
is given. Symbol: g, cells a side of the grid.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from configs.run import RunConfig

CONSECUTIVE = 3
"""Points that raise an alarm, and points that withdraw it: one outlier does neither."""
SETTLING = 100
"""Learner steps after the warmup (a tenth of the run where that is less) that are not judged: all start from chance."""

RARE = 0.05
"""A rate below it deletes hardly anything; the learned ones end at about 0.01."""
ALIKE = 0.99
"""Mean cosine of views that are the same to the learner. Digits with a learner of 120 steps: 1.000 uncorrupted, 0.998
at rates of 0.012, 0.993 at 0.05, 0.986 at 0.1."""
COVERED = 0.95
"""A mask ratio above it leaves nothing to recognize."""
NEAR_CHANCE = 0.02
"""A loss less than this share below chance still counts as chance."""
EXPLORING = 0.12
"""Smallest share of the largest entropy. Bounded logits keep it above 0.07 for good; mask rates of 0.02 still have
0.14, a healthy run on digits ends near 0.5."""
DEAD = 1e-3
"""A spread of scaled advantages up to this counts as zero; about 1 is healthy."""
PRESSED = 0.02
"""How far outside its range a mask ratio must be: the guard holds it there only against a reward that pulls."""

Means = Mapping[str, float]
"""One point of the curves: means by tag."""


@dataclass(frozen=True)
class Case:
    """One way to go wrong.

    Attributes:
        name: The alarm's, short and fixed, as in summary.json.
        tags: The curves that it reads; a point without one of them is not judged.
        judge: The alarm's message for a point of these curves (what is seen, what it means, and what to change), None
            where all is well.
    """

    name: str
    tags: frozenset[str]
    judge: Callable[[Means, RunConfig], str | None]


def no_corruption(means: Means, config: RunConfig) -> str | None:
    """Trivial pairs: the policy deletes nothing, so both views are the image."""
    mask, gray = means["policy/mask_ratio"], means["policy/p_decolorize"]
    coarse = means["policy/p_downsample_2"] + means["policy/p_downsample_4"]
    similarity = means["learner/positive_similarity"]
    if not (max(mask, gray, coarse) < RARE and similarity > ALIKE):
        return None
    return (
        f"the policy hardly corrupts any more (mask ratio {mask:.3f}, P(gray) {gray:.3f}, P(1/2) + P(1/4) "
        f"{coarse:.3f}), so the two views of an image are the same (similarity {similarity:.4f}) and teach nothing. "
        f"Use --reward loss-slope --reward.measured-on reference, raise --reward.reference.decolorize, or "
        f"{_guard(config, 'raise the lower end')}"
    )


def everything_hidden(means: Means, config: RunConfig) -> str | None:
    """The policy hides all."""
    mask = means["policy/mask_ratio"]
    if not mask > COVERED:
        return None
    return (
        f"the policy hides nearly everything (mask ratio {mask:.3f}): what the two views of an image have in common is "
        f"chance. {_guard(config, 'lower the upper end').capitalize()}"
        + (", or raise --policy.ratio-weight" if config.algorithm == "reinforce" else "")
    )


def nothing_shared(means: Means, config: RunConfig, chance: float) -> str | None:
    """The learner cannot tell which views belong together, though it tells views apart."""
    loss, similarity = means["learner/loss"], means["learner/positive_similarity"]
    if not (_is_chance(loss, chance) and similarity <= ALIKE):
        return None
    less = _guard(config, "lower the upper end") if config.policy.learns else "lower --policy.mask-ratio"
    return (
        f"the learner's loss, {loss:.3f}, is that of chance, {chance:.3f}: the pairs share nothing, or nothing is "
        f"learned. Where much is hidden, {less}; otherwise raise --contrastive.learning-rate"
    )


def collapse(means: Means, config: RunConfig, chance: float) -> str | None:
    """The learner gives all images one vector: its positives are perfectly alike, and so are its negatives."""
    loss, similarity = means["learner/loss"], means["learner/positive_similarity"]
    if not (_is_chance(loss, chance) and similarity > ALIKE):
        return None
    return (
        f"the learner has collapsed: its loss, {loss:.3f}, is that of chance, {chance:.3f}, though the views of an "
        f"image agree (similarity {similarity:.4f}), so all images get the same vector. "
        "Lower --contrastive.learning-rate or raise --contrastive.temperature, and start again"
    )


def dead_exploration(means: Means, config: RunConfig) -> str | None:
    """The policy tries nothing else any more, so no reward can change its mind."""
    entropy, largest = means["policy/entropy"], largest_entropy(config.policy.grid)
    if not entropy < EXPLORING * largest:
        return None
    less = "Raise --policy.entropy-weight or lower" if config.algorithm == "reinforce" else "Lower"
    return (
        f"the policy has stopped exploring: its entropy is {entropy:.2f} nats per image, {entropy / largest:.0%} of "
        f"the largest ({largest:.2f}), so it hardly ever sees what another corruption would be paid. "
        f"{less} --policy.learning-rate, and start again"
    )


def dead_advantage(means: Means, config: RunConfig) -> str | None:
    """All images are paid alike, where each should be paid for its own corruption."""
    spread = means["reward/advantage_std"]
    if not spread <= (0.0 if config.reward.scaling == "none" else DEAD):
        return None
    return (
        f"all images are paid alike (standard deviation of the advantages {spread:.2g}): the policy is told nothing. "
        "Raise --reward.reference.batch or --reward.reference.mask-ratio (the reference may have nothing left to "
        "teach), or use another --reward"
    )


def ratio_pressed(means: Means, config: RunConfig) -> str | None:
    """The reward pulls the mask ratio out of its range, against the guard."""
    mask, (low, high) = means["policy/mask_ratio"], config.policy.ratio_range
    if not max(low - mask, mask - high) > PRESSED:
        return None
    side, end, widen = (
        ("above", f"upper end, {high:g}", "raise") if mask > high else ("below", f"lower end, {low:g}", "lower")
    )
    return (
        f"the reward pulls the mask ratio, {mask:.3f}, {side} --policy.ratio-range {low:g} {high:g} against the guard. "
        f"To hold it, raise --policy.ratio-weight; to let it go, {widen} the {end}; or use another --reward"
    )


def largest_entropy(grid: int) -> float:
    """The largest entropy of independent cells, a downsampling factor and decolorization: (g² + 1) ln 2 + ln 3 nats."""
    return (grid**2 + 1) * math.log(2) + math.log(3)


def cases(config: RunConfig, chance: float | None) -> list[Case]:
    """What can go wrong in a run with these settings; what the settings ask for raises no alarm.

    The learner's two cases are watched wherever chance is known, the others only where a reward teaches a policy to
    corrupt.
    """
    policy, learner = config.policy, frozenset({"learner/loss", "learner/positive_similarity"})
    watched = []
    if chance is not None:
        watched.append(Case("nothing-shared", learner, partial(nothing_shared, chance=chance)))
        watched.append(Case("collapse", learner, partial(collapse, chance=chance)))
    if not policy.learns or config.reward.name == "none":
        return watched
    if not config.reward.shared:
        watched.append(Case("dead-advantage", frozenset({"reward/advantage_std"}), dead_advantage))
    if policy.name == "latent":  # its corruptions are the configured ones
        return watched
    mask_ratio = frozenset({"policy/mask_ratio"})
    rates = mask_ratio | {"policy/p_decolorize", "policy/p_downsample_2", "policy/p_downsample_4"}
    watched.append(Case("no-corruption", rates | {"learner/positive_similarity"}, no_corruption))
    if policy.mask != "budget":  # whose mask ratio is the configured one
        watched.append(Case("everything-hidden", mask_ratio, everything_hidden))
        if config.algorithm == "reinforce":  # only REINFORCE has the guard
            watched.append(Case("ratio-pressed", mask_ratio, ratio_pressed))
    if policy.name == "learned" and policy.mask != "budget":  # of these the largest entropy is known
        watched.append(Case("dead-exploration", frozenset({"policy/entropy"}), dead_exploration))
    return watched


class Alarms:
    """Watches a run's curves and says what goes wrong: once, and again if it went away and came back.

    A case has to hold at `CONSECUTIVE` points in a row to raise its alarm, and to fail at as many to withdraw it. The
    first points are not judged (`SETTLING`).

    Args:
        config: The run's settings.
        chance: The learner's loss where it tells no image from another; None: no level says so.

    Attributes:
        cases: What can go wrong in this run.
        raised: The step at which each alarm was raised first, by its name.
    """

    def __init__(self, config: RunConfig, chance: float | None) -> None:
        self.config, self.chance, self.cases = config, chance, cases(config, chance)
        self.raised: dict[str, int] = {}
        self._standing: list[str] = []
        self._against: dict[str, int] = {}  # points in a row that contradict what stands, by name
        schedule = config.schedule
        self._quiet = schedule.warmup + min(SETTLING, schedule.steps // 10)

    def check(self, means: Means, step: int) -> list[str]:
        """Look at the next point of the curves.

        Args:
            means: Means by tag since the point before.
            step: Where the point stands: learner steps done.

        Returns:
            What to tell the user, one message for each alarm that is raised here.
        """
        if step <= self._quiet:
            return []
        judged = {case.name: case.judge(means, self.config) for case in self.cases if case.tags <= means.keys()}
        raised = {name: said for name, said in judged.items() if self._turned(name, said is not None) and said}
        for name in raised:
            self.raised.setdefault(name, step)
        return [f"alarm at step {step}, {name}: {said}" for name, said in raised.items()]

    def _turned(self, name: str, holds: bool) -> bool:
        """Count the point; whether it is the one that raises or withdraws the alarm."""
        if holds == (name in self._standing):
            self._against.pop(name, None)
            return False
        self._against[name] = self._against.get(name, 0) + 1
        if self._against[name] < CONSECUTIVE:
            return False
        del self._against[name]
        if holds:
            self._standing.append(name)
        else:
            self._standing.remove(name)
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run does not repeat itself."""
        return {"raised": dict(self.raised), "standing": list(self._standing), "against": dict(self._against)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.raised, self._standing = dict(state["raised"]), list(state["standing"])
        self._against = dict(state["against"])


def _is_chance(loss: float, chance: float) -> bool:
    return loss > chance - NEAR_CHANCE * abs(chance)  # rince's chance may lie below 0


def _guard(config: RunConfig, change: str) -> str:
    """How to move the mask ratio; Stable-Baselines3's algorithms know no range."""
    if config.algorithm == "reinforce":
        return f"{change} of --policy.ratio-range"
    return f"use --algorithm reinforce and {change} of --policy.ratio-range"
