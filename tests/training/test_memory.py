"""A GPU without enough memory is a sentence with a remedy, also where processes train together."""

import pytest
import torch
import torch.distributed as dist

import run_rl
from camnet import train
from configs.errors import UsageError
from training.memory import within_memory
from training.ranks import Ranks

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.00 GiB of which"


def full(*_, **__):
    raise torch.OutOfMemoryError(FULL)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="another"), within_memory("less"):
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("main", "flags", "place", "remedy"),
    [
        (run_rl.main, [], "run_rl.System", "lower --schedule.batch .*--contrastive.chunk"),
        (train.main, ["--out", "x.safetensors"], "camnet.train.Trainer", "lower --batch, --group or --candidates"),
    ],
)
def test_programs_name_what_takes_less(tmp_path, monkeypatch, main, flags, place, remedy):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, full)
    with pytest.raises(UsageError, match=rf"^CUDA out of memory: {remedy}"):
        main([*flags, "--device", "cpu"])


def test_a_process_that_runs_out_of_memory_has_not_lost_touch(monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", full)
    with pytest.raises(torch.OutOfMemoryError):
        Ranks(0, 2).any(True)
