"""The reference: held-out examples, fixed once, drawn as a function of (seed, step)."""

import pytest
import torch

from configs.reward import ReferenceConfig
from env.corruption import Action, corrupt, make_consistent
from env.images import ImageSet
from env.reference import DRAWS, corrupted_pairs, labelled_images

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
        return tuple(make_consistent(torch.rand(shape, generator=random), corrupted) for _ in range(2))

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
    kept, first, second = (corrupt(v, restorer.actions).kept for v in (x, reference.first, reference.second))
    assert torch.allclose(first, kept, atol=1e-6)
    assert torch.allclose(second, kept, atol=1e-6)
    shifted = corrupt(x.roll(1, dims=0), restorer.actions).kept
    assert not torch.allclose(first, shifted, atol=0.1)
    deletes = restorer.actions.mask.any(dim=(1, 2))
    assert deletes.float().mean() > 0.9
    assert ((reference.first - reference.second).abs().amax(dim=(1, 2, 3))[deletes] > 0.1).all()


def test_pairs_are_built_once_with_a_corruption_of_their_own_each(held_out):
    reference, restorer = pairs(held_out)
    for step in range(5):
        reference.at(step)
    assert len(restorer.asked) == DRAWS
    assert len(reference.first) == len(reference.second) == DRAWS * N
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


def test_pairs_stay_together_in_a_batch(held_out):
    reference, _ = pairs(held_out)
    for step in range(3):
        first, second = reference.at(step)
        rows = (first[:, None] == reference.first[None]).flatten(2).all(dim=2).int().argmax(dim=1)
        assert len(first) == STRONG.batch
        assert torch.equal(first, reference.first[rows])
        assert torch.equal(second, reference.second[rows])


@pytest.mark.parametrize("batch", [N, 100])
def test_a_set_no_larger_than_a_batch_is_taken_whole(held_out, batch):
    images, labels = labelled_images(ReferenceConfig(kind="labels", batch=batch), held_out, 0).at(7)
    assert torch.equal(images, held_out.images())
    assert torch.equal(labels, held_out.labels)
