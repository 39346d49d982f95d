"""What the learner is shown: as many decorruptions as asked, those that are chosen, augmented last."""

import torch

from env.corruption import Action, corrupt
from env.showing import Showing, untouched

N, SIZE = 5, 8


def degraded():
    x = torch.rand(N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(N, dtype=torch.long)
    return corrupt(x, Action(torch.zeros(N, 2, 2, dtype=torch.bool), nothing, nothing.bool()))


def restore(corrupted, k, random, proposed):
    """View j of image i is everywhere i + j / 10."""
    values = torch.arange(len(corrupted))[:, None] + torch.arange(k) / 10
    return values[:, :, None, None, None].expand(-1, -1, 3, SIZE, SIZE).clone()


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def values(views):
    return views[:, :, 0, 0, 0]


def test_views_come_view_by_view_and_untouched_where_nothing_is_to_be_done():
    showing = Showing(restore, count=3)
    views = showing.decorrupt(degraded(), drawn())
    assert torch.equal(values(views), torch.arange(3)[:, None] / 10 + torch.arange(N))
    assert showing.show(views, torch.arange(N), drawn()) is views


def test_the_choice_is_made_before_the_augmentation_and_knows_the_rows():
    asked = []

    def choose(candidates, rows):
        asked.append((candidates.clone(), rows))
        return candidates[[2, 0]]

    def augment(x, random):
        return x + 100 * torch.rand(len(x), 1, 1, 1, generator=random)

    showing = Showing(restore, 3, choose, augment)
    candidates = showing.decorrupt(degraded(), drawn())
    shown = showing.show(candidates, torch.arange(10, 10 + N), drawn(7))
    assert torch.equal(asked[0][0], candidates)
    assert torch.equal(asked[0][1], torch.arange(10, 10 + N))
    noise = 100 * torch.rand(2 * N, 1, 1, 1, generator=drawn(7))  # one draw for every view of every image
    assert torch.equal(shown, candidates[[2, 0]] + noise.view(2, N, 1, 1, 1))


def test_where_nothing_is_deleted_every_view_is_the_image_and_no_code_is_drawn():
    random = drawn()
    views = Showing(untouched, count=3).decorrupt(degraded(), random)
    assert views.shape == (3, N, 3, SIZE, SIZE)
    assert all(torch.equal(view, degraded().kept) for view in views)
    assert torch.equal(random.get_state(), drawn().get_state())
