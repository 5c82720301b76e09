"""Initial weights from ResNets trained elsewhere."""

import pytest
import torch
from safetensors.torch import save_file

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.errors import InputError
from tmcnet.model.backbone import Backbone
from tmcnet.model.initial import common_name, for_bands, load_initial_weights
from tmcnet.model.tmcnet import TMCNet

SIZES = {"width": 8, "aspp_channels": 16, "decoder_channels": 16, "embedding": 8}
BANDS = {"optical": 3, "sar": 1}


def resnet(name="resnet18", bands=3, seed=1):
    """A file's worth of tensors, with a classifier."""
    torch.manual_seed(seed)
    state = Backbone(bands, ModelConfig(backbone=name, **SIZES), 0.1).state_dict()
    return {
        **{common_name(n): torch.rand_like(t) if t.ndim else t for n, t in state.items()},
        "fc.weight": torch.zeros(2, 2),
    }


def stages(name):
    """The names of torchvision's ResNets, from their definition (He et al. 2016)."""
    counts, convolutions = {
        "resnet18": ((2, 2, 2, 2), 2),
        "resnet34": ((3, 4, 6, 3), 2),
        "resnet50": ((3, 4, 6, 3), 3),
    }[name]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    yield from ("conv1.weight", *(f"bn1.{n}" for n in norm))
    for stage, count in enumerate(counts, start=1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            for k in range(1, convolutions + 1):
                yield from (f"{prefix}.conv{k}.weight", *(f"{prefix}.bn{k}.{n}" for n in norm))
            if block == 0 and (stage > 1 or name == "resnet50"):
                yield from (f"{prefix}.downsample.0.weight", *(f"{prefix}.downsample.1.{n}" for n in norm))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("stride", [8, 16])
def test_every_tensor_has_its_common_name(name, stride):
    with torch.device("meta"):
        own = Backbone(3, ModelConfig(backbone=name, output_stride=stride), 0.1).state_dict()
    assert sorted(common_name(n) for n in own) == sorted(stages(name))
    with pytest.raises(ValueError, match=r"head\.weight"):
        common_name("head.weight")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_encoder_takes_them_over(tmp_path, name):
    given = resnet(name)
    save_file(given, tmp_path / "resnet.safetensors")
    network = TMCNet(BANDS, ModelConfig(backbone=name, **SIZES), MethodConfig())
    aspp = network.aspp.fuse[0].weight.clone()
    load_initial_weights(network, tmp_path / "resnet.safetensors")
    for encoder in (network.backbone_optical, network.backbone_sar):
        for own, tensor in encoder.state_dict().items():
            if own != "stem.0.weight":
                assert torch.equal(tensor, given[common_name(own)])
    assert torch.equal(network.backbone_optical.stem[0].weight, given["conv1.weight"])
    assert torch.equal(network.backbone_sar.stem[0].weight, for_bands(given["conv1.weight"], 1))
    assert torch.equal(network.aspp.fuse[0].weight, aspp)


def test_a_grey_image_gives_the_same_whatever_the_number_of_bands():
    filters, grey = (torch.randn(*shape, dtype=torch.float64) for shape in ((4, 3, 7, 7), (1, 1, 12, 12)))
    three = torch.conv2d(grey.expand(-1, 3, -1, -1), filters)
    for bands in (3, 6):
        torch.testing.assert_close(torch.conv2d(grey.expand(-1, bands, -1, -1), for_bands(filters, bands)), three)
    assert for_bands(filters, 4).shape == (4, 4, 7, 7)


def test_what_does_not_fit_is_named(tmp_path):
    network = TMCNet(BANDS, ModelConfig(**SIZES), MethodConfig())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_file(resnet("resnet50"), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: does not fit .* `layer1\.0\.conv1\.weight`"):
        load_initial_weights(network, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no such thing")
    torch.save(resnet(), tmp_path / "pickled.pth")
    for name in ("broken.safetensors", "absent.safetensors", "pickled.pth"):
        with pytest.raises(InputError, match=name):
            load_initial_weights(network, tmp_path / name)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
