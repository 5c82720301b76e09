"""Pre-training with a probe, gradient norm, accumulation and clipping, as the config asks for them."""

import csv

import pytest
import torch

from tests.train.tiny import build_tiles, configs
from tmcnet.config import MethodConfig, PretrainConfig
from tmcnet.config.pretraining import ProbeConfig
from tmcnet.model.weights import read_weights
from tmcnet.train import pretrain as room

SMALL = {"steps": 5, "batch_size": 2, "crop_size": 32, "patch_size": 8, "patches": 2, "warmup_steps": 1}
PROBED = {"probe": ProbeConfig(every=2, fraction=50), "accumulate": 2, "clip_norm": 1.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


def run(world, out):
    """The weights and the text of the curves."""
    _, model, sensors, compute = configs()
    config = PretrainConfig(**SMALL, log_every=2, checkpoint_every=2, **PROBED)
    places = world / "tiles", world / "splits", world / "normalisation.json"
    state = out.parent / f"{out.name}.state"
    work = room.Pretraining(*places, "tmcnet", MethodConfig(), config, model, sensors, compute, out, state)
    room.pretrain(work)
    return read_weights(out / "weights.safetensors")[0], (out / "curves.csv").read_text()


def test_the_probe_and_the_gradient_norm_are_in_the_curves_of_a_resumed_run_too(world, tmp_path, monkeypatch):
    weights, curves = run(world, tmp_path / "whole")
    rows = list(csv.DictReader(curves.splitlines()))
    assert [row["step"] for row in rows] == ["0", "2", "4", "5"]
    assert all(0 <= float(row["probe_oa"]) <= 1 for row in rows)
    assert float(rows[1]["gradient_norm"]) > 0
    assert not rows[0]["gradient_norm"]

    forward = room.PretrainModule.forward

    def dies(self, batch):
        if self.global_step == 3:
            raise ConnectionAbortedError
        return forward(self, batch)

    with monkeypatch.context() as patch, pytest.raises(ConnectionAbortedError):
        patch.setattr(room.PretrainModule, "forward", dies)
        run(world, tmp_path / "killed")
    again, same = run(world, tmp_path / "killed")
    assert same == curves
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
