"""The encoder, and the two ways to compute a convolution with replicate padding."""

import pytest
import torch
from torch import nn

from tmcnet.config import ModelConfig
from tmcnet.model import backbone as room
from tmcnet.model.backbone import (
    MAX_TAPWISE_WORK,
    Backbone,
    ReplicateConv2d,
    convolution,
    tapwise_convolution,
    tapwise_work,
)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_maps_have_the_promised_sizes(name):
    backbone = Backbone(5, ModelConfig(backbone=name, width=8))
    high, low = backbone(torch.randn(2, 5, 64, 48))
    assert high.shape == (2, backbone.high_channels, 4, 3)
    assert low.shape == (2, backbone.low_channels, 16, 12)
    assert backbone.high_channels == 64 * (4 if name == "resnet50" else 1)


def test_published_sizes_of_resnets():
    """Without classifier, with three bands, as in torchvision."""
    expected = {"resnet18": 11_176_512, "resnet34": 21_284_672, "resnet50": 23_508_032}
    for name, parameters in expected.items():
        with torch.device("meta"):
            backbone = Backbone(3, ModelConfig(backbone=name), 0.1)
        assert sum(p.numel() for p in backbone.parameters()) == parameters


def test_last_stage_is_dilated_not_strided():
    backbone = Backbone(3, ModelConfig(width=8), 0.1)
    kernels = [m for m in backbone.deeper[-1].modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert {m.dilation for m in kernels} == {(2, 2)}
    assert {m.stride for m in kernels} == {(1, 1)}


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
    assert tapwise_work(50, 50, 1) > MAX_TAPWISE_WORK


@pytest.mark.parametrize(("dilation", "cheap"), [(1, False), (6, True), (12, True), (18, True)])
def test_the_cheaper_way_is_taken(monkeypatch, dilation, cheap):
    taken = []
    monkeypatch.setattr(
        room, "tapwise_convolution", lambda *given: taken.append(given) or tapwise_convolution(*given)
    )
    layer = convolution(4, 3, 3, dilation=dilation)
    assert isinstance(layer, ReplicateConv2d) and set(layer.state_dict()) == {"weight"}
    image = torch.randn(2, 4, 14, 14)
    torch.testing.assert_close(layer(image), plain(image, layer.weight, dilation), rtol=0, atol=1e-5)
    assert bool(taken) is cheap


def test_other_convolutions_are_torchs_own():
    for layer in (
        convolution(4, 3, 3, published=True),
        convolution(4, 3, 3, stride=2),
        convolution(4, 3, 1),
        convolution(4, 3, 7, stride=2),
    ):
        assert not isinstance(layer, ReplicateConv2d)
