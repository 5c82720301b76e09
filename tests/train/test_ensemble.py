"""Ensembles as networks: the mean of the calibrated probabilities of their members."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.train.tiny import build_tiles, configs
from tmcnet.config import Run
from tmcnet.config.training import SweepConfig, expand_sweep
from tmcnet.dataset.loading import TileDataset
from tmcnet.evaluate.export import TOLERANCE, export_model
from tmcnet.evaluate.trained import Trained, probabilities
from tmcnet.store import TileStore
from tmcnet.train.finetune import Finetuning, finetune

MEMBERS = ["pixel_boosting", "pixel_logistic", "mssnet"]
SWEEP = SweepConfig(methods=["random", "tmcnet"], networks=[{"ensemble": MEMBERS}], fractions=[50], seeds=[1])


def train(world, out, run, members=(), **changes):
    config, model, sensors, compute = configs(steps=12, pixelwise={"pixels": 600, "iterations": 6}, **changes)
    folders = world / "tiles", world / "splits", world / "normalisation.json"
    state = out.parent / "state"
    finetune(Finetuning(*folders, run, None, config, model, sensors, compute, out, state, members=tuple(members)))
    return out / "weights.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("ensemble")
    world = build_tiles(root / "world")
    run = next(run for run in expand_sweep([SWEEP]) if run.method == "random")
    members = [train(world, root / member.name, member) for member in run.members]
    return world, members, train(world, root / run.name, run, members)


def test_members_are_runs_on_the_same_labels():
    run = next(run for run in expand_sweep([SWEEP]) if run.method == "tmcnet")
    assert run.name == "pixel_boosting_and_pixel_logistic_and_mssnet-corrected__tmcnet__R50__s1"
    assert Run.parse(run.name) == run
    names = [member.name for member in run.members]
    assert names[0] == "pixel_boosting-baseline__random__R50__s1"
    assert names[2] == "mssnet-corrected__tmcnet__R50__s1"
    pixelwise = SweepConfig(
        methods=["tmcnet"],
        networks=[{"ensemble": MEMBERS[:2]}, {"ensemble": ["optical_only", "sar_only"]}],
        points=[5],
    )
    assert {run.method for run in expand_sweep([pixelwise]) if "pixel" in run.network} == {"random"}


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ({"ensemble": ["mssnet"]}, "at least two different"),
        ({"ensemble": ["mssnet", "mssnet"]}, "at least two different"),
        ({"ensemble": ["mssnet", "unet"]}, "no network `unet`"),
        ({"mean": ["mssnet", "pixel_boosting"]}, "a name or"),
    ],
)
def test_ensembles_that_cannot_be_are_named(network, reason):
    with pytest.raises(ValidationError, match=reason):
        SweepConfig(networks=[network], fractions=[5])


def test_probabilities_are_the_mean_of_the_calibrated_members(trained):
    world, members, path = trained
    ensemble = Trained.read(path)
    tile = TileDataset(TileStore(world / "tiles"), ["s1_r1_c0"], ensemble.normalisation, True, 0)[0]
    images = {name: image[None] for name, image in tile.images.items()}
    temperatures = ensemble.network.temperature
    assert (temperatures != 1).all() and ((temperatures >= 0.05) & (temperatures <= 20)).all()
    with torch.no_grad():
        expected = [
            (Trained.read(member).network(images) / t).softmax(dim=1)
            for member, t in zip(members, temperatures, strict=True)
        ]
    torch.testing.assert_close(probabilities(ensemble.network, images), sum(expected) / 3, atol=1e-5, rtol=0)


def test_it_is_scored_and_summarised_as_any_network(trained):
    _, members, path = trained
    summary = json.loads((path.parent / "summary.json").read_text())
    alone = [json.loads((member.parent / "summary.json").read_text())["validation"]["miou"] for member in members]
    assert summary["validation"]["miou"] >= np.median(alone) - 0.02
    assert summary["run"]["network"] == "pixel_boosting_and_pixel_logistic_and_mssnet"


def test_it_is_exported(trained, tmp_path):
    """Without the deep member, which `tests/evaluate/test_onnx.py` exports: its graph takes a minute."""
    world, members, _ = trained
    (run,) = expand_sweep([SweepConfig(networks=[{"ensemble": MEMBERS[:2]}], fractions=[50], seeds=[1])])
    export_model(train(world, tmp_path / run.name, run, members[:2]), tmp_path)
    assert json.loads((tmp_path / "card.json").read_text())["checked"]["largest_difference"] < TOLERANCE


@pytest.mark.parametrize("keep", ["last", "labels"])
def test_a_fixed_schedule_does_not_depend_on_the_validation_labels(trained, tmp_path, keep):
    world, _, ensemble = trained
    assert len(set(Trained.read(ensemble).network.temperature.tolist())) > 1
    run = next(run for run in expand_sweep([SWEEP]) if run.method == "random")
    fixed = [train(world, tmp_path / member.name, member, keep=keep) for member in run.members]
    steps = [json.loads((path.parent / "summary.json").read_text())["best_step"] for path in fixed]
    assert (steps[0], steps[2]) == (6, 12)
    whole = train(world, tmp_path / run.name, run, fixed, keep=keep)
    assert Trained.read(whole).network.temperature.tolist() == [1, 1, 1]
