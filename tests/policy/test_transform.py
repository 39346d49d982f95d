"""The transform fits into anybody's pipeline: returns what it was given, draws from the global generator, pickles."""

import pickle
from pathlib import Path

import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from configs.errors import UsageError
from configs.policy import PolicyConfig
from env.corruption import to_pixels
from policy.build import build
from policy.export import export
from policy.transform import LearnedCorruption, fitted


def policy(**settings):
    """A new policy: the same rates for all images; by default its masks alone."""
    torch.manual_seed(0)
    return build(PolicyConfig(**({"width": 8, "decolorize": 0.0, "downsample": (0.0, 0.0)} | settings)), 16, 4)


def images(n=4, size=16, seed=1):
    """Bytes from 1 to 254: a 0 in what comes out was hidden, a 255 painted over."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(1, 255, (n, 3, size, size), dtype=torch.uint8, generator=random)


class Painter:
    """A decorruptor that shows what it did: hidden pixels of view j become j + 2, plus a little noise."""

    size = 16

    def __init__(self):
        self.proposed = None

    def views(self, degraded, k, random, proposed=None):
        self.proposed = proposed
        noise = torch.rand(len(degraded), k, 1, 1, 1, generator=random, device=random.device) / 100
        paint = torch.arange(2, k + 2).view(1, k, 1, 1, 1) + noise
        return torch.where(degraded.hidden.bool().unsqueeze(1), paint, degraded.kept.unsqueeze(1))


def hidden(result):
    """Which pixels (..., h, w) are black."""
    return (result == 0).all(dim=-3)


def test_the_policy_decides_what_is_hidden(tmp_path):
    path = export(policy(mask_ratio=0.4), tmp_path / "run", {})
    x = images(400)
    result = LearnedCorruption.from_file(path)(x)
    gone = hidden(result)
    assert gone.float().mean() == pytest.approx(0.4, abs=0.02)
    assert (result == x)[~gone.unsqueeze(1).expand_as(x)].float().mean() > 0.95  # the rest loses color or detail rarely
    assert torch.equal(gone, to_pixels(gone[:, ::4, ::4], 16).squeeze(1).bool())  # whole cells
    assert (gone[0] != gone[1]).any()


def test_detail_and_color_are_deleted_too():
    gray = LearnedCorruption(policy(mask_ratio=0.0, decolorize=1.0))(images(100).float() / 255)
    assert (gray[:, 0] == gray[:, 1]).flatten(1).all(dim=1).float().mean() > 0.9
    coarse = LearnedCorruption(policy(mask_ratio=0.0, downsample=(0.0, 1.0)))(images(100).float() / 255)
    assert (coarse[..., 0, 0] == coarse[..., 3, 3]).float().mean() > 0.9


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batched", [True, False])
def test_it_returns_what_it_was_given(dtype, batched):
    x = images() if dtype == torch.uint8 else (images().float() / 255).to(dtype)
    x = x if batched else x[0]
    result = LearnedCorruption(policy())(x)
    assert (result.shape, result.dtype, type(result)) == (x.shape, dtype, torch.Tensor)
    assert (result == 0).any()
    image = LearnedCorruption(policy())(tv_tensors.Image(x))
    assert type(image) is tv_tensors.Image


def test_pil_images_go_through_the_documented_pipeline():
    given = PIL.Image.fromarray(images(1)[0].permute(1, 2, 0).numpy())
    augment = v2.Compose([v2.ToImage(), LearnedCorruption(policy()), v2.ToDtype(torch.float32, scale=True)])
    result = augment(given)
    assert (result.shape, result.dtype) == (images(1)[0].shape, torch.float32)
    assert 0 <= result.min() < result.max() <= 1
    for page in ("README.md", "docs/export.md"):
        assert "v2.ToImage()" in (Path(__file__).parents[2] / page).read_text()


def test_pil_images_come_back_as_pil_images():
    given = PIL.Image.fromarray(images(1)[0].permute(1, 2, 0).numpy())
    result = LearnedCorruption(policy())(given)
    assert isinstance(result, PIL.Image.Image)
    assert (result.size, result.mode) == (given.size, "RGB")
    assert result.tobytes() != given.tobytes()
    assert LearnedCorruption(policy(), p=0.0)(given).tobytes() == given.tobytes()


def test_the_rest_of_a_sample_is_left_alone():
    boxes = tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="XYXY", canvas_size=(16, 16))
    sample = {
        "image": tv_tensors.Image(images(1)[0]),
        "boxes": boxes,
        "mask": tv_tensors.Mask(torch.ones(1, 16, 16, dtype=torch.uint8)),
        "label": torch.tensor(3),
        "name": "a",
    }
    result = v2.Compose([LearnedCorruption(policy()), v2.ToDtype({tv_tensors.Image: torch.float32, "others": None})])(
        sample
    )
    assert (result["image"] == 0).any()
    for name in ("boxes", "mask", "label", "name"):
        assert result[name] is sample[name], name


def test_p_chooses_images_one_by_one():
    x = images(400)
    touched = hidden(LearnedCorruption(policy(mask_ratio=0.5), p=0.25)(x)).flatten(1).any(dim=1)
    assert touched.float().mean() == pytest.approx(0.25, abs=0.07)
    assert torch.equal(LearnedCorruption(policy(downsample=(0.5, 0.5), decolorize=1.0), p=0.0)(x), x)


def test_fill():
    torch.manual_seed(2)
    black = LearnedCorruption(policy())(images())
    torch.manual_seed(2)
    filled = LearnedCorruption(policy(), fill=0.4)(images())
    assert torch.equal(filled, torch.where(black == 0, 102, black))


@pytest.mark.parametrize("size", [32, 48, 20, 9])
def test_other_sizes_get_the_mask_scaled(size):
    x = images(50, size)
    result = LearnedCorruption(policy(mask_ratio=0.5))(x)
    gone = hidden(result)
    assert gone.float().mean() == pytest.approx(0.5, abs=0.06)
    middles = torch.tensor([int((cell + 0.5) * size / 4) for cell in range(4)])
    cells = gone[:, middles][:, :, middles]
    assert torch.equal(gone, fitted(cells, size) if size % 4 else to_pixels(cells, size).squeeze(1).bool())


def test_the_policy_looks_at_a_copy_of_its_own_size():
    network = policy()
    seen = []
    network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape))
    LearnedCorruption(network)(images(2, 40))
    assert seen == [(2, 3, 16, 16)]


def test_a_decorruptor_gives_one_view_or_a_pair():
    x = images(100)
    one = LearnedCorruption(policy(), Painter())(x)
    assert one.dtype == torch.uint8
    assert (one == 255).float().mean() == pytest.approx(0.3, abs=0.04)
    first, second = LearnedCorruption(policy(), Painter(), views=2)(x.float() / 255)
    gone = first > 1.5
    assert gone.float().mean() == pytest.approx(0.3, abs=0.04)
    assert torch.equal(gone, second > 1.5)  # the pair shares its corruption
    assert first[gone].mean() == pytest.approx(2.005, abs=0.002)
    assert second[gone].mean() == pytest.approx(3.005, abs=0.002)
    pair, label = LearnedCorruption(policy(), Painter(), views=2)(x[0], 7)
    assert ([view.shape for view in pair], label) == ([(3, 16, 16)] * 2, 7)


def test_proposed_codes_reach_the_decorruptor():
    painter = Painter()
    LearnedCorruption(policy(name="latent"), painter, views=2)(images(3))
    assert painter.proposed.shape == (3, 2, 4)
    LearnedCorruption(policy(), painter)(images(3))
    assert painter.proposed is None


def test_random_numbers_are_the_global_generators():
    x, transform = images().float() / 255, LearnedCorruption(policy(), Painter(), p=0.9)

    def draw(seed):
        torch.manual_seed(seed)
        return transform(x), transform(x)

    first, again, other = draw(3), draw(3), draw(4)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_a_spawned_worker_draws_anew_for_every_image():
    x = images(1)[0]
    transform = LearnedCorruption(policy(mask_ratio=0.5), Painter())
    loader = DataLoader([x] * 4, batch_size=1, num_workers=1, collate_fn=transform, multiprocessing_context="spawn")
    seen = {result.numpy().tobytes() for (result,) in loader}
    assert len(seen) == 4


def test_it_pickles_whole():
    x, transform = images(), LearnedCorruption(policy(), Painter(), p=0.9, fill=0.2, views=2)
    copied = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(5)
    first = transform(x)
    torch.manual_seed(5)
    assert all(map(torch.equal, first, copied(x)))


def test_nothing_of_it_is_trained():
    network = policy()
    transform = LearnedCorruption(network)
    assert not any(weights.requires_grad for weights in transform.parameters())
    assert all(weights.requires_grad for weights in network.parameters())
    x = (images().float() / 255).requires_grad_()
    assert not transform(x).requires_grad


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (torch.rand(1, 16, 16), r"v2\.RGB"),
        (torch.rand(3, 16, 20), r"v2\.CenterCrop"),
        (torch.rand(16, 16), "square RGB"),
        (torch.randn(3, 16, 16) * 3, r"before v2\.Normalize"),
        (torch.rand(3, 16, 16) * 255, "scale bytes by 255"),
        (torch.full((3, 16, 16), float("nan")), r"\[0, 1\]"),
        (torch.ones(3, 16, 16, dtype=torch.int64), "int64"),
        (PIL.Image.new("L", (16, 16)), r"v2\.RGB"),
    ],
)
def test_other_images_are_refused_with_the_remedy(given, reason):
    with pytest.raises(ValueError, match=reason):
        LearnedCorruption(policy())(given)


def test_settings_that_cannot_be_meant_are_refused(tmp_path):
    for settings in ({"p": 1.5}, {"fill": -1.0}, {"p": float("nan")}):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            LearnedCorruption(policy(), **settings)
    for settings in ({"views": 2}, {"views": 0}):
        with pytest.raises(ValueError, match="views"):
            LearnedCorruption(policy(), **settings)
    with pytest.raises(ValueError, match=r"views=3: a latent policy proposes the codes of 2"):
        LearnedCorruption(policy(name="latent"), Painter(), views=3)
    with pytest.raises(ValueError, match=r"16 x 16 images, got 32 x 32.*v2\.Resize\(16\)"):
        LearnedCorruption(policy(), Painter())(images(1, 32))
    with pytest.raises(UsageError, match="cannot read"):
        LearnedCorruption.from_file(tmp_path / "nothing")
