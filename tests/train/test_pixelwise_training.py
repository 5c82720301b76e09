import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.train.test_finetune import train
from tests.train.tiny import SIZE, build_tiles, configs
from tmcnet.config import ContextConfig, Run, is_pixelwise
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.evaluate.trained import Trained
from tmcnet.model.context import ContextFeatures
from tmcnet.raster.io.reader import read_labels
from tmcnet.raster.io.writer import write_raster
from tmcnet.registry import NETWORKS
from tmcnet.splits.files import read_list
from tmcnet.store import TileStore
from tmcnet.train import pixelwise as module
from tmcnet.train.perceptron import draw_pixels, pixels_per_class
from tmcnet.train.samples import class_counts, class_weights

PIXELWISE = [network for network in NETWORKS if is_pixelwise(network)]
SMALL = {"pixels": 600, "iterations": 6, "steps": 50}
BANDS_ONLY = ContextConfig(windows=[], differences=False, relative_window=None)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


def run_of(network):
    return Run.parse(f"{network}-baseline__random__R50__s1")


def tiles_of(world, part="trainR50"):
    names = read_list(world / "splits" / f"{part}_RGB.txt")
    scaling = Normalisation.read(world / "normalisation.json")
    return TileDataset(TileStore(world / "tiles"), names, scaling, with_labels=True, cache_gib=1)


def test_quotas_are_even_as_far_as_the_pixels_go():
    np.testing.assert_array_equal(pixels_per_class(np.array([1000, 1000, 1000]), 300), [100, 100, 100])
    np.testing.assert_array_equal(pixels_per_class(np.array([1000, 20, 0, 1000]), 300), [140, 20, 0, 140])
    np.testing.assert_array_equal(pixels_per_class(np.array([5, 7]), 300), [5, 7])
    assert pixels_per_class(np.array([50, 50, 50]), 100).sum() == 100


@pytest.mark.parametrize("weighted", [True, False])
def test_pixels_keep_to_the_budget_and_weigh_what_they_stand_for(world, weighted):
    tiles, features = tiles_of(world), ContextFeatures(ContextConfig(windows=[3]))
    counts = class_counts(tiles, 2)
    balance = class_weights(counts).double().numpy() if weighted else np.ones(2)
    config = configs(pixelwise=SMALL)[0]
    pixels = draw_pixels(features, tiles, counts, balance, config, seed=3)
    assert pixels.values.shape == (600, features.count(4))
    np.testing.assert_array_equal(np.bincount(pixels.truth), [300, 300])
    assert pixels.weights.mean() == pytest.approx(1)
    mass = np.bincount(pixels.truth, pixels.weights)
    assert mass[1] / mass[0] == pytest.approx(balance[1] * counts[1] / (balance[0] * counts[0]))
    again = draw_pixels(features, tiles, counts, balance, config, seed=3)
    np.testing.assert_array_equal(pixels.values, again.values)
    other = draw_pixels(features, tiles, counts, balance, config, seed=4)
    assert not np.array_equal(pixels.values, other.values)


def test_every_labelled_pixel_is_drawn_once_where_the_budget_allows(world):
    tiles, features = tiles_of(world), ContextFeatures(BANDS_ONLY)
    counts = class_counts(tiles, 2)
    everything = configs(pixelwise={"pixels": 10**6})[0]
    pixels = draw_pixels(features, tiles, counts, np.ones(2), everything, seed=1)
    expected = []
    for tile in tiles:
        image = torch.cat(list(tile.images.values())).flatten(1).T
        expected.append(image[tile.label.flatten() != 255].numpy())
    np.testing.assert_array_equal(pixels.values, np.concatenate(expected))
    np.testing.assert_allclose(pixels.weights, 1)


def test_a_share_of_pixels_sees_one_sensor_only(world):
    tiles = tiles_of(world)
    whole, partly = (
        draw_pixels(
            ContextFeatures(BANDS_ONLY),
            tiles,
            class_counts(tiles, 2),
            np.ones(2),
            configs(pixelwise=SMALL, modality_dropout=share)[0],
            seed=1,
        ).values
        for share in (0.0, 0.4)
    )
    no_optical, no_sar = whole * [0, 0, 0, 1], whole * [1, 1, 1, 0]
    lost = [(partly == seen).all(axis=1) & (partly != whole).any(axis=1) for seen in (no_optical, no_sar)]
    assert [rows.mean() for rows in lost] == pytest.approx([0.2, 0.2], abs=0.06)
    assert ((partly == whole).all(axis=1) | lost[0] | lost[1]).all()


@pytest.mark.parametrize("network", ["pixel_mlp", "mssnet"])
def test_covered_copies_teach_what_sar_shows_under_clouds(world, tmp_path, network):
    run = Run.parse(f"{network}-{'corrected' if network == 'mssnet' else 'baseline'}__random__R50__s1")
    small = {"pixels": 2000, "steps": 300}
    accuracy, summaries = [], []
    for copies in ([], ["clouds", "no_data", "clouds"]):
        out = tmp_path / f"{len(copies)}"
        train(world, out, run, pixelwise=small, covered_copies=copies, keep="last")
        summaries.append(json.loads((out / "summary.json").read_text()))
        classify, found, truth = Trained.read(out / "weights.safetensors").network, [], []
        for tile in tiles_of(world, "val"):
            cloud = torch.full((1, 3, SIZE, SIZE), 1.3)
            with torch.no_grad():
                logits = classify({"optical": cloud, "sar": tile.images["sar"][None]})[0]
            found.append(logits.argmax(dim=0)[tile.label != 255])
            truth.append(tile.label[tile.label != 255])
        accuracy.append(float((torch.cat(found) == torch.cat(truth)).float().mean()))
    assert accuracy[0] < 0.8 < 0.9 < accuracy[1]
    assert all(summaries[0][key] == summaries[1][key] for key in ("tiles", "labelled_pixels", "class_weights"))


def test_networks_of_one_modality_have_no_covered_copies(world, tmp_path):
    run = Run.parse("optical_only-baseline__random__R50__s1")
    for copies in ([], ["clouds"]):
        train(world, tmp_path / f"{len(copies)}", run, steps=3, covered_copies=copies)
    plain, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("0", "1"))
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize(
    ("iterations", "validated"), [(1, [1]), (3, [1, 2, 3]), (11, [1, 2, 3, 4, 6, 7, 8, 9, 10, 11])]
)
def test_few_boosting_rounds_are_validated_one_by_one(world, tmp_path, iterations, validated):
    train(world, tmp_path, run_of("pixel_boosting"), pixelwise=SMALL | {"iterations": iterations})
    curves = np.atleast_1d(np.genfromtxt(tmp_path / "curves.csv", delimiter=",", names=True))
    assert curves["step"].tolist() == validated


@pytest.mark.parametrize("network", PIXELWISE)
def test_learns_and_writes_what_later_stages_need(world, tmp_path, network):
    train(world, tmp_path / "run", run_of(network), pixelwise=SMALL)
    train(world, tmp_path / "net", Run.parse("optical_only-baseline__random__R50__s1"), steps=1)
    summary, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("run", "net"))
    assert set(summary) == {*other, "warnings"}
    assert summary["validation"]["miou"] > 0.9
    assert summary["loaded"] == 0
    assert summary["warnings"] == []
    assert 0 < summary["best_step"] <= summary["steps"]
    curves = np.atleast_1d(np.genfromtxt(tmp_path / "run" / "curves.csv", delimiter=",", names=True))
    assert {"step", "loss", "val_miou", "val_oa"} <= set(curves.dtype.names)
    kept = curves["step"] == summary["best_step"]
    assert curves["val_miou"][kept] == pytest.approx(summary["validation"]["miou"], abs=1e-5)
    assert curves["val_miou"].max() == pytest.approx(curves["val_miou"][kept], abs=1e-5)
    trained = Trained.read(tmp_path / "run" / "weights.safetensors")
    assert trained.run == run_of(network)
    assert summary["parameters"] == sum(p.numel() for p in trained.network.parameters()) > 0


@pytest.mark.parametrize("network", PIXELWISE)
def test_the_same_seed_gives_the_same_weights(world, tmp_path, network):
    for name in ("first", "second"):
        train(world, tmp_path / name, run_of(network), pixelwise=SMALL)
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("network", PIXELWISE)
def test_one_class_in_the_labels_is_what_is_predicted(tmp_path, network):
    world = build_tiles(tmp_path / "world")
    for name in read_list(world / "splits" / "trainR50_RGB.txt"):
        path = world / "tiles" / "label" / f"{name}.tif"
        label = read_labels(path)
        write_raster(path, np.where(label == 0, 255, label).astype(np.uint8), None, nodata=255)
    train(world, tmp_path / "run", run_of(network), pixelwise=SMALL)
    trained = Trained.read(tmp_path / "run" / "weights.safetensors").network
    images = {"optical": torch.randn(1, 3, 20, 20), "sar": torch.randn(1, 1, 20, 20)}
    found = trained(images).softmax(dim=1)
    assert (found[:, 1] == 1).all()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == summary["best_step"] == 0


def test_a_solver_that_does_not_converge_is_told_of(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "MAX_SOLVER_ITERATIONS", 2)
    train(world, tmp_path / "run", run_of("pixel_logistic"), pixelwise=SMALL)
    (warning,) = json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"]
    assert "converge" in warning
    assert warning in capsys.readouterr().err
