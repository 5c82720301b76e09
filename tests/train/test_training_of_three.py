"""Three modalities from pre-training to maps and ONNX, on tiles whose classes only the DEM tells."""

import json
from itertools import combinations

import numpy as np
import onnxruntime
import pytest
import torch

from tests.train.tiny import build_tiles, configs
from tmcnet.config import (
    ContextConfig,
    EvaluateConfig,
    MapsConfig,
    MethodConfig,
    PretrainConfig,
    Run,
    SensorConfig,
    SensorsConfig,
)
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError
from tmcnet.evaluate.evaluate import evaluate_run
from tmcnet.evaluate.export import export_model
from tmcnet.evaluate.maps import SceneImages, map_tiles
from tmcnet.evaluate.trained import Trained
from tmcnet.model.context import ContextFeatures
from tmcnet.model.pixelwise import PixelLogistic
from tmcnet.model.weights import read_weights
from tmcnet.raster.io.reader import read_float, read_grid, read_labels
from tmcnet.raster.io.writer import write_raster
from tmcnet.store import TileStore
from tmcnet.train.contrastive import build_method
from tmcnet.train.finetune import Finetuning, finetune
from tmcnet.train.perceptron import draw_pixels
from tmcnet.train.pretrain import Pretraining, pretrain
from tmcnet.train.samples import BatchBuilder

METHODS = {
    "tuples": MethodConfig(),
    "published": MethodConfig(variant="reference"),
    "cross_modal": MethodConfig(method="cross_modal"),
    "simclr": MethodConfig(method="simclr"),
    "alone": MethodConfig(modality="dem"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The tiny tiles with a DEM: 100 m where the label is 1, else 0 m; the two sensors see noise alone."""
    root = build_tiles(tmp_path_factory.mktemp("world"))
    random = np.random.default_rng(1)
    for path in sorted((root / "tiles" / "label").glob("*.tif")):
        label = read_labels(path)
        heights = 100.0 * (label == 1) + random.normal(0, 2, label.shape)
        write_raster(root / "tiles" / "dem" / path.name, heights[None].astype(np.float32), None, nodata=np.nan)
        for kind in ("optical", "sar"):
            noise = random.integers(60, 140, read_float(root / "tiles" / kind / path.name).shape)
            values = noise.astype(np.uint8) if kind == "optical" else (noise / 10 - 20).astype(np.float32)
            write_raster(root / "tiles" / kind / path.name, values, None)
    told = json.loads((root / "normalisation.json").read_text())
    band = {"band": "elevation", "low": -5, "high": 105, "mean": 0, "std": 1}
    (root / "normalisation.json").write_text(json.dumps({**told, "dem": [band]}))
    return root


def three(**changes):
    config, model, sensors, compute = configs(**changes)
    dem = SensorConfig(bands=["elevation"], kind="elevation")
    return config, model, SensorsConfig({**sensors, "dem": dem}), compute


def train(world, out, name, weights=None, **changes):
    config, model, sensors, compute = three(**changes)
    places = world / "tiles", world / "splits", world / "normalisation.json"
    run, state = Run.parse(name), out.with_name("state")
    finetune(Finetuning(*places, run, weights, config, model, sensors, compute, out, state))
    return json.loads((out / "summary.json").read_text())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_pre_trains_encoders_that_fusion_starts_from(world, tmp_path, name):
    _, model, sensors, compute = three()
    shared = PretrainConfig(steps=2, batch_size=3, crop_size=32, patch_size=8, patches=2, warmup_steps=1, log_every=1)
    places = world / "tiles", world / "splits", world / "normalisation.json"
    out, state = tmp_path / "pretrained", tmp_path / "state"
    pretrain(Pretraining(*places, name, METHODS[name], shared, model, sensors, compute, out, state))
    state, header = read_weights(out / "weights.safetensors")
    encoders = {n.split(".")[0] for n in state if n.startswith("backbone_")}
    inputs = {"simclr": ["stacked"], "alone": ["dem"]}.get(name, ["optical", "sar", "dem"])
    assert encoders == {f"backbone_{n}" for n in inputs}
    assert list(header["config"]["sensors"]) == ["optical", "sar", "dem"]
    figures = (out / "curves.csv").read_text().splitlines()[0]
    assert ("retrieval_dem_to_sar" in figures) == (len(inputs) == 3)
    assert ("effective_rank_dem" in figures) == ("dem" in inputs)
    network = "early_fusion" if name == "alone" else "late_fusion"
    run = f"{network}-baseline__{name}__R50__s1"
    told = train(world, tmp_path / "net", run, out / "weights.safetensors", steps=1, validate_every=1)
    started = {n.split(".")[0] for n in told["loaded_names"] if n.startswith("backbone_")}
    everything = {"backbone_optical", "backbone_sar", "backbone_dem"}
    assert started == ({"backbone_optical"} if name == "alone" else everything)


def test_cross_modal_is_the_mean_over_pairs_of_modalities():
    draw = torch.Generator().manual_seed(0)
    x, y, z = ((torch.randn(5, 4, generator=draw), torch.randn(5, 4, generator=draw)) for _ in range(3))
    method = build_method(METHODS["cross_modal"])
    views = {"optical": x, "sar": y, "dem": z}
    couples = [dict(couple) for couple in combinations(views.items(), 2)]
    values = [method.loss(couple, None, np.random.default_rng(0)) for couple in couples]
    together = method.loss(views, None, np.random.default_rng(0))
    torch.testing.assert_close(together, torch.stack(values).mean())


def test_only_the_dem_tells_the_classes_and_it_is_used(world, tmp_path):
    """From fitting to scores, a map and an exported model; without its DEM the baseline knows nothing."""
    name = "pixel_logistic-baseline__random__R50__s1"
    train(world, tmp_path / "net", name)
    weights, run = tmp_path / "net" / "weights.safetensors", Run.parse(name)
    *_, compute = three()
    evaluation = EvaluateConfig(bootstrap=100, withheld=True)
    evaluate_run(world / "tiles", world / "splits", weights, run, evaluation, compute, tmp_path / "e")
    scores = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert list(scores["withheld"]) == ["optical", "sar", "dem"]
    assert scores["oa"] > 0.85 > scores["withheld"]["dem"]["oa"] + 0.1
    draw_map(world, tmp_path, weights)
    export_model(weights, tmp_path / "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    assert {i.name: i.shape[1] for i in session.get_inputs()} == {"optical": 3, "sar": 1, "dem": 1}
    card = json.loads((tmp_path / "onnx" / "card.json").read_text())
    assert card["inputs"]["dem"]["kind"] == "elevation"


def draw_map(world, folder, weights):
    """A map of a test tile in windows, of which the DEM reaches farther than the two sensors."""
    tile = (world / "splits" / "test_RGB.txt").read_text().split()[0]
    images = {kind: read_float(world / "tiles" / kind / f"{tile}.tif") for kind in ("optical", "sar", "dem")}
    for kind, values in images.items():
        if kind != "dem":
            values[:, :, :6] = np.nan
        write_raster(folder / f"{kind}.tif", values, read_grid(world / "tiles" / kind / f"{tile}.tif"), np.nan)
    scene = SceneImages("here", {kind: folder / f"{kind}.tif" for kind in images})
    *_, compute = three()
    classes = Trained.read(weights).classes
    config = MapsConfig(window=32, overlap=16)
    map_tiles(weights, [scene], classes, config, compute, "run", folder / "maps", folder / "maps" / "run.csv")
    drawn, label = (
        read_labels(folder / "maps" / "here" / "run.tif"),
        read_labels(world / "tiles/label" / f"{tile}.tif"),
    )
    assert (drawn[:, :6] == 255).all() and (drawn[:, 6:] != 255).all()
    seen = label[:, 6:] != 255
    assert (drawn[:, 6:][seen] == label[:, 6:][seen]).mean() > 0.8


def test_a_network_without_its_modality_is_refused(world, tmp_path):
    train(world, tmp_path / "net", "dem_only-baseline__random__R50__s1", steps=1, validate_every=1)
    weights = tmp_path / "net" / "weights.safetensors"
    store = TileStore(world / "tiles")
    tile = {kind: store.path(kind, "s0_r0_c0") for kind in ("optical", "sar")}
    *_, compute = three()
    with pytest.raises(InputError, match=r"trained on 1 bands of `dem` \['elevation'\]; scene here has 0"):
        scene, classes = SceneImages("here", tile), Trained.read(weights).classes
        map_tiles(weights, [scene], classes, MapsConfig(), compute, "r", tmp_path / "m", tmp_path / "m.csv")


def dataset(world):
    names = (world / "splits" / "train_RGB.txt").read_text().split()
    scaling = Normalisation.read(world / "normalisation.json")
    return TileDataset(TileStore(world / "tiles"), names, scaling, with_labels=True, cache_gib=1)


def test_each_modality_is_dropped_alike(world):
    config, _, sensors, _ = three(modality_dropout=0.6)
    batches = [BatchBuilder(dataset(world), config, sensors, "mssnet", 1)(step) for step in range(40)]
    hidden = np.array(
        [[not image.any() for image in images] for b in batches for images in zip(*b.images.values(), strict=True)]
    )
    assert hidden.shape == (160, 3) and hidden.sum(1).max() == 1
    assert (np.abs(hidden.mean(0) - 0.2) < 0.1).all()
    single = BatchBuilder(dataset(world), config, sensors, "dem_only", 1)(0)
    assert all(image.any() for images in single.images.values() for image in images)


def test_pixels_have_the_features_of_all_modalities(world):
    config, *_ = three(modality_dropout=0.6)
    network = PixelLogistic({"optical": 3, "sar": 1, "dem": 1}, 2, ContextFeatures(ContextConfig()))
    pixels = draw_pixels(network.features, dataset(world), np.array([500, 500]), np.ones(2), config, 1)
    assert pixels.values.shape == (1000, network.inputs)
    missing = [(pixels.values[:, bands] == 0).all(axis=1).mean() for bands in ([0, 1, 2], [3], [4])]
    assert missing == pytest.approx([0.2, 0.2, 0.2], abs=0.06)
