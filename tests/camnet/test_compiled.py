"""A training that is compiled is the same training.

In a process of its own: the checks of shapes that run in tests cannot be compiled. Nor is code made here, which takes
minutes: the compiler only traces, decides what has to be compiled once more, and runs that as it was written.
"""

import json
import subprocess
import sys

ROUNDS = """
import json
import torch
from camnet.trainer import Trainer
from configs.camnet import CamnetConfig, GeneratorConfig
from configs.data import DataConfig
from env.images import load

torch.set_num_threads(1)
compile = torch.compile
seen = []
torch.compile = lambda function: seen.append(function.__name__) or compile(function, backend="eager")
network = GeneratorConfig(
    resolutions=(4, 8, 16), widths=(16, 16, 8), blocks=1, patch=2, regions=(1, 2, 2), context=True, norm=False,
    colorist=(8, 8, 8), painter=(8, 8, 8),
    tasks=("mix", "decompression"),
)
cpu, losses = torch.device("cpu"), {}
images = load(DataConfig(), cpu).train
for compiled in (False, True):
    config = CamnetConfig(
        generator=network, batch=4, group=2, reuse=2, candidates=(3, 2, 2), texture_weight=5, grid_weight=10,
        compile=compiled,
    )
    trainer = Trainer(config, images, cpu)
    trainer.begin()
    rounds = [trainer.round(step, 0.0) for step in range(0, 4 * config.stride, config.stride)]
    names = ("camnet/loss", "camnet/fill_loss", "camnet/color_loss")
    losses[compiled] = [float(sum(values[name] for name in names)) for some in rounds for values in some]
print(json.dumps({"plain": losses[False], "compiled": losses[True], "functions": seen}))
"""


def test_a_compiled_training_is_the_same_training():
    run = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["functions"] == ["_refine"] * 3 + ["conditions", "consistent", "see", "see", "features", "terms"]
    assert len(found["plain"]) == 4 * 4
    for plain, compiled in zip(found["plain"], found["compiled"], strict=True):
        assert abs(plain - compiled) <= 1e-4 * plain
    assert found["plain"] != [found["plain"][0]] * len(found["plain"])
