"""A patchwork of codes has every region from the candidate that was chosen for it, nothing else of it changed."""

import pytest
import torch

from camnet.code import Code


def code(n, g=2, r=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    return Code(torch.randn(n, 3, g, g, generator=random), torch.randn(n, 1, r, r, generator=random))


@pytest.mark.parametrize("r", [2, 4, 8])
def test_a_patchwork_has_each_region_from_its_candidate(r):
    n, m, g = 3, 5, 2
    candidates = code(n * m, g, r)
    choice = torch.randint(m, (n, g, g), generator=torch.Generator().manual_seed(1))
    put = candidates.patchwork(choice)
    assert len(put) == n
    side = r // g
    for i in range(n):
        for a in range(g):
            for b in range(g):
                row = i * m + choice[i, a, b].item()
                place = (..., slice(a * side, (a + 1) * side), slice(b * side, (b + 1) * side))
                assert torch.equal(put.style[i, :, a, b], candidates.style[row, :, a, b])
                assert torch.equal(put.noise[i][place], candidates.noise[row][place])


def test_a_patchwork_without_noise():
    candidates = Code(torch.randn(4, 3, 2, 2), torch.zeros(4, 0, 4, 4))
    put = candidates.patchwork(torch.zeros(2, 2, 2, dtype=torch.long))
    assert torch.equal(put.style, candidates.style[[0, 2]])
    assert put.noise.shape == (2, 0, 4, 4)
