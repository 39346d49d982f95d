"""What an evaluation measures: generators, images and cases."""

import pytest
import torch
from PIL import Image

from camnet import frozen
from camnet.cards import are_other_images, cases_of
from camnet.evaluation import load_operators, prepare, restorable
from camnet.fills import Fill
from configs.data import DataConfig
from configs.evaluation import EvaluationConfig
from env.images import load

CPU = torch.device("cpu")
PETS = {"name": "imagefolder", "seed": 0}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_generator_is_left_out_of_cases_that_it_is_not_trained_for(weights, tmp_path):
    card = {"palette": [[0.1, 0.1, 0.1], [0.9, 0.2, 0.1]]}
    both = weights("both", card=card, tasks=("mix", "layout"), layout_classes=2)
    mix, others = weights("mix"), {"palette": [[0.2, 0.1, 0.1], [0.9, 0.2, 0.1]]}
    colors = weights("colors", card=others, tasks=("layout",), layout_classes=2)
    config = EvaluationConfig(generator=both, against=(mix, colors), images=4, out=tmp_path)
    cases = {name: able for name, (_, able) in prepare(config, CPU).cases.items()}
    assert cases["colorization"] == ["both", "mix"]
    assert cases["layout"] == ["both"]  # other classes: not the same layouts


def test_an_operator_of_ones_own_is_measured_on_its_tasks():
    image, first, own = load(DataConfig(), CPU).test.thinned(1), frozen.load("digits", CPU), Fill("erase")
    cases = cases_of("digits", first, CPU)
    assert restorable("own", own, first, cases, image) == list(cases)
    own.tasks = ("layout",)
    assert restorable("own", own, first, cases, image) == []


def test_the_images_are_those_of_the_card(weights, tmp_path):
    name = weights("seeded", card={"data": {"name": "digits", "size": 16, "seed": 3, "root": "elsewhere"}})
    evaluation = prepare(EvaluationConfig(generator=name, images=0, split="validation"), CPU)
    assert torch.equal(evaluation.x, load(DataConfig(seed=3), CPU).validation.images())
    assert evaluation.data == DataConfig(seed=3)
    few = prepare(EvaluationConfig(generator=name, images=2, split="validation"), CPU)
    assert torch.equal(few.x, evaluation.x[[0, -1]])


def test_other_training_images_are_pointed_out(weights, capsys):
    other = weights("other", card={"data": {"name": "digits", "size": 16, "seed": 5}})
    load_operators(EvaluationConfig(generator=weights("one"), against=(weights("same"),)), CPU)
    assert not capsys.readouterr().err
    load_operators(EvaluationConfig(generator=weights("one"), against=(other,)), CPU)
    assert "trained on other images than one, perhaps on these" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("card", "other", "differ"),
    [
        ({"data": PETS}, {"data": PETS | {"seed": 1}}, True),
        ({"data": PETS}, {"data": PETS | {"name": "stl10"}}, True),
        ({"data": PETS}, {"data": PETS | {"classes": [], "root": "elsewhere"}}, False),
        ({"data": PETS}, {"data": PETS | {"classes": ["cat"]}}, True),
        ({"data": PETS}, {}, False),
        ({"data": PETS, "class_names": ["cat", "dog"]}, {"data": PETS}, False),
        ({"data": PETS, "class_names": ["cat", "dog"]}, {"data": PETS, "class_names": ["cat", "owl"]}, True),
        # Typed as numbers by one, as names by the other.
        (
            {"data": PETS | {"classes": ["0", "1"]}, "class_names": ["cat", "dog"]},
            {"data": PETS | {"classes": ["dog", "cat"]}, "class_names": ["dog", "cat"]},
            False,
        ),
    ],
)
def test_cards_name_other_images_by_set_split_or_classes(card, other, differ):
    assert are_other_images(card, other) == are_other_images(other, card) == differ


def photos(folder):
    """Pictures of one color each, and maps that tell them apart."""
    (folder / "all").mkdir()
    for number in range(60):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / "all" / f"{number}.png")
        Image.new("L", (16, 16), number).save(folder / "all" / f"{number}_mask.png")
    return folder


def test_layouts_are_the_maps_that_a_generator_was_trained_on(weights, tmp_path):
    card = {"data": {"name": "imagefolder", "size": 16, "seed": 0}, "palette": None}
    settings = {"tasks": ("layout", "mix"), "layout_classes": 60}
    maps = weights("maps", card=card | {"layouts": "maps"}, **settings)
    alike, fewer = (
        weights(name, card=card | {"layouts": "maps"}, **(settings | {"layout_classes": classes}))
        for name, classes in (("alike", 60), ("fewer", 9))
    )
    colors = weights("colors", card=card | {"palette": [[0.1, 0.1, 0.1], [0.9, 0.2, 0.1]]}, **settings)
    asked = EvaluationConfig(
        generator=maps, against=(alike, fewer, colors, "erase"), images=5, data_root=photos(tmp_path), out=tmp_path
    )
    evaluation = prepare(asked, CPU)
    assert evaluation.cases["layout"][1] == ["maps", "alike", "erase"]
    assert evaluation.cases["colorization"][1] == ["maps", "alike", "fewer", "colors", "erase"]
    assert len(evaluation.x) == 5
    labels = evaluation.degraded("layout").labels
    assert torch.equal(labels[:, 3, 3], (evaluation.x[:, 0, 3, 3] * 255).round().long())
    assert prepare(EvaluationConfig(generator=colors, images=5, data_root=tmp_path, out=tmp_path), CPU).maps is None
