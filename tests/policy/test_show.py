"""The sheet of a trained policy: its numbers are the policy's, and it is drawn for every shape of policy and data."""

import json
import math
from pathlib import Path

import matplotlib.image
import pytest
import torch

from configs.errors import UsageError
from configs.policy import PolicyConfig
from configs.reading import read, write
from configs.reward import RewardConfig
from configs.run import RunConfig
from configs.show import ShowConfig
from env import images
from env.distribution import fixed_rates
from policy import export, portrait, show
from policy.habits import Habits, observe
from policy.network import PolicyNetwork
from policy.portrait import Examples, Portrait, draw

CONFIG = RunConfig(policy=PolicyConfig(width=8, downsample=(0.2, 0.1)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = PolicyNetwork(CONFIG.policy, 16)
    for head in (network.mask_head, network.downsample_head, network.decolorize_head):
        torch.nn.init.normal_(head.image.weight, std=0.3)  # trained: it no longer treats all images alike
    return network


@pytest.fixture
def run(network, tmp_path):
    folder = tmp_path / "trained"
    export.export(network, folder, {"run": "trained"})
    (folder / "config.yaml").write_text(write(CONFIG))
    row = {"policy/mask_ratio": 0.3, "policy/p_decolorize": 0.1, "policy/entropy": 10.7}
    rows = [json.dumps({"step": step} | row) for step in (10, 20)]
    (folder / "metrics.jsonl").write_text("\n".join([*rows, '{"step": 30, "policy/mas']))
    return folder


def test_a_run_is_drawn_into_its_folder_and_told(run, capsys, monkeypatch):
    monkeypatch.setattr(show, "EXTREMES", 2)
    show.main([str(run), "--images", "40"])
    picture = matplotlib.image.imread(run / "policy.png")
    assert picture.shape[1] == 1650
    assert picture[..., :3].std() > 0.1  # not an empty page
    said = capsys.readouterr().out
    assert "40 test images" in said
    assert str(run / "policy.png") in said


def test_a_policy_that_is_older_than_its_run_is_told(run, network, capsys, monkeypatch):
    monkeypatch.setattr(show, "draw", lambda portrait, path: None)
    for steps, told in ((20, ""), (8, "has gone on for 12 steps since its policy was exported")):
        export.export(network, run, {"run": "trained", "steps": steps})
        show.main([str(run), "--images", "40"])
        said = capsys.readouterr().err
        assert (told in said) if told else not said


def test_the_picture_goes_where_it_is_told(run, tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(show, "draw", lambda portrait, path: places.append(path))
    show.main([str(run), "--images", "4", "--out", str(tmp_path / "elsewhere.png")])
    show.main([str(run), "--images", "4"])
    assert places == [tmp_path / "elsewhere.png", run / "policy.png"]


def test_the_table_holds_mean_and_extremes_of_the_policys_own_rates(network, monkeypatch):
    x = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p = network(x).probabilities()
    monkeypatch.setattr("policy.habits.BATCH", 7)
    habits = observe(network, x)
    ratio = p["mask"].mean(dim=(1, 2))
    assert torch.allclose(habits.rates()["mask"], ratio, atol=1e-6)
    assert torch.allclose(habits.rates()["1/4"], p["downsample"][:, 2], atol=1e-6)
    line = next(line for line in show.table(habits).splitlines() if line.startswith("mask ratio"))
    assert [float(word) for word in line.split()[2:]] == [
        pytest.approx(value.item(), abs=6e-4) for value in (ratio.mean(), ratio.min(), ratio.max())
    ]


@pytest.mark.parametrize(
    ("mask", "decolorize", "downsample", "deleted"),
    [
        (0.0, 0.0, (0.0, 0.0), 0),
        (1.0, 0.0, (0.0, 0.0), 1),
        (0.0, 1.0, (0.0, 0.0), 2 / 3),
        (0.0, 0.0, (1.0, 0.0), 3 / 4),
        (0.0, 0.0, (0.0, 1.0), 15 / 16),
        (0.5, 0.5, (0.2, 0.4), 1 - 0.5 * (2 / 3) * (0.4 + 0.2 / 4 + 0.4 / 16)),
    ],
)
def test_the_deleted_share_counts_numbers(mask, decolorize, downsample, deleted):
    x = torch.zeros(2, 3, 16, 16)
    habits = observe(lambda some: fixed_rates(len(some), 4, mask, decolorize, downsample, images.CPU), x)
    assert habits.deleted().tolist() == pytest.approx([deleted] * 2, abs=1e-6)


def made(mask):
    n = len(mask)
    return Habits(mask, torch.tensor([[1.0, 0.0, 0.0]]).expand(n, 3), torch.zeros(n))


def test_extremes_are_ordered_and_apart():
    habits = made(torch.tensor([0.2, 0.9, 0.5, 0.1, 0.7]).view(5, 1, 1).expand(5, 2, 2))
    most, least = habits.extremes(6)
    assert most.tolist() == [1, 4]
    assert least.tolist() == [3, 0]
    assert habits.extremes(1)[0].tolist() == [1]


def test_masks_of_classes_are_their_own_means():
    mask = torch.arange(4.0).view(4, 1, 1).expand(4, 2, 2) / 4
    classes = made(mask).class_masks(torch.tensor([0, 0, 2, 2]), 3)
    assert classes[:, 0, 1].tolist() == pytest.approx([0.125, math.nan, 0.625], nan_ok=True)


def test_a_cell_is_as_undecided_as_its_bit_given_the_image():
    mask = torch.full((2, 2, 2), 0.5)
    mask[:, 0, 1] = torch.tensor([0.0, 1.0])  # certain, though not the same in both images
    assert made(mask).cell_entropy().tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_examples_are_one_draw_with_the_hidden_striped():
    def policy(some):
        return fixed_rates(len(some), 4, 1.0, 0.0, (0.0, 0.0), images.CPU)

    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    drawn = show.examples("all", policy, x, observe(policy, x), torch.tensor([2, 0]), seed=0)
    assert torch.equal(drawn.image, x[[2, 0]])
    assert set(drawn.drawn.unique().tolist()) == {0.25, 0.75}
    assert drawn.above == ["100.0% deleted"] * 2
    assert drawn.below == ["mask 1.00\nP(gray) 0.00\nP(1/2) 0.00\nP(1/4) 0.00"] * 2


def test_a_new_policy_starts_at_its_rate_and_one_that_starts_from_another_is_not_guessed():
    like = torch.zeros(4, 4)
    (start,) = show.starting_mask(CONFIG, like).values()
    assert torch.equal(start, torch.full((4, 4), 0.3))
    assert show.starting_mask(RunConfig(policy=PolicyConfig(start="runs/other")), like) == {}
    assert show.starting_mask(RunConfig(policy=PolicyConfig(name="autodropout")), like) == {}


def sheet(side, classes, points):
    """Something to draw: a mask of so many cells a side, so many classes, curves of so many points."""
    mask, x = torch.rand(side, side, generator=torch.Generator().manual_seed(0)), torch.rand(1, 3, 16, 16)
    return Portrait(
        title="a policy",
        masks={"mean mask now": mask},
        entropy=mask,
        classes={f"class {i}": mask * (math.nan if i == 1 else 1) for i in range(classes)},
        examples=[Examples("most", x, x, ["a"], ["b"]), Examples("least", x, x, ["a"], ["b"])],
        history={"policy/entropy": (list(range(points)), [1.0] * points)} if points else {},
    )


@pytest.mark.parametrize(("side", "classes", "points"), [(1, 1, 0), (16, 5, 1), (2, 3, 3)])
def test_every_shape_is_drawn(side, classes, points, tmp_path, monkeypatch):
    monkeypatch.setattr(portrait, "CLASSES", 4)  # hundreds of axes would take seconds
    monkeypatch.setattr(portrait, "CLASSES_A_ROW", 2)
    draw(sheet(side, classes, points), tmp_path / "policy.png")
    assert (tmp_path / "policy.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot write .*missing/policy\.png"):
        draw(sheet(1, 1, 0), tmp_path / "missing" / "policy.png")


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere is no run's folder: it holds no config\.yaml"):
        show.main([str(tmp_path / "nowhere")])


def test_a_run_that_has_not_ended_is_told_how_to_end(run):
    (run / "policy.safetensors").unlink()
    with pytest.raises(UsageError, match=r"no policy\.safetensors.*Give its command again"):
        show.main([str(run)])


def test_a_policy_that_learned_nothing_has_nothing_to_show(run):
    config = RunConfig(policy=PolicyConfig(name="random"), reward=RewardConfig(name="none"))
    (run / "config.yaml").write_text(write(config))
    with pytest.raises(UsageError, match="random, learned nothing"):
        show.main([str(run)])


@pytest.mark.parametrize("text", ["policy:\n  colour: 1\n", "seed: many\n", "- 1\n"])
def test_damaged_settings_are_named(run, text):
    (run / "config.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"config\.yaml holds no valid settings"):
        show.main([str(run)])


def test_another_place_of_the_images_can_be_given(run, tmp_path):
    config = RunConfig(policy=CONFIG.policy, data=images.DataConfig(name="cifar10"), generator="blur")
    (run / "config.yaml").write_text(write(config))
    with pytest.raises(UsageError, match=r"there is no .*moved.cifar-10-batches-py"):
        show.main([str(run), "--data.root", str(tmp_path / "moved")])


def test_settings_have_bounds_and_a_default_place():
    config = read(ShowConfig, ["runs/x"], prog="", description="")
    assert config.out == Path("runs/x/policy.png")
    assert read(ShowConfig, ["runs/x", "--out", "."], prog="", description="").out == Path(".")
    with pytest.raises(UsageError, match="--images must lie in"):
        read(ShowConfig, ["runs/x", "--images", "-1"], prog="", description="")
