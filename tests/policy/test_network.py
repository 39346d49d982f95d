"""The policy network: where it starts, what it cannot exceed, and that it looks at one image alone."""

import pytest
import torch
from torch import nn

from configs.policy import PolicyConfig
from policy.network import PolicyNetwork
from policy.trunk import COMMON_GAIN, Head, Trunk
from policy.unlearned import Unlearned


def images(n, size=16, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("grid", "size"), [(4, 16), (2, 16), (1, 16), (8, 32), (4, 32)])
@pytest.mark.parametrize("rates", [(0.3, 0.5, (0.1, 0.1)), (0.02, 0.95, (0.3, 0.65))])
def test_a_new_policy_has_the_configured_rates_for_every_image(grid, size, rates):
    mask_ratio, decolorize, downsample = rates
    config = PolicyConfig(grid=grid, mask_ratio=mask_ratio, decolorize=decolorize, downsample=downsample)
    p = PolicyNetwork(config, size)(images(3, size)).probabilities()
    expected = Unlearned(config)(images(3, size)).probabilities()
    assert p["mask"].shape == (3, grid, grid)
    for name, value in p.items():
        assert torch.allclose(value, expected[name], atol=1e-5), name


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_of_zero_and_one_start_at_the_bound_and_can_leave_it(rate):
    network = PolicyNetwork(PolicyConfig(mask_ratio=rate, decolorize=rate, downsample=(rate, 0.0)), 16)
    pi = network(images(4))
    p = pi.probabilities()
    for value in (p["mask"], p["decolorize"], p["downsample"][:, 1]):
        assert ((value - rate).abs() < 0.03).all()
        assert ((value > 0.005) & (value < 0.995)).all()
    (pi.mask.logits.sum() + pi.downsample_logits.sum() + pi.decolorize_logits.sum()).backward()
    for head in (network.mask_head, network.downsample_head, network.decolorize_head):
        assert (head.common.grad.abs() > 1).all()


def test_a_head_learns_whatever_the_size_of_its_features():
    torch.manual_seed(0)
    head = Head(8, [0.0])
    features = torch.randn(4, 8)
    for scale in (0.0, 1e-2, 1e4):  # zero: every unit of the trunk is dead
        head.zero_grad()
        head(scale * features).sum().backward()
        assert head.common.grad.item() == pytest.approx(4 * COMMON_GAIN)
        assert (head.image.weight.grad.norm() > 0.1) == (scale > 0)
    nn.init.normal_(head.image.weight)
    assert head(features).std() > 0.1
    assert torch.allclose(head(features), head(100 * features), atol=1e-3)


def test_probabilities_stay_bounded_whatever_the_weights():
    torch.manual_seed(0)
    network = PolicyNetwork(PolicyConfig(), 16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 100)
    pi = network(images(64))
    p = pi.probabilities()
    for name in ("mask", "decolorize"):
        assert p[name].min() >= 0.0099
        assert p[name].max() <= 0.9901
        assert ((p[name] < 0.011) | (p[name] > 0.989)).any()  # the bound is what held it
    assert p["downsample"].min() > 1e-5
    unlikely = pi.mode()
    unlikely.mask.logical_not_()
    assert pi.log_prob(unlikely).isfinite().all()
    assert pi.entropy().min() > 0


def test_no_layer_depends_on_the_batch_or_the_mode():
    torch.manual_seed(0)
    network = PolicyNetwork(PolicyConfig(), 16)
    forbidden = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
    assert not any(isinstance(part, forbidden) for part in network.modules())
    assert not list(network.buffers())
    nn.init.normal_(network.mask_head.image.weight)
    nn.init.normal_(network.decolorize_head.image.weight)
    x = images(8)
    together = network(x).mask.logits
    assert together.std(dim=0).min() > 0  # it does look at the image
    assert torch.equal(network.eval()(x).mask.logits, together)
    alone = torch.cat([network(one[None]).mask.logits for one in x])
    assert torch.allclose(alone, together, atol=1e-5)


def test_low_precision_does_not_reach_the_log_probabilities():
    network = PolicyNetwork(PolicyConfig(), 16)
    with torch.autocast("cpu", torch.bfloat16):
        pi = network(images(4))
    assert pi.mask.logits.dtype == pi.downsample_logits.dtype == pi.decolorize_logits.dtype == torch.float32


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="16 x 16"):
        PolicyNetwork(PolicyConfig(), 16)(images(2, size=32))
    with pytest.raises(ValueError, match="do not divide into 4 x 4 cells"):
        PolicyNetwork(PolicyConfig(), 18)


@pytest.mark.parametrize("size", [4, 20, 48, 96])
def test_every_cell_has_its_logit_and_every_pixel_counts(size):
    torch.manual_seed(0)
    network = PolicyNetwork(PolicyConfig(), size)
    torch.nn.init.normal_(network.mask_head.image.weight, generator=torch.Generator().manual_seed(0))
    x = images(1, size=size).requires_grad_()
    logits = network(x).mask.logits
    assert logits.shape == (1, 4, 4)
    logits[0, 0, 0].backward()
    assert (x.grad.abs().amax(dim=1) > 0).all()


def test_an_odd_factor_is_averaged_over():
    trunk = Trunk(3, 12, 4)  # cells of 3 pixels: nothing to halve
    trunk.stages = torch.nn.Identity()
    torch.nn.init.zeros_(trunk.context.weight)
    torch.nn.init.zeros_(trunk.context.bias)
    x = images(1, size=12)
    cells, _ = trunk(x)
    assert torch.allclose(cells[0, 6], 2 * x[0, :, 3:6, 6:9].mean(dim=(1, 2)) - 1, atol=1e-6)


def test_fixed_policy_is_exact_at_zero():
    pi = Unlearned(PolicyConfig(mask_ratio=0.0, decolorize=0.0, downsample=(0.0, 0.0)))(images(5))
    action = pi.sample(torch.Generator().manual_seed(0))
    assert len(action.mask) == 5
    assert not action.mask.any()
    assert not action.decolorize.any()
    assert not action.downsample.any()


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("mask", ["cells", "budget", "smooth"])
def test_every_law_of_masks_starts_at_the_configured_ratio(mask, ratio):
    pi = PolicyNetwork(PolicyConfig(mask=mask, mask_ratio=ratio, grid=8), 16)(images(400))
    drawn = pi.sample(torch.Generator().manual_seed(0)).mask.float().mean().item()
    assert pi.mask_ratio().mean().item() == pytest.approx(ratio, abs=0.007)  # a budget is a whole number of cells
    assert drawn == pytest.approx(ratio, abs=0.015)
