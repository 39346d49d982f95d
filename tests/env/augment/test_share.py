import pytest
import torch

from env.augment.share import replace_share, share


@pytest.mark.parametrize(("m", "p"), [(1, 0.8), (3, 0.4), (5, 0.2), (4, 1.0)])
def test_each_image_is_chosen_with_the_probability_asked_for(m, p):
    random, draws = torch.Generator().manual_seed(0), 4000
    hits = torch.zeros(m)
    for _ in range(draws):
        rows, last = share(m, p, random)
        hits[rows if last else rows[:-1]] += 1
    torch.testing.assert_close(hits / draws, torch.full((m,), p), atol=0.03, rtol=0)


def test_their_number_varies_by_one_at_most():
    random = torch.Generator().manual_seed(0)
    drawn = [share(64, 0.79, random) for _ in range(100)]
    assert {len(some.rows) for some in drawn} == {51}
    assert {bool(some.last) for some in drawn} == {False, True}
    assert all(len(some.rows.unique()) == 51 for some in drawn)


def test_a_whole_number_of_images_is_chosen_surely():
    random = torch.Generator().manual_seed(0)
    assert all(share(50, 0.2, random).last for _ in range(1000))


def test_only_the_share_is_replaced():
    x, random = torch.rand(10, 3, 4, 4), torch.Generator().manual_seed(0)
    y = x.clone()
    replace_share(y, 0.45, lambda part, _: 1 - part, random)
    changed = (y != x).flatten(1).any(dim=1)
    assert int(changed.sum()) in (4, 5)
    assert torch.equal(y[changed], 1 - x[changed])


def test_a_share_of_none_draws_nothing():
    random = torch.Generator().manual_seed(0)
    before = random.get_state()
    replace_share(torch.rand(4, 3, 2, 2), 0.0, lambda part, _: part, random)
    assert torch.equal(random.get_state(), before)
