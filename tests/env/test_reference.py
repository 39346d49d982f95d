"""The reference: held-out examples, fixed once, drawn as a function of (seed, step)."""

import pytest
import torch

from configs.reward import ReferenceConfig
from env import reference as module
from env.corruption import Action, corrupt, make_consistent
from env.images import ImageSet
from env.reference import DRAWS, corrupted_pairs, expert_pairs, labelled_images

N = 12
STRONG = ReferenceConfig(mask_ratio=0.4, decolorize=0.5, downsample=(0.3, 0.3), batch=5)


@pytest.fixture
def held_out():
    """Images that can be told apart by their first value, which is also their label."""
    pixels = torch.randint(256, (N, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(N, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(N))


class Restorer:
    """Stands in for the generator: noise, made consistent. Keeps what it was asked to restore."""

    def __init__(self):
        self.asked = []

    def __call__(self, corrupted, random):
        self.asked.append(corrupted)
        shape = corrupted.kept.shape
        first, second = (make_consistent(torch.rand(shape, generator=random), corrupted) for _ in range(2))
        return first, second

    @property
    def actions(self):
        parts = [c.action for c in self.asked]
        return Action(*(torch.cat([getattr(a, name) for a in parts]) for name in ("mask", "downsample", "decolorize")))


def pairs(held_out, seed=0, config=STRONG):
    restorer = Restorer()
    return corrupted_pairs(config, held_out, restorer, 4, seed), restorer


def test_both_views_of_a_pair_agree_on_what_the_corruption_kept_and_on_nothing_else(held_out):
    reference, restorer = pairs(held_out)
    x = held_out.images().repeat(DRAWS, 1, 1, 1)
    views = reference.first.flatten(0, 1), reference.second.flatten(0, 1)
    kept, first, second = (corrupt(v, restorer.actions).kept for v in (x, *views))
    assert torch.allclose(first, kept, atol=1e-6)
    assert torch.allclose(second, kept, atol=1e-6)
    shifted = corrupt(x.roll(1, dims=0), restorer.actions).kept
    assert not torch.allclose(first, shifted, atol=0.1)
    deletes = restorer.actions.mask.any(dim=(1, 2))
    assert deletes.float().mean() > 0.9
    assert ((views[0] - views[1]).abs().amax(dim=(1, 2, 3))[deletes] > 0.1).all()


def test_pairs_are_built_once_with_a_corruption_of_their_own_each(held_out):
    reference, restorer = pairs(held_out)
    asked = len(restorer.asked)
    for step in range(5):
        reference.at(step)
    assert len(restorer.asked) == asked
    assert reference.first.shape == reference.second.shape == (DRAWS, N, 3, 16, 16)
    masks = restorer.actions.mask.flatten(1)
    assert len(masks.unique(dim=0)) > 0.9 * len(masks)
    assert masks.float().mean().item() == pytest.approx(0.4, abs=0.05)


def test_pairs_are_a_function_of_the_seed(held_out):
    one, _ = pairs(held_out, seed=3)
    torch.manual_seed(99)
    again, _ = pairs(held_out, seed=3)
    other, _ = pairs(held_out, seed=4)
    assert torch.equal(one.first, again.first)
    assert torch.equal(one.second, again.second)
    assert not torch.equal(one.first, other.first)


def test_a_batch_is_a_function_of_seed_and_step(held_out):
    reference = labelled_images(STRONG, held_out, 0)
    drawn = [reference.at(step)[1].tolist() for step in range(4)]
    assert [reference.at(step)[1].tolist() for step in reversed(range(4))] == drawn[::-1]
    assert len(set(map(tuple, drawn))) == 4
    assert labelled_images(STRONG, held_out, 1).at(0)[1].tolist() != drawn[0]


def test_a_batch_is_drawn_without_replacement_and_visits_all(held_out):
    reference = labelled_images(STRONG, held_out, 0)
    drawn = [reference.at(step)[1].tolist() for step in range(30)]
    assert all(len(batch) == len(set(batch)) == STRONG.batch for batch in drawn)
    assert set().union(*drawn) == set(range(N))


def test_labels_stay_with_their_images(held_out):
    reference = labelled_images(STRONG, held_out, 0)
    for step in range(4):
        images, labels = reference.at(step)
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), labels)
        assert torch.equal(images, held_out.images(labels))


def places(views, kept):
    """Which draw of which image each view is."""
    same = (views[:, None] == kept.flatten(0, 1)[None]).flatten(2).all(dim=2)
    assert (same.sum(dim=1) == 1).all()
    place = same.int().argmax(dim=1)
    return (place // N).tolist(), (place % N).tolist()


@pytest.mark.parametrize("batch", [5, N, 64])
def test_no_image_is_in_a_batch_twice_and_all_draws_are_used(held_out, batch):
    """Two pairs of one image in a batch would be one another's negatives."""
    reference, _ = pairs(held_out, config=ReferenceConfig(mask_ratio=0.4, batch=batch))
    used = set()
    for step in range(40):
        first, second = reference.at(step)
        draws, images = places(first, reference.first)
        assert places(second, reference.second) == (draws, images)  # pairs stay together
        assert len(images) == len(set(images)) == min(batch, N)
        used |= set(zip(draws, images, strict=True))
    assert len(used) > 0.7 * DRAWS * N
    assert {draw for draw, _ in used} == set(range(DRAWS))


@pytest.mark.parametrize("batch", [N, 100])
def test_a_set_no_larger_than_a_batch_is_taken_whole(held_out, batch):
    images, labels = labelled_images(ReferenceConfig(kind="labels", batch=batch), held_out, 0).at(7)
    assert sorted(labels.tolist()) == list(range(N))
    assert torch.equal(images, held_out.images(labels))


def augment(x, random):
    """Adds to each image a number of its own, large enough to tell its views apart."""
    return x + 1 + torch.rand(len(x), 1, 1, 1, generator=random)


def test_expert_pairs_are_two_augmentations_of_each_image(held_out):
    reference = expert_pairs(STRONG, held_out, augment, 0)
    added = [(views - held_out.images()).flatten(2) for views in (reference.first, reference.second)]
    assert all(part.shape == (DRAWS, N, 3 * 16 * 16) and part.std(dim=2).max() < 1e-6 for part in added)
    assert len(torch.stack(added).mean(dim=3).unique()) > 0.99 * 2 * DRAWS * N


@pytest.mark.parametrize("kind", ["corruption", "expert"])
def test_pairs_are_made_in_chunks_and_no_more_than_agreed(held_out, monkeypatch, kind):
    monkeypatch.setattr(module, "CHUNK", 10)
    monkeypatch.setattr(module, "PAIRS", 3 * N + 5)
    asked = []

    def two_views(corrupted, random):
        asked.append(len(corrupted))
        return corrupted.kept, corrupted.kept

    def augmented(x, random):
        asked.append(len(x) // 2)
        return x

    if kind == "corruption":
        reference = corrupted_pairs(ReferenceConfig(mask_ratio=0.0, decolorize=0.0), held_out, two_views, 4, 0)
    else:
        reference = expert_pairs(STRONG, held_out, augmented, 0)
    assert asked == [10, 10, 10, 6]
    assert torch.equal(reference.first, held_out.images().expand(3, -1, -1, -1, -1))
    assert torch.equal(reference.second, reference.first)
