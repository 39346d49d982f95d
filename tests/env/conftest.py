"""A world without generator and learner, for the tests of its Gymnasium faces."""

import pytest
import torch

from env.corruption import corrupt
from env.distribution import fixed_rates
from env.images import ImageSet
from env.world import World
from training.seeding import generator_at


class Turns:
    """A learner that only counts its turns."""

    def __init__(self):
        self.count = torch.zeros(())

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class SmallWorld(World):
    """Pays by what an action leaves of its image, against the others, the step's noise and the turns taken so far."""

    def __init__(self, images=11, batch=4, grid=2, size=8, seed=5):
        random = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=random)
        self.images = ImageSet(pixels, torch.arange(images))
        self.batch, self.grid, self.seed = batch, grid, seed
        self.prior = lambda n, random: fixed_rates(n, grid, 0.3, 0.3, (0.2, 0.2), pixels.device).sample(random)
        self.turns = Turns()
        self.learning = {"learner": self.turns}
        self.asked = []

    def act(self, rows, action, step, turn=None):
        self.asked.append((rows, action, step))
        left = corrupt(self.images.images(rows), action).kept.square().mean(dim=(1, 2, 3))
        noise = torch.rand(len(rows), generator=generator_at(self.seed, step, "codes", self.device))
        r = left / left.sum() + noise + self.turns.count
        self.turns.count = self.turns.count + 1
        return r, {"learner/loss": r.mean().requires_grad_()}


@pytest.fixture
def make_world():
    return SmallWorld


@pytest.fixture
def world():
    return SmallWorld()
