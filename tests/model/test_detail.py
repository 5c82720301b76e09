import torch

from tmcnet.config import ModelConfig
from tmcnet.model.deeplab import Detail
from tmcnet.model.networks import build_network

SMALL = {"width": 8, "aspp_channels": 16, "decoder_channels": 16}
BANDS = {"optical": 4, "sar": 2}


def test_training_begins_from_the_logits_of_the_decoder():
    detail = Detail(6, 5, ModelConfig(**SMALL), 0.1)
    images = torch.randn(2, 4, 32, 32), torch.randn(2, 2, 32, 32)
    assert detail(*images).shape == (2, 5, 32, 32)
    assert not detail(*images).any()


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
