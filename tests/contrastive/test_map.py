"""The map shows what is near, and the picture grows names only while there is room."""

from dataclasses import replace

import matplotlib.image
import pytest
import torch

from configs.errors import UsageError
from contrastive import map as features_map
from contrastive.map import Map, crowded, draw, flatten, palette


def clusters(each=15, groups=3, d=12):
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(groups).repeat_interleave(each)
    centers = torch.randn(groups, d, generator=random)
    return centers[labels] + 0.05 * torch.randn(len(labels), d, generator=random), labels


def drawn(classes, n=60):
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    return Map(
        title="a run",
        subtitle="its figures",
        how="pca",
        positions=torch.randn(n, 2, generator=random),
        labels=labels,
        right=torch.arange(n) % 4 > 0,
        classes=[f"class {name}" for name in range(classes)],
        confusion=torch.randint(0, 9, (classes, classes), generator=random),
    )


@pytest.mark.parametrize("how", ["tsne", "pca"])
def test_classes_that_are_apart_stay_apart(how):
    z, labels = clusters()
    positions = flatten(z, how, seed=0)
    assert positions.shape == (45, 2)
    apart = torch.cdist(positions, positions).fill_diagonal_(float("inf"))
    assert (labels[apart.argmin(dim=1)] == labels).all()
    assert torch.equal(positions, flatten(z, how, seed=0))
    # Directions alone count.
    scale = torch.linspace(0.1, 10, len(z)).unsqueeze(1)
    assert torch.allclose(flatten(scale * z, "pca", 0), flatten(z, "pca", 0), atol=1e-5)


def test_few_images_of_few_features_are_no_obstacle():
    assert flatten(torch.rand(10, 3, generator=torch.Generator().manual_seed(0)), "tsne", 0).isfinite().all()


def test_a_name_stands_in_a_crowd_and_not_between_two():
    random = torch.Generator().manual_seed(0)
    crowd, strewn = 0.1 * torch.randn(12, 2, generator=random), 10 + torch.randn(40, 2, generator=random)
    assert crowded(torch.cat([strewn, crowd])).norm() < 1
    assert torch.equal(crowded(strewn[:1]), strewn[0])


@pytest.mark.parametrize("classes", [2, 15, 40])
def test_every_class_has_a_color_of_its_own_and_the_picture_is_drawn(tmp_path, classes):
    assert len({tuple(color) for color in palette(classes)}) == classes
    draw(drawn(classes), tmp_path / "map.png")
    picture = matplotlib.image.imread(tmp_path / "map.png")
    assert picture.shape[1] == pytest.approx(15 * features_map.DPI, abs=2)
    left, right = picture[..., :3].reshape(picture.shape[0], 2, -1).std(axis=(0, 2))
    assert left > 0.05
    assert right > 0.05


def test_a_class_without_images_is_drawn(tmp_path):
    few = drawn(3)
    draw(
        Map(**(few.__dict__ | {"classes": [*few.classes, "none"], "confusion": torch.eye(4).long() * 0})),
        tmp_path / "a.png",
    )
    assert (tmp_path / "a.png").stat().st_size > 0


def test_names_may_hold_dollar_signs(tmp_path):
    draw(replace(drawn(2), classes=["$5 {bills$", "b"], title="$a_{$"), tmp_path / "map.png")
    assert (tmp_path / "map.png").exists()


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot write .*missing/map\.png"):
        draw(drawn(2), tmp_path / "missing" / "map.png")
