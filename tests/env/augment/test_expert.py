import pytest
import torch

from configs.augment import AugmentConfig
from env.augment.expert import Expert

ALL = AugmentConfig(crop="edge", rotation=25.0, blur=0.5)
CONFIGS = pytest.mark.parametrize("config", [AugmentConfig(), ALL, AugmentConfig(crop="none", flip=0.0, gray=1.0)])


def images(m, size=16, seed=0):
    return torch.rand(m, 3, size, size, generator=torch.Generator().manual_seed(seed))


def at(seed):
    return torch.Generator().manual_seed(seed)


def test_strength_0_is_the_identity_and_draws_nothing():
    x, random = images(4), at(0)
    before = random.get_state()
    assert Expert(ALL, 0.0, 16)(x, random) is x
    assert torch.equal(random.get_state(), before)


@CONFIGS
def test_results_are_new_and_stay_in_range(config):
    x = images(64).round()
    before = x.clone()
    y = Expert(config, 1.0, 16)(x, at(0))
    assert torch.equal(x, before)
    assert float(y.min()) >= 0
    assert float(y.max()) <= 1
    assert not torch.equal(y, x)


@CONFIGS
def test_equal_generators_give_equal_results(config):
    x, expert = images(32), Expert(config, 0.7, 16)
    assert torch.equal(expert(x, at(1)), expert(x, at(1)))
    assert not torch.equal(expert(x, at(1)), expert(x, at(2)))


@CONFIGS
def test_rows_do_not_influence_one_another(config):
    x, expert = images(16), Expert(config, 1.0, 16)
    other = images(16, seed=5)
    other[3] = x[3]
    torch.testing.assert_close(expert(x, at(1))[3], expert(other, at(1))[3], atol=1e-6, rtol=0)


def test_each_row_has_its_own_parameters():
    copies = images(1).expand(64, 3, 16, 16)
    views = Expert(ALL, 1.0, 16)(copies, at(0)).flatten(1)
    assert float(torch.pdist(views).min()) > 0.1


def test_gray_and_flip_have_their_own_probabilities():
    x = images(1, seed=1).expand(2000, 3, 16, 16)
    config = AugmentConfig(crop="none", flip=0.3, gray=0.2)
    y = Expert(config, 1e-9, 16)(x, at(0))  # the dial leaves them as they are
    is_gray = ((y[:, 0] - y[:, 2]).abs() < 1e-6).flatten(1).all(dim=1)
    assert float(is_gray.float().mean()) == pytest.approx(0.2, abs=0.001)
    colored, mirror = y[~is_gray], x[:1].flip(-1)
    flipped = (colored - mirror).abs().flatten(1).amax(dim=1) < 1e-4
    assert float(flipped.float().mean()) == pytest.approx(0.3, abs=0.04)


def test_blur_has_its_own_probability():
    x = images(40)
    y = Expert(AugmentConfig(crop="none", flip=0.0, gray=0.0, blur=0.3), 1e-9, 16)(x, at(0))
    assert int(((y - x).abs() > 1e-3).flatten(1).any(dim=1).sum()) in (11, 12)  # the narrowest changes nothing


def test_the_dial_reaches_the_jitter():
    jitter = Expert(AugmentConfig(), 0.5, 16).jitter
    assert (jitter.blend, jitter.turn) == pytest.approx((0.4, 0.1))


@pytest.mark.parametrize("crop", ["edge", "resized"])
def test_crops_share_an_edge_where_asked_to(crop):
    """The picture says in red and green where a pixel comes from."""
    place = torch.linspace(0, 1, 16)
    picture = torch.stack([place.expand(16, 16), place.view(-1, 1).expand(16, 16), torch.zeros(16, 16)])
    expert = Expert(AugmentConfig(crop=crop, gray=0.0), 1.0, 16)
    expert.jitter = lambda part, random: part
    views = expert(picture.expand(200, 3, 16, 16), at(0))[:, :2]
    near, far = views.amin(dim=(2, 3)) < 1e-5, views.amax(dim=(2, 3)) > 1 - 1e-5
    touches = (near | far).any(dim=1)
    assert bool(touches.all()) == (crop == "edge")


def test_colors_alone_are_left_alone_at_a_weak_dial():
    x = images(50)
    y = Expert(AugmentConfig(crop="none", flip=0.0, gray=0.0), 0.25, 16)(x, at(0))
    changed = ((y - x).abs() > 1e-4).flatten(1).any(dim=1)
    assert int(changed.sum()) == 10  # 0.8 of 0.25


def test_a_stronger_dial_changes_more():
    x = images(256)
    change = [float((Expert(AugmentConfig(), s, 16)(x, at(0)) - x).abs().mean()) for s in (0.05, 0.5, 1.0)]
    assert change == sorted(change)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="16 x 16"):
        Expert(AugmentConfig(), 1.0, 16)(images(2, size=8), at(0))
