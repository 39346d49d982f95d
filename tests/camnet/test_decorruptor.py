"""One's own decorruptor: three methods are enough, and the page that says so is run."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import run_rl
from camnet import frozen
from camnet.decorruptor import Decorruptor, codes_per_image, select_rows, weights_sha256
from camnet.fills import KINDS, Fill
from camnet.jpeg import compress
from camnet.tasks import training_actions
from configs.data import DataConfig
from configs.errors import UsageError
from configs.policy import PolicyConfig
from configs.reward import ReferenceConfig, RewardConfig
from configs.run import RunConfig
from env import reference
from env.corruption import corrupt

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SIZE = 16


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def mixed(n, size=SIZE):
    return corrupt(torch.rand(n, 3, size, size, generator=drawn(1)), training_actions(n, (4,), drawn(2)))


class Careless(Decorruptor):
    """Answers each code with one flat color, far outside [0, 1] and whatever was kept; notes what it is asked."""

    def __init__(self, device=CPU):
        self.asked = []

    def codes(self, n, random):
        return torch.arange(n, device=random.device) * 10.0

    def restore(self, degraded, codes):
        self.asked.append((len(degraded), codes))
        return codes.view(-1, 1, 1, 1).expand(-1, *degraded.kept.shape[1:]) - 3

    def sha256(self):
        return "careless"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module that can be imported in this test alone; returns its name."""

    def write(text):
        (tmp_path / "own_decorruptor.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return "own_decorruptor"

    yield write
    sys.modules.pop("own_decorruptor", None)


def test_whatever_it_returns_the_views_keep_what_was_kept():
    degraded = mixed(20)
    views = Careless().views(degraded, 3, drawn(0))
    assert views.shape == (20, 3, 3, SIZE, SIZE)
    assert views.min() >= 0
    assert views.max() <= 1
    for j in range(3):
        assert degraded.residual(views[:, j]).max() <= 1e-6
    known = (~degraded.touched()).expand_as(degraded.kept)
    assert torch.equal(views[:, 2][known], degraded.kept[known])


def test_views_of_another_task_are_made_consistent_too():
    files = compress(torch.rand(2, 3, SIZE, SIZE, generator=drawn(1)), torch.full((2,), 5.0))
    for view in Careless().two_views(files, drawn(0)):
        assert files.residual(view).max() <= 1e-2


def test_one_pass_serves_all_views_and_rows_are_assigned_as_promised():
    operator = Careless()
    operator.views(mixed(4), 3, drawn(0))
    operator.two_views(mixed(4), drawn(0))
    (n, three), (m, two) = operator.asked
    assert (n, m) == (4, 4)
    # Row j * 4 + i is for view j of image i; restore is given them image by image.
    assert (three / 10).tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert (two / 10).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_codes_that_are_given_lie_view_by_view_as_drawn_ones():
    operator, degraded = Careless(), mixed(4)
    views = operator.views(degraded, 3, codes=operator.codes(12, drawn(0)))
    assert torch.equal(views, operator.views(degraded, 3, drawn(0)))
    assert torch.equal(operator.asked[0][1], operator.asked[1][1])
    given = operator.two_views(degraded, codes=operator.codes(8, drawn(0)))
    assert all(torch.equal(a, b) for a, b in zip(given, operator.two_views(degraded, drawn(0)), strict=True))


def test_codes_are_either_drawn_or_given():
    operator, degraded = Careless(), mixed(2)
    for random, codes in ((None, None), (drawn(0), operator.codes(4, drawn(0)))):
        with pytest.raises(ValueError, match="either codes or a generator that draws them"):
            operator.two_views(degraded, random, codes)


def test_the_first_view_is_that_of_the_first_codes():
    class Named(Careless):
        consistent = True

    v1, v2 = Named().two_views(mixed(3), drawn(0))
    assert v1[:, 0, 0, 0].tolist() == [-3, 7, 17]
    assert v2[:, 0, 0, 0].tolist() == [27, 37, 47]


def test_no_gradient_flows_through_it():
    class Trained(Careless):
        weight = nn.Parameter(torch.ones(()))

        def restore(self, degraded, codes):
            return super().restore(degraded, codes) * self.weight

    assert not any(view.requires_grad for view in Trained().two_views(mixed(3), drawn(0)))


def test_a_restoration_of_another_shape_is_refused():
    class Lazy(Careless):
        def restore(self, degraded, codes):
            return degraded.kept

    with pytest.raises(ValueError, match=r"Lazy.restore returned \(3, 3, 16, 16\), not \(6, 3, 16, 16\)"):
        Lazy().two_views(mixed(3), drawn(0))


def test_three_methods_are_needed():
    class Half(Decorruptor):
        def codes(self, n, random):
            return torch.zeros(n)

    with pytest.raises(TypeError, match=r"abstract.*restore.*sha256"):
        Half()


def test_rows_of_every_kind_of_code_can_be_selected():
    @dataclass
    class Rows:
        values: list[int]

        def select(self, index):
            return Rows([self.values[i] for i in index.tolist()])

    index = torch.tensor([2, 0])
    chosen = select_rows([torch.arange(3), (Rows([5, 6, 7]), torch.eye(3))], index)
    assert chosen[0].tolist() == [2, 0]
    assert chosen[1][0].values == [7, 5]
    assert torch.equal(chosen[1][1], torch.eye(3)[index])


def test_codes_are_counted():
    assert codes_per_image(6, 3) == 2
    for codes in (0, 2, 4):
        with pytest.raises(ValueError, match=f"{codes} codes for 3 images"):
            codes_per_image(codes, 3)


def test_the_hash_covers_every_weight_of_every_type():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[0].bfloat16()
    seen = {weights_sha256(net)}
    for value in net.state_dict().values():
        value.view(-1)[-1] += 1
        seen.add(weights_sha256(net))
    assert len(seen) == 1 + len(net.state_dict())


# What --generator names.


def example():
    return re.search(r"^```python\n(.*?)^```", (ROOT / "docs" / "bring-your-own.md").read_text(), re.M | re.S)[1]


def config(tmp_path, *, data=None, **settings):
    return RunConfig(runs=tmp_path, data=DataConfig(**data or {}), **settings)


def test_the_example_of_the_page_is_short_and_runs(own, tmp_path, monkeypatch):
    assert len([line for line in example().splitlines() if line.strip()]) <= 20
    name = own(example()) + ":Mine"
    monkeypatch.setattr(reference, "DRAWS", 1)
    flags = ["--config", str(ROOT / "configs" / "smoke.yaml"), "--device", "cpu", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(run_rl.pictures, "draw", lambda sheets, path: None)
    monkeypatch.setattr(run_rl.curves, "draw", lambda history, panels, path: None)
    monkeypatch.setattr(run_rl, "accuracies", lambda *_: {"knn_top1": 0.5, "linear_top1": 0.5})
    run_rl.main([*flags, "--generator", name, "--steps", "3", "--schedule.batch", "8"])
    summary = json.loads((tmp_path / "runs" / "smoke" / "summary.json").read_text())
    assert (summary["generator"], summary["generator_file_sha256"]) == (name, None)
    assert summary["camnet_sha256_before"] == summary["camnet_sha256_after"] != ""


def test_the_example_of_the_page_keeps_its_promises(own):
    operator = frozen.find(own(example()) + ":Mine", DataConfig(), CPU)
    degraded = mixed(12)
    v1, v2 = operator.two_views(degraded, drawn(0))
    assert degraded.residual(v1).max() <= 1e-6
    assert (v1 - v2).abs().max() > 0.05
    codes = operator.codes(24, drawn(0))
    restored = operator.restore(degraded, codes)
    for row in (0, 1, 23):
        alone = operator.restore(degraded.select(torch.tensor([row // 2])), codes[row : row + 1])
        assert torch.allclose(alone[0], restored[row], atol=1e-5)
    assert operator.sha256() == frozen.find("own_decorruptor:Mine", DataConfig(), CPU).sha256()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fill_is_named_by_its_rule(kind):
    operator = frozen.find(kind, DataConfig(size=32), CPU)
    assert isinstance(operator, Fill)
    assert operator.kind == kind
    assert operator.two_views(mixed(2, 32), drawn(0))[0].shape == (2, 3, 32, 32)


def test_auto_is_what_ships_for_the_images(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "DRAWS", 1)
    system = run_rl.System(config(tmp_path, device="cpu"), CPU)
    assert system.generator_name == "digits"
    assert system.generator.sha256() == frozen.load("digits", CPU).sha256()


def test_auto_without_shipped_weights_tells_how_to_make_them():
    with pytest.raises(UsageError) as caught:
        frozen.find("auto", DataConfig(name="imagefolder", size=48), CPU)
    for part in ("--generator auto", "--data.size", "configs/camnet_imagefolder.yaml", "--generator PATH", "noise"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "parts"),
    [
        ("", "own_decorruptor:make", ["cannot import make from own_decorruptor"]),
        ("import nowhere_at_all", "own_decorruptor:make", ["nowhere_at_all"]),
        ("", "no_such_module:make", ["no_such_module", "PYTHONPATH"]),
        ("", ":make", [":make"]),
        ("make = 3", "own_decorruptor:make", ["takes a device"]),
        ("def make(device): return 3", "own_decorruptor:make", ["returned int", "Decorruptor"]),
    ],
)
def test_a_module_that_gives_no_decorruptor_is_refused(own, text, name, parts):
    own(text)
    with pytest.raises(UsageError) as caught:
        frozen.find(name, DataConfig(), CPU)
    for part in ["--generator", name, *parts]:
        assert part in str(caught.value)


def test_an_error_inside_the_factory_is_shown_as_it_is(own):
    name = own("def make(device):\n    raise ZeroDivisionError('planted')\n")
    with pytest.raises(ZeroDivisionError, match="planted"):
        frozen.find(f"{name}:make", DataConfig(), CPU)


def checked(monkeypatch, tmp_path, *, data=None, settings=None, **attributes):
    """Build a run around a decorruptor with these attributes, as far as its checks."""
    operator = Careless()
    for name, value in attributes.items():
        setattr(operator, name, value)
    monkeypatch.setattr(frozen, "find", lambda *_: operator)
    monkeypatch.setattr(reference, "DRAWS", 1)
    return run_rl.System(config(tmp_path, data=data, generator="mine:make", device="cpu", **settings or {}), CPU)


DIGITS = {"name": "digits", "seed": 0}


@pytest.mark.parametrize(
    ("attributes", "part"),
    [
        ({"size": 32}, "restores images of 32 pixels"),
        ({"tasks": ("layout", "decompression")}, "--generator.tasks mix"),
        ({"factors": 2}, "this run uses 1, 2, 4"),
        ({"card": {"data": DIGITS | {"seed": 1}}}, "the split of --data.seed 1"),
        ({"card": {"data": {"name": "digits"}}}, "digits, and not on which split"),
        ({"card": {"data": DIGITS | {"size": 32}}}, "trained on images of 32"),
        ({"card": {"data": DIGITS | {"classes": ["1", "7"]}}}, "only on the classes 1, 7:"),
    ],
)
def test_a_decorruptor_that_does_not_fit_the_images_is_refused(monkeypatch, tmp_path, attributes, part):
    with pytest.raises(UsageError) as caught:
        checked(monkeypatch, tmp_path, **attributes)
    assert part in str(caught.value)
    assert "--generator mine:make" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "attributes"),
    [
        ({}, {"size": None}),
        ({}, {"size": 16, "tasks": ("mix",), "card": {"data": DIGITS | {"size": 16, "classes": []}}}),
        ({}, {"factors": 3, "card": {"data": {"name": "cifar10", "seed": 5, "size": 32}}}),
        ({"classes": ("1", "7")}, {"card": {"data": DIGITS}}),
        ({"classes": ("7", "1")}, {"card": {"data": DIGITS | {"classes": ["1", "3", "7"]}}}),
    ],
)
def test_a_decorruptor_that_fits_is_taken(monkeypatch, tmp_path, data, attributes):
    assert isinstance(checked(monkeypatch, tmp_path, data=data, **attributes).generator, Careless)


def unlearned(policy, reference=(0.0, 0.0), kind="corruption"):
    """Settings of a run whose policy learns nothing."""
    held_out = ReferenceConfig(kind=kind, downsample=reference)
    return {"policy": policy, "reward": RewardConfig(name="none", reference=held_out)}


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (unlearned(PolicyConfig(name="random", downsample=(0.0, 0.0))), 1),
        (unlearned(PolicyConfig(name="crop", downsample=(0.3, 0.0))), 2),
        (unlearned(PolicyConfig(name="random", downsample=(0.0, 0.3))), 3),
        (unlearned(PolicyConfig(name="none")), 1),
        (unlearned(PolicyConfig(name="decolorize")), 1),
        (unlearned(PolicyConfig(name="none"), (0.2, 0.0)), 2),
        (unlearned(PolicyConfig(name="none"), (0.2, 0.0), "labels"), 1),
        (unlearned(PolicyConfig(name="downsample", downsample=(0.0, 0.0))), 3),
        ({"policy": PolicyConfig(downsample=(0.0, 0.0))}, 3),  # it learns, and may come to any of them
    ],
)
def test_only_factors_that_a_run_can_draw_are_needed(monkeypatch, tmp_path, settings, needed):
    assert checked(monkeypatch, tmp_path, settings=settings, factors=needed)
    if needed > 1:
        with pytest.raises(UsageError, match=rf"the first {needed - 1} .*--generator\.factors {needed}"):
            checked(monkeypatch, tmp_path, settings=settings, factors=needed - 1)
