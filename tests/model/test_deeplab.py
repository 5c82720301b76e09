"""Pyramid, decoder and the branch at full resolution."""

import pytest
import torch

from tmcnet.config import ModelConfig
from tmcnet.model.context import Detail
from tmcnet.model.deeplab import ASPP, Decoder
from tmcnet.model.networks import build_network

SMALL = {"width": 8, "aspp_channels": 16, "decoder_channels": 16}
BANDS = {"optical": 4, "sar": 2}


def test_training_begins_from_the_logits_of_the_decoder():
    detail = Detail(6, 5, ModelConfig(**SMALL))
    images = torch.randn(2, 4, 32, 32), torch.randn(2, 2, 32, 32)
    assert detail(*images).shape == (2, 5, 32, 32)
    assert not detail(*images).any()


@pytest.mark.parametrize("network", ["mssnet", "late_fusion", "sar_only"])
def test_networks_start_from_equal_shares_of_all_classes(network):
    torch.manual_seed(0)
    images = {name: torch.randn(2, bands, 32, 32) for name, bands in BANDS.items()}
    logits = build_network(network, "corrected", BANDS, 5, ModelConfig(**SMALL))(images)
    assert not logits.any()


def test_without_channels_nothing_is_built_and_nothing_added():
    with_branch = build_network("mssnet", "corrected", BANDS, 5, ModelConfig(**SMALL))
    without = build_network("mssnet", "corrected", BANDS, 5, ModelConfig(**SMALL, detail_channels=0))
    assert not any(name.startswith("detail.") for name in without.state_dict())
    names = set(with_branch.state_dict()) - set(without.state_dict())
    assert names and all(name.startswith("detail.") for name in names)
    images = {name: torch.randn(2, bands, 32, 32) for name, bands in BANDS.items()}
    assert without(images).shape == (2, 5, 32, 32)


def test_the_published_network_has_no_such_branch():
    network = build_network("mssnet", "reference", BANDS, 5, ModelConfig(**SMALL))
    assert not any(name.startswith("detail.") for name in network.state_dict())


def test_aspp_has_the_dilations_of_the_config():
    aspp = ASPP(8, ModelConfig(aspp_channels=16, dilations=(2, 4, 6)), 0.1, 0.5)
    assert [branch[0].dilation[0] for branch in list(aspp.pyramid)[1:]] == [2, 4, 6]


def test_decoder_gives_the_size_of_the_low_map():
    decoder = Decoder(16, 32, 7, ModelConfig(aspp_channels=16, decoder_channels=24), 0.1, dropout=(0.5, 0.1))
    assert decoder(torch.randn(2, 16, 3, 5), torch.randn(2, 32, 12, 20)).shape == (2, 7, 12, 20)
    assert decoder.output.weight.shape == (7, 24, 1, 1)


def test_without_image_pooling_a_pixel_does_not_know_its_window():
    """What is beyond the reach of the pyramid must not change a pixel; with the published image pooling it does."""
    torch.manual_seed(0)
    config = ModelConfig(aspp_channels=16, dilations=(1, 2, 3))
    near = torch.randn(1, 8, 12, 12)
    far = near.clone()
    far[..., 6:] += 5
    for published in (False, True):
        aspp = ASPP(8, config, 0.1, 0.0, published).eval()
        same = torch.allclose(aspp(near)[..., :2], aspp(far)[..., :2])
        assert same is not published
