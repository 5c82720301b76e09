"""The encoder and the DeepLab parts."""

import pytest
import torch
from torch import nn

from tmcnet.config import ModelConfig
from tmcnet.model.backbone import Backbone
from tmcnet.model.deeplab import ASPP, Decoder


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("stride", [8, 16])
def test_maps_have_the_promised_sizes(name, stride):
    backbone = Backbone(5, ModelConfig(backbone=name, width=8, output_stride=stride), 0.1)
    high, low = backbone(torch.randn(2, 5, 64, 48))
    assert high.shape == (2, backbone.high_channels, 64 // stride, 48 // stride)
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


def test_aspp_takes_a_single_image_in_training():
    config = ModelConfig(aspp_channels=16)
    aspp = ASPP(32, config, 0.1, 0.5, image_pooling=True).train()
    y = aspp(torch.randn(1, 32, 4, 4))
    assert y.shape == (1, 16, 4, 4) and torch.isfinite(y).all()
    before = aspp.pooled[1].running_mean.clone()
    aspp(torch.randn(2, 32, 4, 4))
    assert not torch.equal(before, aspp.pooled[1].running_mean)


def test_aspp_dilations_follow_the_stride():
    for stride, expected in ((16, [6, 12, 18]), (8, [12, 24, 36])):
        aspp = ASPP(8, ModelConfig(aspp_channels=16, output_stride=stride), 0.1, 0.5, image_pooling=False)
        assert [branch[0].dilation[0] for branch in list(aspp.pyramid)[1:]] == expected


def test_decoder_gives_the_size_of_the_low_map():
    decoder = Decoder(16, 32, 7, ModelConfig(aspp_channels=16, decoder_channels=24), 0.1, dropout=(0.5, 0.1))
    assert decoder(torch.randn(2, 16, 3, 5), torch.randn(2, 32, 12, 20)).shape == (2, 7, 12, 20)
    assert decoder.output.weight.shape == (7, 24, 1, 1)


def test_without_image_pooling_a_pixel_does_not_know_its_window():
    """What lies beyond the reach of the pyramid must not change a pixel; with image pooling it does."""
    torch.manual_seed(0)
    config = ModelConfig(aspp_channels=16, dilations=(1, 2, 3))
    near = torch.randn(1, 8, 12, 12)
    far = near.clone()
    far[..., 6:] += 5
    for image_pooling in (False, True):
        aspp = ASPP(8, config, 0.1, 0.0, image_pooling).eval()
        same = torch.allclose(aspp(near)[..., :2], aspp(far)[..., :2])
        assert same is not image_pooling
