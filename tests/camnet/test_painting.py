"""How the painter learns: the nearest scheme, exactly; from what is visible; and every mode of the truth."""

import pytest
import torch

from camnet import parts
from camnet.distance import Distance
from camnet.painter import Painter, in_holes
from camnet.painting import nearest_painting, painting_loss
from env.resize import pooled
from training.descent import Descent


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def painter():
    torch.manual_seed(0)
    made = Painter((8, 8, 8), 2)
    torch.nn.init.normal_(made.decide.weight, std=0.1)
    return made


def photographs(n, seed):
    """A ground of any gray; in its middle a square, light or dark."""
    random = seeded(seed)
    x = (0.4 + 0.2 * torch.rand(n, 1, 1, 1, generator=random)).expand(-1, 3, 16, 16).clone()
    is_light = torch.rand(n, generator=random) < 0.5
    x[:, :, 4:12, 4:12] = torch.where(is_light, 0.9, 0.1).view(n, 1, 1, 1)
    return x, is_light


def middle(n):
    hidden = torch.zeros(n, 1, 16, 16)
    hidden[:, :, 4:12, 4:12] = 1
    return hidden


@pytest.mark.parametrize("at_once", [1, 2**22])
def test_the_nearest_painting_is_that_of_the_distance(painter, at_once, monkeypatch):
    monkeypatch.setitem(parts.BYTES_AT_ONCE, "cpu", at_once)
    styles = torch.randn(5, 6, 2, 1, 1, generator=seeded(3))
    (x, _), hidden = photographs(5, 1), (torch.rand(5, 1, 16, 16, generator=seeded(4)) < 0.5).float()
    distance = Distance(photographs(8, 2)[0], 1.0, (), 0.0, 1.0)
    with torch.no_grad():
        sketch = painter.see(x, hidden)
        found = nearest_painting(painter, distance, sketch, x, hidden, styles).flatten()
        painted = sketch.painted(painter.fields(sketch, styles))
        for i in range(5):
            small = [pooled(in_holes(y[None], x[i : i + 1], hidden[i : i + 1]), 4) for y in painted[i]]
            assert found[i] == torch.stack([distance(y, pooled(x[i : i + 1], 4))[0] for y in small]).argmin()
    assert len(found.unique()) > 1


def test_every_region_takes_the_style_that_is_nearest_there(painter):
    """Left and right each get the style that made the truth there, though no style made all of it."""
    (x, _), hidden = photographs(4, 1), torch.ones(4, 1, 32, 32)
    x = torch.nn.functional.interpolate(x, 32)
    styles = torch.randn(4, 6, 2, 1, 1, generator=seeded(3)).expand(-1, -1, -1, 2, 2)
    with torch.no_grad():
        sketch = painter.see(x, hidden)
        painted = sketch.painted(painter.fields(sketch, styles))
        left, right = torch.tensor([0, 1, 2, 3]), torch.tensor([5, 4, 3, 2])
        rows = torch.arange(4)
        truth = torch.cat([painted[rows, left, :, :, :16], painted[rows, right, :, :, 16:]], dim=-1)
        distance = Distance(photographs(8, 2)[0], 1.0)
        found = nearest_painting(painter, distance, sketch, truth, hidden, styles)
    assert torch.equal(found[:, :, 0], left[:, None].expand(-1, 2))
    assert torch.equal(found[:, :, 1], right[:, None].expand(-1, 2))


def test_all_of_the_painter_learns_and_from_holes_alone(painter):
    x, distance = photographs(4, 1)[0], Distance(photographs(8, 2)[0], 1.0)
    torch.nn.init.normal_(painter.likely.weight, std=0.1)
    styles = torch.randn(4, 6, 2, 2, 2, generator=seeded(3))
    sketch = painter.see(x, middle(4))
    losses = painting_loss(painter, distance, sketch, x, middle(4), styles)
    assert losses.shape == (4,)
    losses.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in painter.likely.parameters())
    assert all(p.grad is not None for p in painter.parameters())
    nothing = torch.zeros(4, 1, 16, 16)
    assert painting_loss(painter, distance, painter.see(x, nothing), x, nothing, styles).max() == 0


def test_holes_get_everything_that_may_be_in_them():
    """Regression would paint them in the gray between."""
    torch.manual_seed(0)
    painter, distance = Painter((8, 8, 8), 2), Distance(photographs(64, 2)[0], 4.0)
    descent = Descent(painter, 5e-3, clip=1.0)
    for step in range(150):
        x, hidden = photographs(32, 10 + step)[0], middle(32)
        loss = painting_loss(painter, distance, painter.see(x, hidden), x, hidden, torch.randn(32, 8, 2, 1, 1))
        descent.step(loss.mean())
    x, hidden = photographs(100, 5)[0], middle(100)
    with torch.no_grad():
        sketch = painter.see(x, hidden)
        painted = sketch.painted(painter.fields(sketch, torch.randn(100, 1, 2, 1, 1, generator=seeded(6))))[:, 0]
    inside = painted[:, :, 5:11, 5:11].mean(dim=(1, 2, 3))
    assert ((inside - 0.5).abs() > 0.2).float().mean() > 0.85
    assert 0.25 < (inside > 0.5).float().mean() < 0.75
