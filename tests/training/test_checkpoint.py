"""A checkpoint comes back exactly, or is recognized as damaged and skipped."""

import json
import os
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from configs.errors import UsageError
from training.checkpoint import load_into, newest_valid, save


def fail(message: str) -> None:
    raise AssertionError(message)


def restored(folder, state):
    save(folder, 7, state)
    found = newest_valid(folder, fail)
    assert found is not None
    assert found.step == 7
    return found.state


def test_scalars_and_structure_come_back_exactly(tmp_path):
    state = {
        "a": [1, 0.1, True, None, "x", float("inf"), [], {}],
        "b": {0: {"c": (0.9, 0.999)}, 1: "one", "1": "text"},
        "tensor": "not one",
        "dict": {"list": []},
    }
    again = restored(tmp_path, state)
    assert again == state
    assert [type(value) for value in again["a"]] == [type(value) for value in state["a"]]
    assert isinstance(again["b"][0]["c"], tuple)


def test_tensors_come_back_exactly(tmp_path):
    base = torch.randn(4, 6)
    state = {
        "bf16": torch.randn(3).bfloat16(),
        "zero_dim": torch.tensor(3.5),
        "bool": torch.tensor([True, False]),
        "int64": torch.tensor(2**62),
        "empty": torch.zeros(0, 3),
        "strided": base.t()[::2],
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "expanded": torch.randn(1).expand(5),
        "shared": [base, base, base[1:]],
        "nan": torch.tensor([float("nan"), -0.0]),
        "parameter": nn.Parameter(torch.randn(2)),
        "a/b": torch.ones(1),
        "a": {"b": torch.zeros(1)},
    }
    again = restored(tmp_path, state)
    for name in state.keys() - {"shared", "a"}:
        assert again[name].dtype == state[name].dtype
        torch.testing.assert_close(again[name], state[name].detach(), rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(x, y) for x, y in zip(again["shared"], state["shared"], strict=True))
    assert (again["a/b"].item(), again["a"]["b"].item()) == (1, 0)
    again["int64"].add_(1)  # writable, without a warning


def test_a_restored_optimizer_continues_bit_for_bit(tmp_path):
    def step(net, optimizer):
        optimizer.zero_grad()
        net(torch.arange(12.0).view(3, 4)).square().mean().backward()
        optimizer.step()

    def make(seed):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        return net, torch.optim.AdamW(net.parameters(), lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1)

    net, optimizer = make(0)
    for _ in range(3):
        step(net, optimizer)
    state = restored(tmp_path, {"net": net.state_dict(), "optimizer": optimizer.state_dict()})
    other_net, other_optimizer = make(1)
    load_into(other_net, state["net"], "the net")
    other_optimizer.load_state_dict(state["optimizer"])
    for _ in range(3):
        step(net, optimizer)
        step(other_net, other_optimizer)
    for name, value in net.state_dict().items():
        assert torch.equal(value, other_net.state_dict()[name]), name


def test_what_cannot_be_restored_is_refused_when_saving(tmp_path):
    with pytest.raises(TypeError, match="state/a/1"):
        save(tmp_path, 0, {"a": [1, object()]})
    with pytest.raises(TypeError, match=r"1\.5"):
        save(tmp_path, 0, {"a": {1.5: 1}})
    assert newest_valid(tmp_path, fail) is None


def test_no_folder_means_no_checkpoint(tmp_path):
    assert newest_valid(tmp_path / "absent", fail) is None


def test_old_ones_and_leftovers_go_after_the_new_one_is_in_place(tmp_path):
    (tmp_path / ".step_00000001.safetensors.99.partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    for step in (100, 200, 300):
        save(tmp_path, step, {"x": step}, keep=2)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["notes.txt", "step_00000200.safetensors", "step_00000300.safetensors"]


def test_damaged_files_of_later_steps_do_not_push_out_the_new_one(tmp_path):
    for step in (400, 500):
        (tmp_path / f"step_{step:08d}.safetensors").write_bytes(b"junk")
    save(tmp_path, 300, {"x": 1}, keep=1)
    found = newest_valid(tmp_path, lambda message: None)
    assert found is not None
    assert found.step == 300


def flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


DAMAGES = {
    "truncated": lambda data: data[:-3],
    "cut in the header": lambda data: data[:20],
    "empty": lambda data: b"",
    "longer": lambda data: data + b"\0",
    "flipped tensor": lambda data: flip(data, len(data) - 2),
    "flipped scalar": lambda data: data.replace(b"0.25", b"0.75"),
    "zeros": lambda data: bytes(len(data)),
    "pickle": lambda data: pickle.dumps({"x": 1}),
    "foreign": lambda data: safetensors.torch.save({"x": torch.zeros(1)}),
    "text": lambda data: b"hello world, this is not a checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_named_and_the_one_before_is_used(tmp_path, damage):
    save(tmp_path, 1, {"x": torch.ones(4), "y": 0.25})
    path = save(tmp_path, 2, {"x": torch.ones(4), "y": 0.25})
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    messages: list[str] = []
    found = newest_valid(tmp_path, messages.append)
    assert found is not None
    assert found.step == 1
    assert len(messages) == 1
    assert str(path) in messages[0]
    assert "damaged" in messages[0]


def test_every_flipped_bit_is_noticed(tmp_path):
    path = save(tmp_path, 1, {"x": torch.ones(2), "y": 0.25})
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(flip(whole, position))
        found = newest_valid(tmp_path, lambda message: None)
        # A flip in the header's padding may be harmless; a wrong value never is.
        assert found is None or (found.state["x"].tolist() == [1, 1] and found.state["y"] == 0.25)


def test_a_zip_archive_of_torch_save_is_refused_unopened(tmp_path):
    torch.save({"x": torch.ones(1)}, tmp_path / "step_00000009.safetensors")
    messages: list[str] = []
    assert newest_valid(tmp_path, messages.append) is None
    assert "not a safetensors file" in messages[0]


def test_a_renamed_checkpoint_is_not_taken_for_another_step(tmp_path):
    save(tmp_path, 1, {"x": 1}).rename(tmp_path / "step_00000005.safetensors")
    messages: list[str] = []
    assert newest_valid(tmp_path, messages.append) is None
    assert "it holds step 1" in messages[0]


def test_a_crash_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    save(tmp_path, 1, {"x": 1})

    def crash(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(UsageError, match=r"step_00000002.safetensors: No space left on device. Free space"):
        save(tmp_path, 2, {"x": 2})
    found = newest_valid(tmp_path, fail)
    assert found is not None
    assert found.state == {"x": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_weights_that_do_not_fit_are_named_and_change_nothing():
    net = nn.Linear(3, 2)
    before = json.dumps(net.weight.tolist())
    with pytest.raises(UsageError, match=r"the net .*weight has shape \(2, 4\), expected \(2, 3\)"):
        load_into(net, {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "the net")
    with pytest.raises(UsageError, match="bias is missing; scale is unknown"):
        load_into(net, {"weight": torch.zeros(2, 3), "scale": torch.zeros(2)}, "the net")
    assert json.dumps(net.weight.tolist()) == before
