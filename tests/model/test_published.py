"""Checkpoints of the published pre-training code: made here from its description, since none is public."""

import pytest
import torch

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.errors import InputError
from tmcnet.model import published
from tmcnet.model.initial import common_name
from tmcnet.model.networks import build_network
from tmcnet.model.published import MODULES, read_published
from tmcnet.model.tmcnet import TMCNet
from tmcnet.model.weights import read_weights, transfer

SIZES = ModelConfig(backbone="resnet50", width=8, aspp_channels=16, decoder_channels=16, embedding=8)
BANDS = {"optical": 3, "sar": 2}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(published, "_SIZES", SIZES)


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
