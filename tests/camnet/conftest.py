"""What the tests of evaluation share."""

import pytest
import torch

from camnet import frozen
from camnet.generator import Generator
from configs.camnet import GeneratorConfig

TINY = {"resolutions": (4, 8, 16), "widths": (8, 8, 8), "blocks": 1, "global_code": 4}


@pytest.fixture
def weights(tmp_path):
    """Write an untrained generator with a card; returns its path."""

    def write(name, seed=0, card=None, **settings):
        torch.manual_seed(seed)
        config = GeneratorConfig(**(TINY | settings))
        card = {"data": {"name": "digits", "size": config.resolutions[-1], "seed": 0}, **(card or {})}
        frozen.save(Generator(config), tmp_path / f"{name}.safetensors", {"generator": config.__dict__, **card})
        return str(tmp_path / f"{name}.safetensors")

    return write
