import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import FakeData

from configs.augment import AugmentConfig
from env.augment.boxes import edge_aligned
from env.augment.dataloader import EdgeAlignedCrop, PairsDataset, transform
from env.augment.expert import Expert

SIZE = 12


def picture():
    """A smooth picture in color: rows, columns and their product."""
    place = torch.linspace(0, 1, SIZE)
    return torch.stack([place.expand(SIZE, SIZE), place.view(-1, 1).expand(SIZE, SIZE), place.outer(place)])


def statistics(views):
    """What every operation leaves a trace in: colors, contrast, saturation, gradients across and down, sharpness."""
    across, down = views.diff(dim=3), views.diff(dim=2)
    range_of_channels = views.amax(dim=1) - views.amin(dim=1)
    return torch.cat(
        [
            views.mean(dim=(2, 3)),
            views.std(dim=(2, 3)),
            range_of_channels.mean(dim=(1, 2)).unsqueeze(1),
            (range_of_channels.amax(dim=(1, 2)) < 1e-5).float().unsqueeze(1),
            across.mean(dim=(2, 3)),
            down.mean(dim=(2, 3)),
            across.abs().mean(dim=(1, 2, 3)).unsqueeze(1),
            across.diff(dim=3).abs().mean(dim=(1, 2, 3)).unsqueeze(1),
        ],
        dim=1,
    )


@pytest.mark.parametrize(
    "config", [AugmentConfig(crop="edge", flip=0.3, gray=0.3), AugmentConfig(crop="none", rotation=40.0, blur=0.5)]
)
def test_both_paths_have_one_law(config):
    """Means and spreads of statistics of many views of one picture, within four standard errors of one another."""
    n, x = 1500, picture()
    torch.manual_seed(0)
    one_by_one = transform(config, 0.9, SIZE)
    theirs = statistics(torch.stack([one_by_one(x) for _ in range(n)]))
    ours = statistics(Expert(config, 0.9, SIZE)(x.expand(8 * n, 3, SIZE, SIZE), torch.Generator().manual_seed(0)))
    for power in (1, 2):
        a, b = (ours**power, theirs**power)
        error = (a.var(dim=0) / len(a) + b.var(dim=0) / len(b)).sqrt()
        assert float(((a.mean(dim=0) - b.mean(dim=0)).abs() / (error + 1e-6)).max()) < 4


def test_aligned_crops_touch_an_edge_with_the_same_law():
    torch.manual_seed(0)
    crop, image = EdgeAlignedCrop(SIZE, scale=(0.1, 1.0)), torch.empty(3, SIZE, SIZE)
    drawn = [crop.make_params([image]) for _ in range(2000)]
    theirs = torch.tensor([[float(box[name]) for name in ("top", "left", "height", "width")] for box in drawn])
    near, far = theirs[:, :2], theirs[:, :2] + theirs[:, 2:]
    assert ((near == 0) | (far == SIZE)).any(dim=1).all()
    ours = torch.stack(edge_aligned(20_000, SIZE, 0.1, torch.Generator().manual_seed(0)), dim=1).float()
    torch.testing.assert_close(ours.mean(dim=0), theirs.mean(dim=0), atol=0.3, rtol=0)
    torch.testing.assert_close(ours.T.cov(), theirs.T.cov(), atol=1.2, rtol=0)


def test_pictures_of_any_shape_and_gray_ones_are_taken():
    for shape in ((3, 20, 30), (1, 30, 20)):
        for config in (AugmentConfig(crop="edge", rotation=10.0, blur=1.0), AugmentConfig(crop="none")):
            view = transform(config, 0.5, SIZE)(torch.randint(256, shape, dtype=torch.uint8))
            assert view.shape == (3, SIZE, SIZE)
            assert view.dtype == torch.float32


@pytest.mark.parametrize("mode", ["P", "PA", "L", "LA", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_pil_images_of_every_kind_are_taken_in_color(mode, strength):
    color = (200, 40, 40) if mode in ("P", "PA", "RGBA", "CMYK") else (90, 90, 90)
    image = Image.new("RGB", (20, 20), color)
    image = (
        image.quantize(4) if mode == "P" else image.quantize(4).convert(mode) if mode == "PA" else image.convert(mode)
    )
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 20), 90 * 257, dtype=np.uint16))
    view = transform(AugmentConfig(crop="none", gray=0.0), strength, SIZE)(image)
    assert view.shape == (3, SIZE, SIZE)
    if strength == 0:
        torch.testing.assert_close(view[:, 3, 3], torch.tensor(color) / 255, atol=0.01, rtol=0)


def test_strength_0_only_resizes():
    x = picture()
    torch.testing.assert_close(transform(AugmentConfig(gray=1.0, blur=1.0), 0.0, SIZE)(x), x)


def test_workers_make_different_views_of_each_image():
    pairs = PairsDataset(FakeData(6, (3, 16, 16)), transform(AugmentConfig(), 1.0, SIZE), views=3)
    loader = DataLoader(pairs, batch_size=3, num_workers=1, generator=torch.Generator().manual_seed(0))
    views, labels = next(iter(loader))
    assert views.shape == (3, 3, 3, SIZE, SIZE)
    assert labels.shape == (3,)
    assert float(torch.pdist(views.flatten(2).flatten(0, 1)).min()) > 0.1
    assert len(pairs) == 6


def test_the_transform_can_be_sent_to_a_worker():
    pairs = PairsDataset(
        TensorDataset(picture()[None], torch.zeros(1)), transform(AugmentConfig(crop="edge", rotation=5.0), 0.5, SIZE)
    )
    assert pickle.loads(pickle.dumps(pairs))[0][0].shape == (2, 3, SIZE, SIZE)


def test_the_example_runs(capsys):
    path = Path(__file__).parents[3] / "examples" / "dataloader_pairs.py"
    spec = importlib.util.spec_from_file_location("dataloader_pairs", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(["--fake", "16", "--batch", "8", "--steps", "2", "--workers", "0"])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["step 1", "step 2"]
    assert all(float(line.split()[-1]) > 0 for line in printed)
