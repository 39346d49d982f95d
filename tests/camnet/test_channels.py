"""Channels side by side, and convolutions of what rows share."""

import pytest
import torch
import torch.nn.functional as F

from camnet.channels import beside, convolved

LAYOUTS = (torch.channels_last, torch.contiguous_format)


def test_channels_side_by_side_lie_as_they_are_asked_to():
    """`torch.cat` has a mixture, or anything beside a single channel, channels first."""
    last = torch.channels_last
    parts = [
        torch.rand(2, 3, 16, 16),
        torch.randn(2, 1, 16, 16),
        torch.randn(2, 8, 16, 16).contiguous(memory_format=last),
    ]
    assert not torch.cat(parts, dim=1).is_contiguous(memory_format=last)
    for layout in LAYOUTS:
        together = beside(parts, layout, torch.float32)
        assert together.is_contiguous(memory_format=layout)
        assert torch.equal(together, torch.cat(parts, dim=1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("many", [1, 3])
def test_what_rows_share_is_convolved_as_if_each_had_it(layout, many):
    shared, weight, bias = torch.randn(2, 5, 6, 6), torch.randn(4, 9, 3, 3), torch.randn(4)
    own = [torch.randn(2 * many, 3, 6, 6), torch.randn(2 * many, 1, 6, 6)]
    weight = weight.contiguous(memory_format=layout)
    seen = torch.cat([shared.repeat_interleave(many, dim=0), *own], dim=1)
    made = convolved(shared, own, weight, bias, layout)
    torch.testing.assert_close(made, F.conv2d(seen, weight, bias, padding=1))


def test_what_rows_share_is_convolved_once(monkeypatch):
    seen = []
    monkeypatch.setattr("camnet.channels.F.conv2d", lambda x, *rest, **more: seen.append(x.shape) or x[:, :1])
    convolved(torch.zeros(2, 5, 6, 6), [torch.zeros(8, 3, 6, 6)], torch.zeros(1, 8, 3, 3), None, LAYOUTS[1])
    assert seen == [(2, 5, 6, 6), (8, 3, 6, 6)]
