"""Weights files and their transfer."""

import errno
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tmcnet.errors import InputError, TrainingError
from tmcnet.model.weights import read_weights, save_weights, transfer


class Net(nn.Module):
    def __init__(self, bands=3, classes=2):
        super().__init__()
        self.backbone_optical = nn.Sequential(nn.Conv2d(bands, 4, 3), nn.BatchNorm2d(4))
        self.aspp = nn.Conv2d(4, 4, 1)
        self.decoder = nn.Module()
        self.decoder.first = nn.Conv2d(4, 4, 1)
        self.decoder.output = nn.Conv2d(4, classes, 1)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "weights.safetensors"
    state = Net().state_dict()
    header = {"kind": "encoder", "config": {"a": [1, 2.5, None]}}
    save_weights(path, state, header)
    got, read_header = read_weights(path)
    assert read_header == header
    assert got.keys() == state.keys() and all(torch.equal(got[n], state[n]) for n in state)
    assert [p.name for p in path.parent.iterdir()] == ["weights.safetensors"]


def test_equal_content_has_equal_bytes_and_the_permissions_of_the_umask(tmp_path):
    state, header = (
        Net().state_dict(),
        {name: name.upper() for name in ("kind", "config", "classes", "run", "origin")},
    )
    paths = [tmp_path / f"{number}.safetensors" for number in range(8)]
    before = os.umask(0o027)
    try:
        for path in paths:
            save_weights(path, state, header)
    finally:
        os.umask(before)
    assert len({path.read_bytes() for path in paths}) == 1
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o640}


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(tmp_path / "weights.safetensors", {"a": torch.zeros(2)}, {"kind": "encoder"})
    assert list(tmp_path.iterdir()) == []


def test_foreign_and_broken_files_are_named(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no such thing")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign, metadata={"format": "pt"})
    pickled = tmp_path / "pickled.pt"
    torch.save({"a": torch.zeros(2)}, pickled)
    for path in (broken, foreign, pickled, tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(InputError, match=path.name):
            read_weights(path)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [("backbone", {"backbone_optical"}), ("encoder", {"backbone_optical", "aspp"}), ("all", None)],
)
def test_parts(parts, expected):
    source, target = Net(), Net(classes=5)
    done = transfer(target, source.state_dict(), parts)
    assert {name.split(".")[0] for name in done.loaded} == (expected or {"backbone_optical", "aspp", "decoder"})
    for name in done.loaded:
        assert torch.equal(target.state_dict()[name], source.state_dict()[name])
    assert {"decoder.output.weight", "decoder.output.bias"} <= done.skipped.keys()
    assert set(done.loaded) | set(done.skipped) == set(source.state_dict())


def test_other_shapes_are_skipped_with_the_reason():
    target = Net(bands=5)
    before = target.backbone_optical[0].weight.clone()
    done = transfer(target, Net(bands=3).state_dict(), "all")
    assert done.skipped["backbone_optical.0.weight"] == "shape 4x3x3x3 in the file, 4x5x3x3 in the network"
    assert torch.equal(target.backbone_optical[0].weight, before)


def test_loading_nothing_is_an_error():
    with pytest.raises(TrainingError, match="no weights were loaded"):
        transfer(Net(), {"other.weight": torch.zeros(1)}, "all")


def test_headers_of_earlier_versions_are_updated(tmp_path):
    """Modalities beside optical and SAR were below `further`; some sizes of the networks were keys of the config."""
    sizes = {"width": 8, "output_stride": 16, "image_pooling": False, "texture_windows": [3, 7, 15], "embedding": 16}
    sensors = {"optical": {"bands": ["r"]}, "sar": {"bands": ["vv"]}, "further": {"dem": {"bands": ["height"]}}}
    normalisation = {"optical": [], "sar": [], "clip": 1.5, "n_tiles": 3, "further": {"dem": []}}
    header = {"kind": "encoder", "config": {"model": sizes, "sensors": sensors}, "normalisation": normalisation}
    save_weights(tmp_path / "old.safetensors", Net().state_dict(), header)
    _, found = read_weights(tmp_path / "old.safetensors")
    assert found["config"]["model"] == {"width": 8}
    assert found["config"]["sensors"]["dem"] == {"bands": ["height"]}
    assert list(found["normalisation"]) == ["optical", "sar", "clip", "n_tiles", "dem"]
    header["config"]["model"]["output_stride"] = 8
    save_weights(tmp_path / "other.safetensors", Net().state_dict(), header)
    _, found = read_weights(tmp_path / "other.safetensors")
    assert found["config"]["model"] == {"width": 8, "output_stride": 8}, (
        "another network, which is not known any more"
    )
