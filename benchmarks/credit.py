"""How exact is each image's share of the slope, and what would exact ones cost? On the real digits system.

A default run is trained (its reward measured from the first step on), and at some steps the shares of one batch are
compared with forward-mode derivatives of the per-image losses. Two questions, two tables:

1. Along which direction? The reward knows the optimizer's diagonal P as it is before the step; the step itself uses one
   that has seen its own gradient, too, and the derivative along that one stands for the truth. Compared with it: the
   derivative along P ∇L_ref as it is (raw), a difference along it with a step of 1e-3 (what the reward was before
   directions were bounded), the derivative along the bounded direction, and the reward itself.
2. How long a step? Differences along the bounded direction against the derivative along the same, one-sided and
   central, in float32 and with the convolutions' operands rounded to TF32, as GPUs do by default. The worst correlation
   and the largest relative error over the points after the warm-up.

    python benchmarks/credit.py --threads 1
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn
from torch.func import jvp
from tqdm import tqdm

from configs.reading import read
from configs.run import RunConfig
from env.credit import BOUND, STEP, PerImageLoss, Weights, bounded
from env.engine import Turn
from env.rewards import ImageSlope, Moment
from policy.reinforce import ratio_penalty
from system import System
from training.schedule import one_cycle
from training.seeding import generator_at

CPU = torch.device("cpu")
OLD_STEP = 1e-3
STEPS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Lengths in weight space; the table's last row is the length of η P ∇L_ref itself."""
Figures = dict[str, float]


def agreement(a: Tensor, b: Tensor) -> float:
    """Correlation over the images: an advantage takes the mean away anyway."""
    return torch.cosine_similarity(a - a.mean(), b - b.mean(), dim=0).item()


def error(a: Tensor, true: Tensor) -> float:
    """Relative error over the images."""
    return ((a - true).norm() / true.norm()).item()


def norm(direction: Weights) -> float:
    """Length in weight space."""
    return torch.stack(torch._foreach_norm(list(direction))).norm().item()


def derivative(losses: PerImageLoss, at: Weights, direction: Weights) -> Tensor:
    """<direction, ∇ℓ_i> of each image, in forward mode."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, at its first derivative
        return jvp(losses, (list(at),), (list(direction),))[1]


def difference(losses: PerImageLoss, at: Weights, direction: Weights, step: float, central: bool) -> Tensor:
    """The same as a finite difference with a step of a given length."""
    h = step / norm(direction)
    with torch.no_grad():
        behind = losses([w - h * d for w, d in zip(at, direction, strict=True)])
        ahead = losses([w + h * d for w, d in zip(at, direction, strict=True)] if central else at)
    return (ahead - behind) / (2 * h if central else h)


def to_tf32(x: Tensor) -> Tensor:
    """Round float32 to the 10 bits of mantissa that TF32 keeps, ties to even."""
    bits = x.detach().contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def in_tf32(losses: PerImageLoss, learner: nn.Module) -> PerImageLoss:
    """The same function with the operands of every convolution rounded."""

    def rounded(weights: Weights) -> Tensor:
        convolutions = [m for m in learner.modules() if isinstance(m, nn.Conv2d)]
        hooks = [m.register_forward_pre_hook(lambda _, x: (to_tf32(x[0]),)) for m in convolutions]
        try:
            return losses([to_tf32(w) if w.ndim == 4 else w for w in weights])
        finally:
            for hook in hooks:
                hook.remove()

    return rounded


class Probe:
    """The run's own reward, and measurements beside it where they are asked for."""

    def __init__(self, reward: ImageSlope, s: System) -> None:
        self.reward, self.s, self.asked = reward, s, False
        self.directions: Figures = {}
        self.steps: dict[str, dict[str, tuple[float, float]]] = {}
        self.milliseconds: Figures = {}
        self.state_dict, self.load_state_dict = reward.state_dict, reward.load_state_dict

    def before(self, moment: Moment) -> None:
        """What the reward does, and a copy of the weights that it did it at."""
        self.reward.before(moment)
        if self.asked:
            self.at = [w.detach().clone() for w in moment.weights]
            self.gradient = [g / self.reward.weight for g in self.reward.gradient]
            self.raw = [d.clone() for d in moment.precondition(self.gradient)]

    def after(self, moment: Moment) -> Tensor:
        """Compare, at the weights before the step, now that the optimizer has seen the step's own gradient."""
        r = self.reward.after(moment)
        if self.asked:
            losses = moment.judged[0].per_image
            self._compare_directions(losses, moment.precondition(self.gradient), r[0] / self.reward.step_size)
            self._compare_steps(losses)
            self._time(losses)
        return r

    def _compare_directions(self, losses: PerImageLoss, stepped: Weights, shares: Tensor) -> None:
        true = derivative(losses, self.at, stepped)
        was = difference(losses, self.at, self.raw, OLD_STEP, central=False)
        self.directions = {
            "length": norm(self.raw),
            "largest": max(d.abs().max().item() for d in self.raw),
            "cut": sum(int((d.abs() > BOUND).sum()) for d in self.raw),
            "bounded_length": norm(bounded(self.raw)),
            "raw_exact": agreement(derivative(losses, self.at, self.raw), true),
            "was": agreement(was, true),
            "was_distinct": len(was.unique()),
            "bounded_exact": agreement(derivative(losses, self.at, bounded(self.raw)), true),
            "is": agreement(shares, true),
            "is_distinct": len(shares.unique()),
        }

    def _compare_steps(self, losses: PerImageLoss) -> None:
        direction = bounded(self.raw)
        exact = derivative(losses, self.at, direction)
        coarse = in_tf32(losses, self.s.learner)
        lengths = {f"{step:.0e}": step for step in STEPS} | {"η|d|": self.reward.step_size * norm(direction)}
        for name, step in lengths.items():
            ways = {
                "one-sided": difference(losses, self.at, direction, step, central=False),
                "central": difference(losses, self.at, direction, step, central=True),
                "TF32, one-sided": difference(coarse, self.at, direction, step, central=False),
                "TF32, central": difference(coarse, self.at, direction, step, central=True),
            }
            self.steps[name] = {way: (agreement(d, exact), error(d, exact)) for way, d in ways.items()}

    def _time(self, losses: PerImageLoss) -> None:
        direction = bounded(self.raw)

        def learn() -> None:
            weights = [w.clone().requires_grad_() for w in self.at]
            torch.autograd.grad(losses(weights).mean(), weights)

        self.milliseconds = {
            "learner": median_ms(learn),
            "difference": median_ms(lambda: difference(losses, self.at, direction, STEP, central=False)) / 2,
            "derivative": median_ms(lambda: derivative(losses, self.at, direction)),
        }


def median_ms(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median time of some calls, in milliseconds, after one that does not count."""
    work()
    spent = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        spent.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(spent)


def turn(s: System, step: int) -> None:
    """One turn of a run: what run_rl.py does, in short."""
    config, share = s.config, one_cycle(step / s.config.schedule.steps)
    random = generator_at(config.seed, step, "step", CPU)
    rows = s.world.rows(step)
    x = s.data.train.images(rows)
    pi = s.estimator.look(x, random)
    (a,) = s.estimator.draw(pi, random)
    s.world.turn = Turn(share)
    r, _ = s.world.act(rows, a, step)
    if step >= config.schedule.warmup:
        loss, _ = s.estimator.loss(pi, [a], r[None], x, rows)
        bonus = config.policy.entropy_weight * pi.entropy().mean()
        guard = config.policy.ratio_weight * ratio_penalty(pi.mask_ratio(), *config.policy.ratio_range).mean()
        s.descend_policy.step(loss - bonus + guard, share)


def print_steps(seen: list[dict[str, dict[str, tuple[float, float]]]]) -> Figures:
    """The second table: the worst agreement and the largest error over the points, by step and way."""
    names, ways = list(seen[0]), list(next(iter(seen[0].values())))
    print("\n| step | " + " | ".join(ways) + " |\n|---" + "|---" * len(ways) + "|")
    figures = {}
    for name in names:
        cells = []
        for way in ways:
            worst = min(point[name][way][0] for point in seen)
            cells.append(f"{worst:.4f} / {max(point[name][way][1] for point in seen):.3f}")
            figures[f"{name} {way}"] = worst
        print(f"| {name} | " + " | ".join(cells) + " |")
    return figures


def main() -> None:
    """Train, measure at the points, print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=int, nargs="+", default=[2, 5, 10, 30, 100, 200, 399], help="learner steps")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    flags = ["--seed", str(chosen.seed), "--device", "cpu"]
    s = System(read(RunConfig, flags, prog="credit", description=""), CPU)
    assert isinstance(s.reward, ImageSlope)
    schedule = s.config.schedule
    if not (max(chosen.points) >= schedule.warmup and 0 <= min(chosen.points) <= max(chosen.points) < schedule.steps):
        parser.error(f"--points: from 0 to {schedule.steps - 1}, at least one from {schedule.warmup} on")
    s.engine.reward = probe = Probe(s.reward, s)
    figures: Figures = {}
    steps, milliseconds = [], []
    print("| step | length | largest | cut | bounded length | exact, raw | was (distinct) | exact, bounded ", end="")
    print("| is (distinct) |\n|---|---|---|---|---|---|---|---|---|")
    for step in tqdm(range(max(chosen.points) + 1), desc="learner", unit="step"):
        probe.asked = step in chosen.points
        turn(s, step)
        if probe.asked:
            f = probe.directions
            print(
                f"| {step} | {f['length']:.3g} | {f['largest']:.2g} | {f['cut']} | {f['bounded_length']:.3g} "
                f"| {f['raw_exact']:.4f} | {f['was']:.4f} ({f['was_distinct']}) | {f['bounded_exact']:.4f} "
                f"| {f['is']:.4f} ({f['is_distinct']}) |",
                flush=True,
            )
            figures |= {f"was_{step}": f["was"], f"is_{step}": f["is"]}
            milliseconds.append(probe.milliseconds)
            if step >= s.config.schedule.warmup:
                steps.append(dict(probe.steps))
    figures |= print_steps(steps)
    ms = {name: statistics.median(m[name] for m in milliseconds) for name in milliseconds[0]}
    print("\nms: " + ", ".join(f"{name} {value:.1f}" for name, value in ms.items()))
    figures |= {f"{name}_to_learner_time_ratio": ms[name] / ms["learner"] for name in ("difference", "derivative")}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
