"""Weights from elsewhere: ResNets, and published checkpoints (made here from their description: none is public)."""

import pytest
import torch
from safetensors.torch import save_file

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.errors import InputError
from tmcnet.model import foreign_weights
from tmcnet.model.backbone import Backbone
from tmcnet.model.foreign_weights import MODULES, common_name, for_bands, load_initial_weights, read_published
from tmcnet.model.networks import build_network
from tmcnet.model.tmcnet import TMCNet
from tmcnet.model.weights import read_weights, transfer

RESNET_SIZES = {"width": 8, "aspp_channels": 16, "decoder_channels": 16}
TWO_BANDS = {"optical": 3, "sar": 1}


def resnet(name="resnet18", bands=3, seed=1):
    """A file's worth of tensors, with a classifier."""
    torch.manual_seed(seed)
    state = Backbone(bands, ModelConfig(backbone=name, **RESNET_SIZES), 0.1).state_dict()
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
def test_every_tensor_has_its_common_name(name):
    with torch.device("meta"):
        own = Backbone(3, ModelConfig(backbone=name), 0.1).state_dict()
    assert sorted(common_name(n) for n in own) == sorted(stages(name))
    with pytest.raises(ValueError, match=r"head\.weight"):
        common_name("head.weight")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_encoder_takes_them_over(tmp_path, name):
    given = resnet(name)
    save_file(given, tmp_path / "resnet.safetensors")
    network = TMCNet(TWO_BANDS, ModelConfig(backbone=name, **RESNET_SIZES), MethodConfig())
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
    network = TMCNet(TWO_BANDS, ModelConfig(**RESNET_SIZES), MethodConfig())
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


SIZES = ModelConfig(backbone="resnet50", width=8, aspp_channels=16, decoder_channels=16)
BANDS = {"optical": 3, "sar": 2}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(foreign_weights, "_SIZES", SIZES)


def checkpoint(common=True, prefix=""):
    """The network, and its tensors as the published code might name them, with what it never uses."""
    network = TMCNet(BANDS, SIZES, MethodConfig(variant="reference"))
    for tensor in network.state_dict().values():
        tensor.copy_(torch.rand_like(tensor) if tensor.is_floating_point() else tensor)
    theirs = {own: name for name, own in MODULES.items()}
    state = {}
    for name, tensor in network.state_dict().items():
        module, _, rest = name.partition(".")
        if module in theirs:
            backbone = module.startswith("backbone")
            known = common_name(rest) if common and backbone else f"net.{rest}"
            state[f"{prefix}{theirs[module]}.{known}"] = tensor.clone()
    state[f"{prefix}fusion.0.weight"] = torch.zeros(4, 8, 3, 3)
    state[f"{prefix}head.weight"] = torch.zeros(4, 8)
    return network, state


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_every_tensor_comes_back_under_its_own_name(tmp_path, common, prefix, container):
    network, state = checkpoint(common, prefix)
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "best.pth")
    found = read_published(tmp_path / "best.pth")
    wanted = {n: t for n, t in network.state_dict().items() if n.partition(".")[0] in MODULES.values()}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_norms_may_come_after_all_convolutions(tmp_path):
    network, state = checkpoint(common=False)
    layers = sorted(state.items(), key=lambda item: item[1].ndim != 4)
    torch.save(dict(layers), tmp_path / "best.pth")
    found = read_published(tmp_path / "best.pth")
    assert all(torch.equal(found[name], network.state_dict()[name]) for name in found)


def test_counters_of_batches_may_be_missing(tmp_path):
    for common in (True, False):
        _, state = checkpoint(common)
        torch.save({n: t for n, t in state.items() if not n.endswith("tracked")}, tmp_path / "old.pth")
        found = read_published(tmp_path / "old.pth")
        assert found and not any(name.endswith("tracked") for name in found)


def test_fine_tuning_can_start_from_it(tmp_path):
    network, state = checkpoint()
    torch.save(state, tmp_path / "best.pth")
    found, header = read_weights(tmp_path / "best.pth")
    assert header["kind"] == "encoder"
    for variant in ("reference", "corrected"):
        target = build_network("mssnet", variant, BANDS, 5, SIZES)
        done = transfer(target, found, "all")
        encoders = [n for n in target.state_dict() if n.startswith("backbone_") and "sar" not in n]
        assert set(encoders) <= set(done.loaded)
        assert torch.equal(target.backbone_optical.stem[0].weight, network.backbone_optical.stem[0].weight)
    assert any(name.startswith("backbone_sar.") for name in done.loaded)


def test_all_that_does_not_fit_is_named_at_once(tmp_path):
    _, state = checkpoint(common=False)
    state["encoder.net.pyramid.1.0.weight"] = torch.zeros(3, 3, 3, 3)
    state["decoder.net.extra.weight"] = torch.zeros(3, 3, 1, 1)
    del state["backbone.net.first.0.body.1.bias"]
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(InputError) as caught:
        read_published(tmp_path / "odd.pth")
    message = str(caught.value)
    assert "odd.pth" in message
    assert "`encoder`: `net.pyramid.1.0.weight` is 3x3x3x3 in the file, 16x256x3x3 in the network" in message
    assert "`decoder`: 5 convolutions in the file, 4 in the network" in message
    assert "`backbone`: `net.first.0.body.1.bias` is missing" in message


def test_known_names_of_another_shape_are_named(tmp_path):
    _, state = checkpoint()
    state["backbone.layer1.0.conv2.weight"] = torch.zeros(2, 2, 3, 3)
    del state["backbone_sar.bn1.weight"]
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(
        InputError, match=r"`layer1\.0\.conv2\.weight` is 2x2x3x3 .*; `backbone_sar`: `bn1\.weight` is"
    ):
        read_published(tmp_path / "odd.pth")


def test_other_files_are_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"no module `backbone`; there is no module `backbone_sar`"):
        read_published(tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no such thing")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "code.pth")
    for name in ("broken.pth", "code.pth", "absent.pth"):
        with pytest.raises(InputError, match=name):
            read_published(tmp_path / name)
