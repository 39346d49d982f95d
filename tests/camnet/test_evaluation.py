"""What an evaluation measures: generators, images and cases."""

import pytest
import torch

from camnet import frozen
from camnet.cards import cases_of
from camnet.evaluation import load_operators, prepare, restorable
from camnet.fills import Fill
from configs.data import DataConfig
from configs.evaluation import EvaluationConfig
from env.images import load

CPU = torch.device("cpu")


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
    x, first, own = torch.rand(1, 3, 16, 16), frozen.load("digits", CPU), Fill("erase")
    cases = cases_of("digits", first, CPU)
    assert restorable("own", own, first, cases, x) == list(cases)
    own.tasks = ("layout",)
    assert restorable("own", own, first, cases, x) == []


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
