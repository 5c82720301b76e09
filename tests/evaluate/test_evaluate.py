import json

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, jaccard_score

from tests.splits.tile_indexes import write_hashes
from tests.train.tiny import build_tiles, configs
from tmcnet.classes import ClassTable
from tmcnet.config import EvaluateConfig, Run
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError
from tmcnet.evaluate.evaluate import evaluate_run
from tmcnet.evaluate.metrics import boundary_counts, boundary_f1
from tmcnet.evaluate.trained import Trained
from tmcnet.model.networks import build_network
from tmcnet.model.weights import save_weights
from tmcnet.raster.io.reader import read_float, read_labels

RUN = Run.parse("late_fusion-baseline__random__R50__s1")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = build_tiles(tmp_path_factory.mktemp("world"))
    write_network(root, ClassTable.of([("left", "#0000ff"), ("right", "#00ff00")]))
    return root


def write_network(root, classes, run=RUN):
    _, model, sensors, _ = configs()
    torch.manual_seed(3)
    network = build_network(run.network, run.variant, {"optical": 3, "sar": 1}, len(classes), model)
    scaling = Normalisation.read(root / "normalisation.json")
    Trained(network, run, model, sensors, classes, scaling, {}).write(root / "weights.safetensors", {})


def score(world, out, run=RUN, withheld=True):
    compute = configs()[3]
    evaluate_run(
        world / "tiles", world / "splits", weights=world / "weights.safetensors", run=run,
        config=EvaluateConfig(batch_size=3, withheld=withheld), compute=compute, out=out,
    )  # fmt: skip
    return json.loads((out / "metrics.json").read_text())


def test_scores_are_those_of_all_test_pixels(world, tmp_path):
    scores = score(world, tmp_path)
    trained = Trained.read(world / "weights.safetensors")
    names = (world / "splits" / "test_RGB.txt").read_text().split()
    truths, guesses = [], []
    for name in names:
        images = {}
        for kind in ("optical", "sar"):
            values = read_float(world / "tiles" / kind / f"{name}.tif")
            images[kind] = torch.from_numpy(trained.normalisation.apply(values, kind))[None]
        with torch.no_grad():
            guesses.append(trained.network(images)[0].argmax(0).numpy())
        truths.append(read_labels(world / "tiles" / "label" / f"{name}.tif"))
    truth, guess = np.stack(truths), np.stack(guesses)
    known = truth != 255
    assert scores["n_pixels"] == known.sum() == 4 * 39 * 40
    assert scores["n_tiles"] == 4
    assert scores["kappa"] == pytest.approx(cohen_kappa_score(truth[known], guess[known]), abs=2e-3)
    iou = jaccard_score(truth[known], guess[known], average=None)
    assert list(scores["iou"].values()) == pytest.approx(iou, abs=2e-3)
    assert scores["run"] == RUN.record
    with np.load(tmp_path / "tiles.npz") as tiles:
        assert tiles["names"].tolist() == names
        assert set(tiles["scenes"]) == {"s2"}
        assert tiles["blocks"].tolist() == ["s2 0 0", "s2 0 0", "s2 1 0", "s2 2 0"]
        assert tiles["confusion"].dtype == np.int64
        assert tiles["confusion"].sum(0).tolist() == scores["confusion"]
        each = [(t[t != 255] == g[t != 255]).mean() for t, g in zip(truth, guess, strict=True)]
        assert tiles["accuracy"] == pytest.approx(np.array(each), abs=2e-3)
    assert scores["calibration"]["temperature"] > 0
    assert sum(row["count"] for row in scores["calibration"]["bins"]) == scores["n_pixels"]
    assert scores["boundary"]["tolerance"] == 2
    counts = sum(boundary_counts(t, g, 2, 2) for t, g in zip(truth, guess, strict=True))
    assert list(scores["boundary"]["f1"].values()) == pytest.approx(boundary_f1(counts), abs=2e-3)
    assert scores["boundary_f1"] == pytest.approx(np.mean(list(scores["boundary"]["f1"].values())))


def test_networks_of_both_sensors_are_scored_with_either_withheld(world, tmp_path):
    found = score(world, tmp_path / "both")
    assert {sensor: set(scores) for sensor, scores in found["withheld"].items()} == {
        sensor: {"oa", "kappa", "miou", "mf1"} for sensor in ("optical", "sar")
    }
    without = score(world, tmp_path / "without", withheld=False)
    assert without == {**found, "withheld": {}}


def test_networks_of_one_sensor_have_nothing_to_withhold(world, tmp_path):
    single = Run.parse("sar_only-baseline__random__R50__s1")
    copy = build_tiles(tmp_path / "world")
    write_network(copy, ClassTable.of([("left", "#0000ff"), ("right", "#00ff00")]), single)
    assert score(copy, tmp_path / "single", single)["withheld"] == {}


def test_an_absent_class_is_null_and_not_counted(world, tmp_path):
    scores = score(world, tmp_path / "two")
    classes = ClassTable.of([("left", "#0000ff"), ("right", "#00ff00"), ("nowhere", "#ff0000")])
    copy = build_tiles(tmp_path / "world")
    classes.write(copy / "tiles" / "classes.csv")
    write_network(copy, classes)
    state = Trained.read(copy / "weights.safetensors")
    state.network.decoder.output.bias.data[2] = -100.0
    state.write(copy / "weights.safetensors", {})
    three = score(copy, tmp_path / "three")
    assert three["iou"]["nowhere"] is None
    assert three["f1"]["nowhere"] is None
    assert three["miou"] == pytest.approx(two_classes(three["iou"]))
    assert three["boundary"]["f1"]["nowhere"] is None
    assert three["boundary_f1"] == pytest.approx(two_classes(three["boundary"]["f1"]))
    assert three["reference_style"]["image_iou"]["nowhere"] == 0
    assert set(three) == set(scores)


def two_classes(by_class):
    return np.mean([by_class["left"], by_class["right"]])


def test_what_does_not_fit_is_said(world, tmp_path):
    with pytest.raises(InputError, match="was fine-tuned in run late_fusion"):
        score(world, tmp_path, Run.parse("late_fusion-baseline__random__R50__s2"))
    copy = build_tiles(tmp_path / "world")
    write_network(copy, ClassTable.of([("left", "#0000ff"), ("right", "#00ff00")]))
    with (copy / "splits" / "test_RGB.txt").open("a") as file:
        file.write("s0_r0_c0\n")
    with pytest.raises(InputError, match=r"test_RGB.txt: names tiles of train: s0_r0_c0 \(1 in all\)"):
        score(copy, tmp_path)
    (copy / "splits" / "test_RGB.txt").write_text("")
    write_hashes(copy / "splits")
    with pytest.raises(InputError, match="list of tiles is empty"):
        score(copy, tmp_path)
    save_weights(tmp_path / "encoder.safetensors", {"a": torch.zeros(1)}, {"kind": "encoder"})
    with pytest.raises(InputError, match="kind `encoder`"):
        Trained.read(tmp_path / "encoder.safetensors")
