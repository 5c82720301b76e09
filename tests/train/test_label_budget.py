"""Below 100 % of the labels, a run uses no label beyond its own."""

import json

import pytest
import torch

from tests.train.test_finetune import train
from tests.train.tiny import build_tiles
from tmcnet.config import ContextConfig, FinetuneSettings, ModelConfig, Run
from tmcnet.evaluate.trained import Trained
from tmcnet.model.context import ContextFeatures
from tmcnet.model.encoder_features import COMPONENTS, EncoderFeatures
from tmcnet.train import perceptron as module

SMALL = {"pixels": 600, "iterations": 6}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


def test_features_within_a_window():
    context = ContextConfig(windows=[31, 3], relative_window=63)
    features = ContextFeatures(context)
    image = torch.randn(1, 2, 9, 9)
    flags = {side: features.within(side, 2) for side in (1, 3, 31, 63)}
    assert [int(f.sum()) for f in flags.values()] == [3, 7, 11, 13]
    assert all(len(f) == features(image).shape[1] for f in flags.values())
    narrow = ContextFeatures(ContextConfig(windows=[3], relative_window=None))
    torch.testing.assert_close(features(image)[:, flags[3]], narrow(image))
    deep = EncoderFeatures({"optical": 2}, ModelConfig(width=8, context=context))
    assert int(deep.within(3, 2).sum()) == 7 + COMPONENTS


@pytest.mark.parametrize("network", ["pixel_logistic", "pixel_boosting", "pixel_mlp", "mssnet"])
def test_few_tiles_use_small_windows_and_all_rounds(world, tmp_path, monkeypatch, network):
    variant = "corrected" if network == "mssnet" else "baseline"
    run = Run.parse(f"{network}-{variant}__random__R50__s1")
    monkeypatch.setattr(module, "MAX_SMALL_WINDOW", 3)
    for keep in ("labels", "last"):
        train(world, tmp_path / keep, run, pixelwise=SMALL, keep=keep)
    summary = json.loads((tmp_path / "labels" / "summary.json").read_text())
    assert summary["best_step"] == summary["steps"]
    few, every = (Trained.read(tmp_path / keep / "weights.safetensors").network for keep in ("labels", "last"))
    features = few.detail.features if network == "mssnet" else few.features
    far = ~features.within(3, 4)
    assert far.any()
    if network == "pixel_logistic":
        assert (few.weight[:, far] == 0).all()
        assert (every.weight[:, far] != 0).any()
    elif network in ("pixel_mlp", "mssnet"):
        first, first_of_every = ((n.detail if network == "mssnet" else n).perceptron.layers[0] for n in (few, every))
        assert (first.weight[:, far] == 0).all()
        assert (first_of_every.weight[:, far] != 0).any()
    else:
        assert not torch.isin(few.feature, far.nonzero()[:, 0]).any()


def test_with_all_labels_the_validation_part_decides(world, tmp_path):
    assert FinetuneSettings().keep == "labels"
    run = Run.parse("pixel_logistic-baseline__random__R100__s1")
    train(world, tmp_path / "all", run, pixelwise=SMALL, keep="labels")
    assert Trained.read(tmp_path / "all" / "weights.safetensors").settings["finetune"]["keep"] == "best"
