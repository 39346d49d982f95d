"""The learner of a run comes back from its folder; whatever is missing or damaged is said."""

import pytest
import torch

from configs.contrastive import ContrastiveConfig
from configs.errors import UsageError
from configs.reading import write
from configs.run import RunConfig
from contrastive.encoder import Learner
from contrastive.trained import load
from training import checkpoint

CPU = torch.device("cpu")
CONFIG = RunConfig(contrastive=ContrastiveConfig(width=8, projection=16))


def learner(seed):
    torch.manual_seed(seed)
    return Learner(CONFIG.contrastive, 16)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(write(CONFIG))
    for step in (10, 20):
        parts = {"learner": learner(step).state_dict(), "policy": {"w": torch.zeros(2)}}
        checkpoint.save(folder / "checkpoints", step, {"parts": parts, "seconds": 1.0})
    return folder


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_newest_checkpoint_is_read(run):
    state = torch.get_rng_state()
    found = load(run, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert (found.step, found.config) == (20, CONFIG)
    assert same(found.learner, learner(20))
    assert not any(part.training for part in found.learner.modules())
    assert all(p.requires_grad for p in found.learner.parameters())


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, capsys):
    newest = run / "checkpoints" / "step_00000020.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    found = load(run, CPU)
    assert found.step == 10
    assert same(found.learner, learner(10))
    assert "step_00000020" in capsys.readouterr().err


def test_only_damaged_checkpoints(run):
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"\x80pickle")
    with pytest.raises(UsageError, match=r"no checkpoint that is whole: .*not a safetensors file.*command again"):
        load(run, CPU)


def test_no_checkpoint_yet(run):
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="no checkpoint yet: give the run's command again"):
        load(run, CPU)


def test_no_such_folder(tmp_path):
    with pytest.raises(UsageError, match=r"no run's folder: it holds no config\.yaml"):
        load(tmp_path / "none", CPU)


def test_settings_of_something_else(run):
    (run / "config.yaml").write_text("flavor: vanilla\n")
    with pytest.raises(UsageError, match="no valid settings"):
        load(run, CPU)


def test_a_checkpoint_without_a_learner(run):
    checkpoint.save(run / "checkpoints", 30, {"parts": {"generator": {}}})
    with pytest.raises(UsageError, match="holds no learner"):
        load(run, CPU)


def test_a_learner_of_other_settings(run):
    other = RunConfig(contrastive=ContrastiveConfig(width=16, projection=16))
    (run / "config.yaml").write_text(write(other))
    with pytest.raises(UsageError, match=r"learner does not fit the settings: encoder\.0\.weight has shape"):
        load(run, CPU)
