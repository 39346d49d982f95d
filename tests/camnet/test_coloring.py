"""How the colorist learns: the nearest scheme, exactly; every mode of the truth; and a taste for what there is."""

import math

import pytest
import torch

from camnet import parts
from camnet.bilinear import colors
from camnet.code import Candidates
from camnet.coloring import coloring_loss, nearest_scheme
from camnet.colorist import Colorist, with_lightness
from camnet.distance import Distance
from env.resize import pooled
from training.descent import Descent


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def colorist():
    torch.manual_seed(0)
    made = Colorist((8, 8, 8), 2)
    torch.nn.init.normal_(made.decide.weight, std=0.1)
    return made


def photographs(n, seed):
    """A dark thing on a light ground. The ground is gray, the thing is red in every second image, else blue."""
    random = seeded(seed)
    x = 0.7 + 0.1 * torch.rand(n, 1, 16, 16, generator=random).expand(-1, 3, -1, -1).clone()
    left = torch.randint(1, 7, (n,), generator=random)
    for i in range(n):
        color = torch.tensor([0.7, 0.1, 0.1] if i % 2 else [0.1, 0.1, 0.7])
        x[i, :, 4:12, left[i] : left[i] + 8] = color[:, None, None]
    return x


def loss_on(colorist, distance, x, styles):
    return coloring_loss(colorist, distance, colorist.see(x.mean(dim=1, keepdim=True)), x, styles)


@pytest.mark.parametrize("at_once", [1, 2**22])
def test_the_nearest_scheme_is_that_of_the_distance(colorist, at_once, monkeypatch):
    monkeypatch.setitem(parts.BYTES_AT_ONCE, "cpu", at_once)
    x, distance = photographs(5, 1), Distance(photographs(8, 2), 1.0, (), 0.0, 1.0)
    with torch.no_grad():
        seen = colorist.see(x.mean(dim=1, keepdim=True))
        schemes = colorist.schemes(seen.whole, torch.randn(5, 6, 2, generator=seeded(3)))
        found = nearest_scheme(distance, seen, schemes, x)
        for i in range(5):
            small = pooled(x[i : i + 1], 4)
            tried = [
                with_lightness(
                    small.mean(dim=1, keepdim=True),
                    pooled(colors(seen.maps[i : i + 1], schemes[i : i + 1, j : j + 1])[:, 0], 4),
                )
                for j in range(6)
            ]
            assert found[i] == torch.stack([distance(image, small)[0] for image in tried]).argmin()
    assert len(found.unique()) > 1


def test_taste_alone_learns_from_the_choice_and_nothing_else_of_taste(colorist):
    x, distance = photographs(4, 1), Distance(photographs(8, 2), 1.0)
    torch.nn.init.normal_(colorist.taste.head.weight)
    styles = torch.randn(4, 6, 2, generator=seeded(3))
    for index in (0, 1):
        colorist.zero_grad()
        loss_on(colorist, distance, x, styles)[index].mean().backward()
        learned = {name.split(".")[0] for name, p in colorist.named_parameters() if p.grad is not None}
        if index:
            assert learned == {"taste"}
        else:
            assert "taste" not in learned
            assert {"entry", "draw", "map", "decide"} <= learned


def test_an_untaught_taste_guesses_by_chance(colorist):
    x, distance = photographs(4, 1), Distance(photographs(8, 2), 1.0)
    _, surprise = loss_on(colorist, distance, x, torch.randn(4, 6, 2, generator=seeded(3)))
    assert torch.allclose(surprise, torch.full((4,), math.log(6)), atol=1e-5)


def test_things_get_every_color_that_they_have_and_their_ground_none():
    """Regression would paint all things violet; and one tint for a whole image would paint the ground as well."""
    torch.manual_seed(0)
    colorist, distance = Colorist((8, 8, 8), 2), Distance(photographs(64, 2), 4.0)
    descent = Descent(colorist, 5e-3, clip=1.0)
    for step in range(200):
        loss, surprise = loss_on(colorist, distance, photographs(32, 10 + step), torch.randn(32, 8, 2))
        descent.step(loss.mean() + surprise.mean())
    x = photographs(100, 5)
    with torch.no_grad():
        seen = colorist.see(x.mean(dim=1, keepdim=True))
        styles = torch.randn(100, 8, 2, 1, 1, generator=seeded(6))
        luck = -(-torch.rand(100, 8, 1, 1, generator=seeded(7)).log()).log()
        scheme = colorist.chosen(seen, Candidates(styles, styles[:, 0, :0], luck), 1.0)
        made = with_lightness(pooled(x, 8).mean(dim=1, keepdim=True), colors(seen.maps, scheme)[:, 0])
    thing = (pooled(x, 8).mean(dim=1) < 0.45)[:, None].expand_as(made)
    ground = (pooled(x, 8).mean(dim=1) > 0.65)[:, None].expand_as(made)
    chroma = made - made.mean(dim=1, keepdim=True)
    redness = torch.stack([(chroma[i, 0] - chroma[i, 2])[thing[i, 0]].mean() for i in range(100)])  # truth: 0.6, -0.6
    assert ((redness.abs() - 0.6).abs() < 0.2).float().mean() > 0.85
    assert 0.25 < (redness > 0).float().mean() < 0.75
    assert chroma[ground].abs().mean() < 0.05
