"""Which estimator points along the true gradient, and what does it cost? On the real digits system.

Images, CAMNet, learner and reward are those of a default run: the learner is trained for some steps on the policy's own
corruptions, then everything stands still, and the gradient of the expected reward with respect to the policy's weights
is asked for. What stands for the true one is leave-one-out over 8 corruptions of each image, averaged over very many
batches. Every estimator gets equally many corruptions to judge (--evaluations), in batches of the same size, since a
contrastive reward depends on its negatives; one that compares K corruptions of an image sees K times fewer images.

Baselines that learn (ema, critic, table) have learned from all the rewards behind the true gradient.

The cosine tells the direction of one estimate. The noise, ‖estimate - truth‖² / ‖truth‖² averaged over estimates, tells
how many such estimates an average needs: after as many of them as this figure, noise and signal are equally long.

    python benchmarks/estimators.py --threads 1
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn
from tqdm import tqdm

from configs.reading import read
from configs.run import RunConfig
from env.engine import Turn
from policy import estimator as estimators
from policy.estimator import Estimator, ScoreFunction
from system import System
from training.seeding import generator_at

CPU = torch.device("cpu")
COMPARED = 8
"""Corruptions of an image behind the true gradient."""
ROWS: dict[str, list[str]] = {
    "none": ["--reward.baseline", "none"],
    "ema": ["--reward.baseline", "ema"],
    "batch": ["--reward.baseline", "batch"],
    "critic": ["--reward.baseline", "critic"],
    "table": ["--reward.baseline", "table"],
    "greedy": ["--reward.baseline", "greedy"],
    "rloo:2": ["--reward.baseline", "rloo:2"],
    "rloo:4": ["--reward.baseline", "rloo:4"],
    "disarm": ["--policy.estimator", "disarm"],
    "evolution": ["--policy.estimator", "evolution", "--policy.perturbations", "32", "--policy.clip-norm", "1e6"],
}
SHARED = "ema, one shared reward"


def configured(flags: Sequence[str], chosen: argparse.Namespace) -> RunConfig:
    """The run's settings with an estimator's own."""
    fixed = ["--reward", chosen.reward, "--reward.scaling", "none", "--schedule.batch", str(chosen.batch)]
    start = ["--policy.decolorize", "0.3", "--device", "cpu"]
    return read(RunConfig, [*fixed, *start, *flags], prog="estimators", description="")


def build(s: System, flags: Sequence[str], chosen: argparse.Namespace) -> Estimator:
    """An estimator of this system's policy."""
    config = configured(flags, chosen)
    size = {"images": len(s.data.train), "image_size": config.data.size}
    return estimators.build(s.policy, config.policy, config.reward, **size, device=CPU, seed=config.seed)


def train_learner(s: System, steps: int) -> None:
    """Bring learner and policy to where a run is after some steps."""
    for step in tqdm(range(steps), desc="learner", unit="step"):
        random = generator_at(0, step, "learner", CPU)
        rows = s.world.rows(step)
        x = s.data.train.images(rows)
        pi = s.estimator.look(x, random)
        a = s.estimator.draw(pi, random)
        r, _ = s.engine.learn(s.world.show(s.world.decorrupt(x, a, random), rows, random), rows, step, Turn())
        assert r is not None
        centered = r - r.mean()
        loss, _ = s.estimator.loss(pi, a, centered / centered.std(), x, rows)
        s.descend_policy.step(loss)


class Judge:
    """Pays corruptions by a learner that stands still."""

    def __init__(self, s: System) -> None:
        self.s, self.still, self.count = s, s.world.snapshot(), 0

    def ask(self, of: Estimator, shared: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One batch: the loss, its rewards, its images and rows; `shared`: all are paid the mean of the rewards."""
        self.count += 1
        random = generator_at(1, self.count, "judged", CPU)
        rows = torch.randperm(len(self.s.data.train), generator=random)[: self.s.world.batch]
        x = self.s.data.train.images(rows)
        pi = of.look(x, random)
        a = of.draw(pi, random)
        world = self.s.world
        r, _ = self.s.engine.learn(world.show(world.decorrupt(x, a, random), rows, random), rows, self.count, Turn())
        self.s.world.restore(self.still)
        assert r is not None
        paid = r.mean().expand_as(r) if shared else r
        return of.loss(pi, a, paid, x, rows)[0], r, x, rows


def gradient(loss: Tensor, s: System) -> Tensor:
    """Of a loss with respect to all of the policy's weights, as one vector."""
    assert isinstance(s.policy, nn.Module)
    weights = list(s.policy.parameters())
    parts = torch.autograd.grad(loss, weights, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(w).flatten() if g is None else g.flatten() for w, g in zip(weights, parts, strict=True)]
    )


def truth(
    s: System, judge: Judge, chosen: argparse.Namespace, learning: Sequence[ScoreFunction]
) -> tuple[Tensor, float]:
    """The true gradient, and the cosine of its two halves; baselines that learn see every reward on the way."""
    reference = build(s, ["--reward.baseline", f"rloo:{COMPARED}"], chosen)
    halves = [torch.zeros(()), torch.zeros(())]
    for index in tqdm(range(chosen.truth), desc="true gradient", unit="batch"):
        loss, r, x, rows = judge.ask(reference)
        halves[index % 2] = halves[index % 2] + gradient(loss, s)
        for one in r:
            for other in learning:
                other.baseline.value(one[None], x, rows)
    agreement = torch.cosine_similarity(halves[0], halves[1], dim=0).item()
    return (halves[0] + halves[1]) / chosen.truth, agreement


def measure(
    s: System, judge: Judge, of: Estimator, true: Tensor, chosen: argparse.Namespace, shared: bool
) -> tuple[list[float], list[float], float]:
    """Cosines to the true gradient, squared errors relative to it, and CPU seconds an estimate."""
    cosines, errors, seconds = [], [], 0.0
    for _ in range(chosen.repeats):
        begun, batches, spent = time.process_time(), [], 0
        while spent < chosen.evaluations:
            loss, r, _, _ = judge.ask(of, shared)
            batches.append(gradient(loss, s))
            spent += r.numel()
        seconds += time.process_time() - begun
        estimate = torch.stack(batches).mean(dim=0)
        cosines.append(torch.cosine_similarity(estimate, true, dim=0).item())
        errors.append(((estimate - true).square().sum() / true.square().sum()).item())
    return cosines, errors, seconds / chosen.repeats


def main() -> None:
    """Measure, print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reward", default="loss-slope", help="any that can compare corruptions")
    parser.add_argument("--batch", type=int, default=128, help="images a batch")
    parser.add_argument("--evaluations", type=int, default=512, help="corruptions judged for one estimate")
    parser.add_argument("--repeats", type=int, default=48, help="estimates of each")
    parser.add_argument("--truth", type=int, default=120, help="batches behind the true gradient, 8 corruptions each")
    parser.add_argument("--learner-steps", type=int, default=60, help="steps before everything stands still")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    s = System(configured([], chosen), CPU)
    train_learner(s, chosen.learner_steps)
    judge = Judge(s)
    built = {name: build(s, flags, chosen) for name, flags in ROWS.items()}
    built[SHARED] = build(s, ["--reward.baseline", "ema"], chosen)
    learning = [
        of for name, of in built.items() if name in ("ema", SHARED, "critic", "table") and isinstance(of, ScoreFunction)
    ]
    true, agreement = truth(s, judge, chosen, learning)
    print(f"\ncosine of the two halves of the true gradient: {agreement:.3f}\n")
    print("| estimator | cosine to the true gradient | noise | CPU seconds an estimate |\n|---|---|---|---|")
    figures = {"halves_cosine": agreement}
    for name, of in built.items():
        cosines, errors, seconds = measure(s, judge, of, true, chosen, name == SHARED)
        mean, deviation = statistics.mean(cosines), statistics.stdev(cosines)
        noise = statistics.mean(errors)
        print(f"| {name} | {mean:.2f} ± {deviation:.2f} | {noise:.3g} | {seconds:.2f} |", flush=True)
        figures |= {f"{name}_cosine": mean, f"{name}_noise": noise, f"{name}_seconds": seconds}
    figures |= {f"{name}_to_batch_noise_ratio": figures[f"{name}_noise"] / figures["batch_noise"] for name in built}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
