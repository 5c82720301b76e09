"""Classifiers of the features of frozen encoders beside context features."""

import json

import numpy as np
import pytest
import torch

from tests.train.test_finetune import train
from tests.train.tiny import build_tiles, configs
from tmcnet.config import MethodConfig, Run
from tmcnet.config.training import SweepConfig, expand_sweep
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import TrainingError
from tmcnet.evaluate.export import TOLERANCE, export_model
from tmcnet.evaluate.trained import Trained
from tmcnet.model.context import context_reach
from tmcnet.model.encoder_features import COMPONENTS, EncoderFeatures
from tmcnet.model.tmcnet import TMCNet
from tmcnet.model.weights import save_weights
from tmcnet.splits.files import read_list
from tmcnet.store import TileStore
from tmcnet.train.perceptron import Pixels
from tmcnet.train.pixelwise import Fitted, _fit_logistic, fit_components

SMALL = {"pixels": 600, "iterations": 6, "steps": 100}
BANDS = {"optical": 3, "sar": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


def pretrained(path, **method):
    """Weights as pre-training writes them; returns the network too."""
    torch.manual_seed(3)
    network = TMCNet(BANDS, configs()[1], MethodConfig(**method))
    save_weights(path, network.state_dict(), {"kind": "encoder", "config": {}})
    return network


def run_of(network, method="random"):
    return Run.parse(f"{network}-baseline__{method}__R50__s1")


def images(size=48):
    torch.manual_seed(5)
    return {name: torch.randn(1, bands, size, size) for name, bands in BANDS.items()}


@pytest.mark.parametrize("network", ["encoder_logistic", "encoder_boosting", "encoder_mlp"])
@pytest.mark.parametrize(
    ("method", "sources"),
    [
        ({}, ["optical", "sar"]),
        ({"variant": "reference"}, ["optical", "sar"]),
        ({"method": "simclr"}, ["stacked"]),
        ({"modality": "sar"}, ["sar"]),
    ],
)
def test_every_pretraining_can_be_the_start(world, tmp_path, network, method, sources):
    weights = tmp_path / "pre" / "weights.safetensors"
    before = pretrained(weights, **method)
    train(world, tmp_path / "run", run_of(network, "tmcnet"), weights, pixelwise=SMALL)
    read = Trained.read(tmp_path / "run" / "weights.safetensors")
    features = read.network.features
    assert features.sources == sources
    for name in sources:
        mine, its = features.get_submodule(f"backbone_{name}"), before.encoder(name)
        assert all(torch.equal(mine.state_dict()[key], value) for key, value in its.state_dict().items())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["loaded"] == sum(name.startswith("backbone_") for name in before.state_dict())
    assert summary["validation"]["miou"] > (0.7 if network == "encoder_mlp" else 0.8)  # of two tiles
    assert read.network(images()).shape == (1, 2, 48, 48)


@pytest.mark.slow
def test_it_is_one_file_that_is_exported(world, tmp_path):
    train(world, tmp_path / "run", run_of("encoder_boosting"), pixelwise=SMALL)
    export_model(tmp_path / "run" / "weights.safetensors", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["checked"]["largest_difference"] < TOLERANCE


def test_components_are_those_of_the_maps(world):
    torch.manual_seed(1)
    features = EncoderFeatures(BANDS, configs()[1])
    scaling = Normalisation.read(world / "normalisation.json")
    names = read_list(world / "splits" / "train_RGB.txt")
    tiles = TileDataset(TileStore(world / "tiles"), names, scaling, with_labels=False, cache_gib=0)
    fit_components(features, tiles, seed=1)
    shown = list(images(64).values())
    found = features(*shown)[0, -COMPONENTS:, ::4, ::4]
    channels = features.channels(*shown)[0].flatten(1)
    projection = torch.cat([features.get_buffer(f"project_{name}") for name in features.sources], dim=1)
    expected = projection @ channels + features.bias[:, None]
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-3, atol=1e-3)
    values = np.concatenate(
        [features.channels(*(i[None] for i in tile.images.values()))[0].flatten(1).T.numpy() for tile in tiles]
    )
    spread = (values @ projection.T.numpy()).var(axis=0)
    assert (np.diff(spread) < 1e-3 * spread[0]).all()  # the largest first
    assert spread[0] == pytest.approx(1, rel=0.05)
    features.train()
    assert not features.get_submodule("backbone_optical").training


def test_a_small_component_that_fits_the_labelled_tiles_by_chance_counts_little():
    random = np.random.default_rng(1)
    features = EncoderFeatures(BANDS, configs()[1])
    truth = random.integers(0, 2, 2000)
    values = random.normal(size=(2000, features.count(4))).astype(np.float32)
    values[:, 0] += truth  # a band tells the classes apart, and so does the last component
    values[:, -COMPONENTS:] *= 0.01
    values[:, -1] += 0.02 * truth
    penalised, standardised = Fitted(), Fitted()
    _fit_logistic(Pixels(values, truth, np.ones(2000), COMPONENTS), 2, 4, penalised)
    _fit_logistic(Pixels(values, truth, np.ones(2000)), 2, 4, standardised)
    small, large = (
        (result.weights["weight"][1] / result.weights["scale"])[-1] * 0.01 for result in (penalised, standardised)
    )
    assert 0 < small < 0.1 * large
    repeated = Pixels(*(np.concatenate([v, v]) for v in (values, truth, np.ones(2000))), COMPONENTS)
    again = Fitted()
    _fit_logistic(repeated, 2, 4, again)  # more pixels of the same tiles are no more evidence
    torch.testing.assert_close(again.weights["weight"], penalised.weights["weight"], rtol=1e-2, atol=1e-3)


def test_a_place_has_the_same_features_in_any_window(world):
    torch.manual_seed(1)
    _, model, _, _ = configs()
    features = EncoderFeatures(BANDS, model)
    for name in features.sources:
        torch.nn.init.normal_(features.get_buffer(f"project_{name}"))
    shown = images(704)  # the receptive field reaches about 250 pixels
    whole = features(*shown.values())[0]
    window = features(*(image[..., 64:640, 64:640] for image in shown.values()))[0]
    assert context_reach(features) == features.context.reach
    torch.testing.assert_close(window[:, 272:304, 272:304], whole[:, 336:368, 336:368], rtol=1e-3, atol=1e-3)


def test_weights_of_other_sizes_are_refused(world, tmp_path):
    _, model, _, _ = configs()
    wide = TMCNet(BANDS, model.model_copy(update={"width": 16}), MethodConfig())
    path = tmp_path / "weights.safetensors"
    save_weights(path, wide.state_dict(), {"kind": "encoder", "config": {}})
    with pytest.raises(TrainingError, match="would be random"):
        train(world, tmp_path / "run", run_of("encoder_logistic", "tmcnet"), path, pixelwise=SMALL)


def test_each_start_of_the_sweep_is_a_run_and_ensembles_pass_it_on():
    sweep = SweepConfig(
        methods=["random", "tmcnet"],
        networks=["encoder_boosting", {"ensemble": ["pixel_boosting", "encoder_logistic"]}],
        fractions=[5],
        seeds=[1],
    )
    runs = {run.name: run for run in expand_sweep([sweep])}
    assert "encoder_boosting-baseline__tmcnet__R5__s1" in runs
    mean = runs["pixel_boosting_and_encoder_logistic-baseline__tmcnet__R5__s1"]
    assert [m.name for m in mean.members] == [
        "pixel_boosting-baseline__random__R5__s1",
        "encoder_logistic-baseline__tmcnet__R5__s1",
    ]
