"""What is drawn for training and for tables: the right share of everything, and each case deletes what it says."""

import pytest
import torch

from camnet.layout import Palette
from camnet.tasks import Tasks, training_actions
from configs.camnet import GeneratorConfig
from env.corruption import corrupt


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, size=32):
    colors = torch.rand(n, 3, 4, 4, generator=random(1))
    return torch.nn.functional.interpolate(colors, size, mode="bilinear")


def tasks(**settings):
    palette = Palette(torch.tensor([[0.1, 0.1, 0.1], [0.5, 0.5, 0.9], [0.9, 0.8, 0.2]]))
    config = GeneratorConfig(tasks=("mix", "decompression", "layout"), factors=5, layout_classes=3, **settings)
    return Tasks(config, (2, 4, 8), 0.4, palette)


def test_masks_come_from_every_grid():
    a = training_actions(3000, (2, 4, 8), random())
    assert a.mask.shape == (3000, 8, 8)
    mask = a.mask.float()

    def blocks(side):
        pooled = torch.nn.functional.avg_pool2d(mask[:, None], side)
        return ((pooled == 0) | (pooled == 1)).all(dim=(1, 2, 3))

    some = mask.mean(dim=(1, 2))
    mixed = (some > 0.2) & (some < 0.8)
    coarse, middle = (blocks(4) & mixed).sum() / mixed.sum(), (blocks(2) & ~blocks(4) & mixed).sum() / mixed.sum()
    fine = (~blocks(2) & mixed).sum() / mixed.sum()
    assert all(0.2 < share < 0.5 for share in (coarse, middle, fine))


def test_one_grid_draws_what_it_always_drew():
    """The digits' generator was trained on these draws."""
    a = training_actions(4, (4,), random(3))
    ratio = torch.rand(4, 1, 1, generator=(r := random(3)))
    masked = torch.rand(4, 1, 1, generator=r) < 0.75
    assert torch.equal(a.mask, (torch.rand(4, 4, 4, generator=r) < ratio) & masked)
    assert torch.equal(a.decolorize, torch.rand(4, generator=r) < 0.5)


@pytest.mark.parametrize("factors", [1, 3, 5])
def test_all_factors_alike_and_no_others(factors):
    a = training_actions(4000, (4,), random(), factors=factors)
    shares = torch.bincount(a.downsample, minlength=5) / 4000
    if factors == 1:
        assert shares[0] == 1
    else:
        assert shares[0].item() == pytest.approx(0.6, abs=0.03)
        assert all(share.item() == pytest.approx(0.4 / (factors - 1), abs=0.03) for share in shares[1:factors])
        assert shares[factors:].sum() == 0


def test_pure_images_lose_one_kind_of_thing():
    a = training_actions(3000, (2, 4), random(), factors=5, pure=1.0)
    cells, gray, coarse = a.mask.flatten(1).any(dim=1), a.decolorize, a.downsample > 0
    count = cells.long() + gray.long() + coarse.long()
    assert count.max() == 1
    assert (count == 0).float().mean() < 0.1  # a mask may come out empty
    for kind in (cells, gray, coarse):
        assert kind.float().mean() > 0.22
    assert set(a.downsample.unique().tolist()) == {0, 1, 2, 3, 4}
    none = training_actions(3000, (2, 4), random(), factors=5, pure=0.0)
    assert (none.decolorize & (none.downsample > 0)).any()


def test_cases_delete_what_their_names_say():
    x, cases = images(40), tasks().cases()
    assert list(cases) == [
        *("inpainting 50 %", "colorization", *(f"super-resolution x{s}" for s in (2, 4, 8, 16))),
        *("inpainting 30 % + colorization", "decompression q5", "decompression q20", "layout"),
    ]
    degraded = {name: case(x, random()) for name, case in cases.items()}
    assert degraded["inpainting 50 %"].hidden.mean().item() == pytest.approx(0.5, abs=0.05)
    gray = degraded["colorization"].kept
    assert torch.equal(gray[:, 0], gray[:, 2])
    assert degraded["colorization"].hidden.sum() == 0
    blocks = degraded["super-resolution x8"].kept[0]
    assert blocks.flatten(1).unique(dim=1).shape[1] <= 16
    both = degraded["inpainting 30 % + colorization"]
    assert both.action.decolorize.all()
    assert both.hidden.mean().item() == pytest.approx(0.3, abs=0.05)
    errors = [(degraded[f"decompression q{q}"].kept - x).abs().mean() for q in (5, 20)]
    assert errors[0] > 1.3 * errors[1] > 0
    assert degraded["layout"].planes().shape == (40, 3, 32, 32)
    again = cases["inpainting 50 %"](x, random())
    assert torch.equal(again.hidden, degraded["inpainting 50 %"].hidden)


def test_training_draws_each_task():
    x = images(64)
    assert torch.equal(
        tasks().draw("mix", x, random(2)).kept,
        corrupt(x, training_actions(64, (2, 4, 8), random(2), factors=5, pure=0.4)).kept,
    )
    quality = tasks().draw("decompression", x, random()).quality
    assert 2 <= quality.min() < 5
    assert 30 < quality.max() <= 50
    assert tasks().draw("layout", x, random()).labels.unique().numel() == 3


def test_maps_take_the_place_of_the_palette():
    x, maps = images(6), torch.randint(3, (6, 32, 32), generator=random(4)).to(torch.uint8)
    maps[:, 0] = 255
    without = Tasks(tasks().config, (2, 4, 8), 0.4, None)
    for some in (tasks(), without):
        for degraded in (some.draw("layout", x, random(), maps), some.cases()["layout"](x, random(), maps)):
            assert torch.equal(degraded.labels[:, 1:], maps[:, 1:].long())
            assert (degraded.planes()[:, :, 0] == 0).all()
    for name, case in tasks().cases().items():
        if name != "layout":
            assert torch.equal(case(x, random(), maps).kept, case(x, random()).kept)
    with pytest.raises(ValueError, match="need a palette"):
        without.draw("layout", x, random())
