"""The encoder, and the ways to compute a convolution with replicate padding."""

import pytest
import torch
from torch import nn

from tmcnet.config import ModelConfig
from tmcnet.model import backbone as room
from tmcnet.model.backbone import (
    MAX_SEPARATE_WORK,
    Backbone,
    convolution,
    resampled_convolution,
    taps_of_enlarged,
    taps_of_map,
    tapwise_convolution,
    tapwise_work,
)
from tmcnet.model.context import enlarge


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


def separately(x, weight, dilation):
    return resampled_convolution(x, weight, *(taps_of_map(length, dilation) for length in x.shape[-2:]))


def same_values_and_gradients(ways, *inputs):
    """Whether functions of the same inputs have the same results and gradients."""
    results = []
    for way in ways:
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        found = way(*leaves)
        wanted = torch.randn(found.shape, generator=torch.Generator().manual_seed(0), dtype=found.dtype)
        (found * wanted).sum().backward()
        results.append((found, *(x.grad for x in leaves)))
    for others in zip(*results, strict=True):
        for other in others[1:]:
            torch.testing.assert_close(other, others[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 2, 4, 6, 7, 9, 20])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_other_ways_equal_the_padded_convolution(dilation, shape, layout):
    random = torch.Generator().manual_seed(dilation)
    image = torch.randn(2, 5, *shape, generator=random, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(3, 5, 3, 3, generator=random, dtype=torch.float64).contiguous(memory_format=layout)
    ways = [lambda *both, way=way: way(*both, dilation) for way in (plain, tapwise_convolution, separately)]
    same_values_and_gradients(ways, image, weight)


@pytest.mark.parametrize("size", [(12, 20), (11, 17), (9, 20)])
def test_a_convolution_of_an_enlarged_map_needs_no_enlarged_map(size):
    random = torch.Generator().manual_seed(0)
    image = torch.randn(2, 5, 3, 5, generator=random, dtype=torch.float64)
    weight = torch.randn(4, 5, 3, 3, generator=random, dtype=torch.float64)
    taps = [taps_of_enlarged(small, large, 4).double() for small, large in zip((3, 5), size, strict=True)]
    ways = (lambda x, w: plain(enlarge(x, size, 4), w, 1), lambda x, w: resampled_convolution(x, w, *taps))
    same_values_and_gradients(ways, image, weight)


def test_work_is_counted_in_pixels_that_taps_see():
    assert tapwise_work(14, 14, 18) == pytest.approx((14 + 2) ** 2 / 42**2)
    assert tapwise_work(14, 28, 6) == pytest.approx((14 + 16) * (28 + 44) / (42 * 84))
    assert tapwise_work(50, 50, 1) > MAX_SEPARATE_WORK


@pytest.mark.parametrize(
    ("channels", "dilation", "cheapest"),
    [
        (4, 1, None),
        (4, 6, "resampled_convolution"),
        (4, 12, "tapwise_convolution"),
        (4, 18, "tapwise_convolution"),
        (512, 1, None),
        (512, 6, "tapwise_convolution"),
    ],
)
def test_the_cheapest_way_is_taken(monkeypatch, channels, dilation, cheapest):
    taken = []
    for name in ("tapwise_convolution", "resampled_convolution"):
        way = getattr(room, name)
        monkeypatch.setattr(room, name, lambda *given, n=name, way=way: taken.append(n) or way(*given))
    layer = convolution(channels, 3, 3, dilation=dilation)
    assert set(layer.state_dict()) == {"weight"}
    image = torch.randn(2, channels, 14, 14)
    torch.testing.assert_close(layer(image), plain(image, layer.weight, dilation), rtol=0, atol=1e-4)
    assert taken == ([cheapest] if cheapest else [])


@pytest.mark.parametrize(
    "layer",
    [
        convolution(4, 3, 3, published=True),
        convolution(4, 3, 3, stride=2),
        convolution(4, 3, 1),
        convolution(4, 3, 1, stride=2),
        convolution(4, 3, 7, stride=2),
        convolution(4, 3, 3, dilation=2),
        room.Conv2d(4, 3, 1),
    ],
    ids=str,
)
def test_all_convolutions_equal_torchs_own(layer):
    image = torch.randn(2, 4, 7, 9)
    torch.testing.assert_close(layer(image), nn.Conv2d.forward(layer, image), rtol=0, atol=1e-5)
