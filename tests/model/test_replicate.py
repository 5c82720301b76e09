"""The two ways of a convolution with replicate padding must agree, and the cheaper one must be taken."""

import pytest
import torch
from torch import nn

from tmcnet.model import replicate
from tmcnet.model.backbone import convolution
from tmcnet.model.replicate import MOST_WORK, ReplicateConv2d, tapwise_convolution, tapwise_work

SHAPES = [(7, 9), (5, 5), (1, 6), (8, 1), (1, 1), (14, 14)]


def plain(x, weight, dilation):
    """Torch's own: the padded map convolved."""
    padded = nn.functional.pad(x, (dilation,) * 4, mode="replicate")
    return nn.functional.conv2d(padded, weight, dilation=dilation)


@pytest.mark.parametrize("dilation", [1, 2, 4, 6, 7, 9, 20])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_taps_one_by_one_equal_the_padded_convolution(dilation, shape, layout):
    random = torch.Generator().manual_seed(dilation)
    image = torch.randn(2, 5, *shape, generator=random, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(3, 5, 3, 3, generator=random, dtype=torch.float64).contiguous(memory_format=layout)
    wanted = torch.randn(2, 3, *shape, generator=random, dtype=torch.float64)
    results = []
    for way in (plain, tapwise_convolution):
        inputs = image.clone().requires_grad_(), weight.clone().requires_grad_()
        found = way(*inputs, dilation)
        (found * wanted).sum().backward()
        results.append((found, *(x.grad for x in inputs)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_work_is_counted_in_pixels_that_taps_see():
    assert tapwise_work(14, 14, 18) == pytest.approx((14 + 2) ** 2 / 42**2)
    assert tapwise_work(14, 28, 6) == pytest.approx((14 + 16) * (28 + 44) / (42 * 84))
    assert tapwise_work(50, 50, 1) > MOST_WORK


@pytest.mark.parametrize(("dilation", "cheap"), [(1, False), (6, True), (12, True), (18, True)])
def test_the_cheaper_way_is_taken(monkeypatch, dilation, cheap):
    taken = []
    monkeypatch.setattr(
        replicate, "tapwise_convolution", lambda *given: taken.append(given) or tapwise_convolution(*given)
    )
    layer = convolution(4, 3, 3, dilation=dilation)
    assert isinstance(layer, ReplicateConv2d) and set(layer.state_dict()) == {"weight"}
    image = torch.randn(2, 4, 14, 14)
    torch.testing.assert_close(layer(image), plain(image, layer.weight, dilation), rtol=0, atol=1e-5)
    assert bool(taken) is cheap


def test_other_convolutions_are_torchs_own():
    for layer in (
        convolution(4, 3, 3, padding="zeros"),
        convolution(4, 3, 3, stride=2),
        convolution(4, 3, 1),
        convolution(4, 3, 7, stride=2),
    ):
        assert not isinstance(layer, ReplicateConv2d)
