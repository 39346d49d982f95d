"""Which decorruptions to show: what each choice of views costs a step, how well a cheap look chooses, what comes of it.

Three tables. Cost: a whole learner step (decorrupt, choose, learn), interleaved, medians, against two random views.
Look: candidates judged at half or a quarter of their side, or in bfloat16, against the exact look: how often the same
pair, and how much of the gain in dissimilarity is kept. Accuracy: runs of run_rl.py, equal steps.

    python benchmarks/views.py --data digits cifar10 --jobs 2
"""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rows import SETS, mean, options, results, spread

if TYPE_CHECKING:
    from system import System

FOLDER = Path("runs/views")
FIXED = [
    *("--policy", "random", "--reward", "none", "--policy.mask-ratio", "0.3", "--policy.decolorize", "0.7"),
    *("--policy.downsample", "0", "0"),
]
LATENT = ["--policy", "latent", *FIXED[4:], "--reward", "adversarial"]
CHOICES = {
    "random": FIXED,
    "most-different": [*FIXED, "--views", "most-different"],
    "most-different, half size": [*FIXED, "--views", "most-different", "--views.scoring-scale", "2"],
    "most-different, bfloat16": [*FIXED, "--views", "most-different", "--views.scoring-bfloat16", "True"],
    "hard": [*FIXED, "--views", "hard"],
    "all": [*FIXED, "--views", "all"],
    "policy": LATENT,
}
"""Flags by choice of views; K = 4 where there are candidates."""
WARM_UP, TIMED = 2, 9
LOOKED_AT = 8
"""Batches behind the quality of a look."""


def system(name: str, flags: list[str], further: Sequence[str]) -> "System":
    """A system as run_rl.py builds it with these flags and further ones, on the CPU or the GPU."""
    from configs.reading import read
    from configs.run import RunConfig
    from system import System
    from training import device

    config = read(RunConfig, [*SETS[name], *flags, *further], prog="views", description="")
    return System(config, device.resolve(config.device))


def step(s: "System", number: int) -> float:
    """Seconds of one step, from images to the learner's new weights; the policy's own turn is left out."""
    import torch

    from env.engine import Turn
    from training.seeding import generator_at

    wait = torch.cuda.synchronize if s.device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    random = generator_at(0, number, "step", s.device)
    rows = s.world.rows(number)
    x = s.data.train.images(rows)
    with torch.no_grad():
        action = s.policy(x).sample(random)
    views = s.world.show(s.world.decorrupt(x, [action], random), rows, random)
    s.engine.learn(views, rows, number, Turn(rewarded=False))
    wait()
    return time.perf_counter() - start


def costs(name: str, further: Sequence[str]) -> dict[str, float]:
    """Median seconds a step by choice of views."""
    systems = {choice: system(name, flags, further) for choice, flags in CHOICES.items()}
    seconds: dict[str, list[float]] = {choice: [] for choice in systems}
    for number in range(WARM_UP + TIMED):
        for choice, s in systems.items():
            taken = step(s, number)
            if number >= WARM_UP:
                seconds[choice].append(taken)
    return {choice: statistics.median(values) for choice, values in seconds.items()}


def looks(name: str, further: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Share of equal pairs, and share of the gain in dissimilarity that is kept, by cheaper look; a trained learner."""
    import torch

    from configs.views import ViewsConfig
    from contrastive.views import Choice, least_similar
    from training.seeding import generator_at

    s = system(name, CHOICES["most-different"], further)
    for number in range(60):
        step(s, number)
    kinds = {
        "half size": ViewsConfig(name="most-different", scoring_scale=2),
        "quarter size": ViewsConfig(name="most-different", scoring_scale=4),
        "bfloat16": ViewsConfig(name="most-different", scoring_bfloat16=True),
    }
    exact = Choice(s.learner, s.contrast, ViewsConfig(name="most-different"))
    equal: dict[str, list[float]] = {kind: [] for kind in kinds}
    kept: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(LOOKED_AT):
        random = generator_at(1, number, "looked at", s.device)
        x = s.data.train.images(s.world.rows(number))
        (candidates,) = s.world.decorrupt(x, [s.policy(x).sample(random)], random)
        u = exact.look(candidates)
        image = torch.arange(u.shape[1], device=u.device)

        def similarity(pair: torch.Tensor, u: torch.Tensor = u, image: torch.Tensor = image) -> torch.Tensor:
            return (u[pair[0], image] * u[pair[1], image]).sum(dim=-1).mean()

        best = least_similar(u)
        gain = similarity(torch.zeros_like(best).index_fill_(0, torch.tensor([1], device=u.device), 1)) - similarity(
            best
        )
        for kind, config in kinds.items():
            pair = least_similar(Choice(s.learner, s.contrast, config).look(candidates))
            equal[kind].append((pair == best).all(dim=0).float().mean().item())
            kept[kind].append(1 - ((similarity(pair) - similarity(best)) / gain).item())
    return {kind: (statistics.mean(equal[kind]), statistics.mean(kept[kind])) for kind in kinds}


def main() -> None:
    """Measure, run what is missing, print the tables and one JSON line."""
    chosen = options(str(__doc__), seeds=3, sets=True)
    figures: dict[str, float] = {}
    for name in chosen.data:
        seconds, seen = costs(name, chosen.flags), looks(name, chosen.flags)
        print(f"\n| {name}, K = 4 | a step (s) | against random |\n|---|---|---|")
        for choice, value in seconds.items():
            print(f"| {choice} | {value:.3f} | {value / seconds['random']:.2f} |")
            figures[f"{name}_{choice}_cost_ratio"] = value / seconds["random"]
        print(f"\n| {name}, look | same pair | gain kept |\n|---|---|---|")
        for kind, (equal, kept) in seen.items():
            print(f"| {kind} | {equal:.0%} | {kept:.0%} |")
            figures[f"{name}_{kind}_kept_ratio"] = kept
        found = results(FOLDER / name, {c: [*SETS[name], *flags] for c, flags in CHOICES.items()}, chosen)
        print(f"\n| {name} | kNN (%) | linear (%) | seconds | seeds |\n|---|---|---|---|---|")
        for choice, runs in sorted(found.items(), key=lambda item: -mean(item[1], "knn_top1")):
            knn, linear = (spread([run[key] for run in runs]) for key in ("knn_top1", "linear_top1"))
            print(f"| {choice} | {knn} | {linear} | {mean(runs, 'seconds'):.0f} | {len(runs)} |")
            figures[f"{name}_{choice}_knn"] = mean(runs, "knn_top1")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
