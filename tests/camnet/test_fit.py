"""What a generator has seen is on its card and on those before it; folders are told apart by their classes."""

import json

import pytest
import torch

from camnet import frozen
from camnet.fills import Fill
from camnet.fit import caution, history, require_fit, require_unseen, same_images
from configs.data import DataConfig
from configs.errors import UsageError

DIGITS, FOLDER = ({"data": {"name": name, "seed": 0}} for name in ("digits", "imagefolder"))
OWN = DataConfig(name="imagefolder", seed=1)


def operator(**card):
    """Something that fits any images and has this card."""
    made = Fill("mean")
    made.card = card
    return made


def test_history_is_newest_first_and_ends():
    card = {"steps": 3, "before": {"steps": 2, "before": {"steps": 1, "before": {}}}}
    assert [link["steps"] for link in history(card)] == [3, 2, 1]
    assert [link["steps"] for link in history({"steps": 3, "before": None})] == [3]
    assert list(history({})) == []


@pytest.mark.parametrize("card", [DIGITS, {"before": DIGITS}, DIGITS | {"before": {"before": DIGITS}}])
def test_another_split_is_refused_however_long_ago(card):
    require_unseen(card, "--generator mine", DataConfig())
    with pytest.raises(UsageError, match=r"--generator mine .* of --data\.seed 0 .* of --data\.seed 1"):
        require_unseen(card, "--generator mine", DataConfig(seed=1))
    require_unseen(card, "--generator mine", DataConfig(name="cifar10", seed=1))


def test_a_folder_that_was_split_otherwise_is_told(tmp_path):
    for name in ("train/cat", "val/cat"):
        (tmp_path / name).mkdir(parents=True)
    split, whole = (DataConfig(name="imagefolder", root=root) for root in (tmp_path, tmp_path / "train"))
    card = FOLDER | {"class_names": ["cat"]}
    for others, same, other in ((["train", "val"], split, whole), ([], whole, split)):
        known = card | {"splits": others}
        for link in (known, {"before": known}):
            assert not caution(link, "--start old", same, ("cat",))
            said = caution(link, "--start old", other, ("cat",))
            assert said.startswith("--start old was trained on a folder with ")
            assert str(other.root) in said
        assert not caution(known, "--start old", other, ("dog",))
    assert not caution(card, "--start old", whole, ("cat",))
    assert not caution(DIGITS | {"splits": None}, "--start old", DataConfig(), ("cat",))


def test_a_card_that_names_images_and_not_their_split_is_refused_as_such():
    with pytest.raises(UsageError, match=r"^--generator mine: its card says .* digits, and not on which split"):
        require_unseen({"data": {"name": "digits"}}, "--generator mine", DataConfig(seed=1))
    require_unseen({"data": {"name": "digits"}}, "--generator mine", DataConfig(name="cifar10", seed=1))


def test_what_a_card_does_not_say_is_not_held_against_it():
    require_unseen({"steps": 3, "before": {"command": "of old", "before": None}}, "--start old", DataConfig(seed=1))


@pytest.mark.parametrize(
    ("own", "others", "same"),
    [
        (("cat", "dog"), ["dog", "owl"], True),
        (("cat", "dog"), ["owl"], False),
        ((), ["owl"], True),
        (("cat", "dog"), [], True),
    ],
)
def test_folders_that_share_no_class_are_other_images(own, others, same):
    card = FOLDER | {"class_names": others}
    assert same_images(card, OWN, own) == same
    if same:
        with pytest.raises(UsageError, match="seen held-out images"):
            require_fit(operator(**card), "mine", OWN, own)
    else:
        require_fit(operator(**card), "mine", OWN, own)


def test_the_classes_of_a_named_set_do_not_make_it_another():
    assert same_images(DIGITS | {"class_names": ["1", "7"]}, DataConfig(), ("2", "3"))


def test_a_part_of_another_folder_is_no_part_of_this_one():
    card = {"data": {"name": "imagefolder", "seed": 1, "size": 96, "classes": ["owl"]}, "class_names": ["owl"]}
    require_fit(operator(**card), "mine", OWN, ("cat", "dog"))
    with pytest.raises(UsageError, match="images of 96 pixels"):
        require_fit(operator(**card), "mine", OWN)


CIFAR = {"name": "cifar10", "seed": 0}
NUMBERS = {"data": CIFAR | {"classes": ["3", "5"]}}
PETS = FOLDER["data"] | {"classes": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("card", "data", "own", "fits"),
    [
        # One's names are another's numbers.
        ({"data": CIFAR | {"classes": ["cat"]}, "class_names": ["cat"]}, ("3",), ("cat",), True),
        (NUMBERS | {"class_names": ["cat", "dog"]}, ("cat",), ("cat",), True),
        (NUMBERS | {"class_names": ["cat", "dog"]}, ("5", "6"), ("dog", "frog"), False),
        # A part of a large folder is the whole of a small one.
        ({"data": PETS, "class_names": ["cat", "dog"]}, (), ("dog", "cat"), True),
        ({"data": PETS, "class_names": ["cat", "dog"]}, (), ("cat", "dog", "owl"), False),
        # A card without names, or a run of which none are known: what was typed decides.
        (NUMBERS, ("3",), ("cat",), True),
        (NUMBERS, (), ("cat", "dog"), False),
        (NUMBERS | {"class_names": ["cat", "dog"]}, ("3",), (), True),
    ],
)
def test_a_part_of_the_classes_serves_runs_on_no_others(card, data, own, fits):
    asked = DataConfig(name=card["data"]["name"], classes=data)
    if fits:
        require_fit(operator(**card), "mine", asked, own)
    else:
        with pytest.raises(UsageError, match="trained only on the classes"):
            require_fit(operator(**card), "mine", asked, own)


@pytest.mark.parametrize("name", ["imagefolder", "imagefolder96"])
def test_the_shipped_generators_for_folders_serve_any_other_folder(name):
    card = json.loads((frozen.SHIPPED / f"{name}.json").read_text())
    assert len(card["class_names"]) == 10
    require_unseen(card, name, OWN, ("cat", "dog"))
    with pytest.raises(UsageError, match="seen held-out images"):
        require_unseen(card, name, OWN, ("cat", "n01440764"))


def test_a_generator_that_knows_fewer_factors_than_a_policy_uses_is_refused(weights):
    for factors in (1, 2):
        few = frozen.load(weights("few", factors=factors), torch.device("cpu"))
        with pytest.raises(UsageError, match=rf"only the first {factors} .* uses 1, 2, 4: .* --generator\.factors 3"):
            require_fit(few, "few", DataConfig())
        require_fit(few, "few", DataConfig(), factors=factors)
        with pytest.raises(UsageError, match=rf"--generator\.factors {factors + 1}"):
            require_fit(few, "few", DataConfig(), factors=factors + 1)
    require_fit(frozen.load(weights("enough", factors=3), torch.device("cpu")), "enough", DataConfig())
    require_fit(Fill("mean"), "mean", DataConfig())
