import hashlib
import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from tests.train.tiny import build_tiles, configs
from tmcnet.classes import ClassTable
from tmcnet.config import ContextConfig, Run, SensorsConfig
from tmcnet.dataset.normalise import Band, Normalisation
from tmcnet.errors import InputError
from tmcnet.evaluate import export
from tmcnet.evaluate.export import SIZES, TOLERANCE, RawNetwork, export_model, largest_difference
from tmcnet.evaluate.trained import Trained
from tmcnet.model import backbone
from tmcnet.model.networks import build_network
from tmcnet.raster.io.reader import read_float

CLASSES = ClassTable.of([("open water", "#0000ff"), ("land", "#00ff00"), ("forest", "#004400")])
QUICK = "pixel_logistic"
NETWORKS = [
    ("mssnet", "corrected"),
    ("mssnet", "reference"),
    ("early_fusion", "baseline"),
    ("late_fusion", "baseline"),
    ("optical_only", "baseline"),
    ("sar_only", "baseline"),
    ("pixel_boosting", "baseline"),
    ("pixel_mlp", "baseline"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"), tiles=4)


def write_weights(path, world, network=QUICK, variant="baseline", context=None):
    """A network with random weights everywhere: some parts start at zero, and would not be seen otherwise."""
    _, model, sensors, _ = configs()
    model = model.model_copy(update={"context": context or model.context})
    torch.manual_seed(1)
    built = build_network(network, variant, {"optical": 3, "sar": 1}, 3, model)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3)
    run, scaling = (
        Run.parse(f"{network}-{variant}__random__R50__s1"),
        Normalisation.read(world / "normalisation.json"),
    )
    Trained(built, run, model, sensors, CLASSES, scaling, {"miou": 0.5, "oa": float("nan")}).write(path, {})
    return path


def test_large_windows_are_exported(tmp_path, world):
    weights = write_weights(tmp_path / "weights.safetensors", world, context=ContextConfig())
    export_model(weights, tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["checked"]["largest_difference"] < TOLERANCE


def test_raw_values_in_probabilities_out(tmp_path, world, capfd):
    """The exported model on a tile as it lies on disk gives what the network gives of the normalised tile."""
    weights = write_weights(tmp_path / "weights.safetensors", world)
    export_model(weights, tmp_path / "out")
    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["card.json", "model.onnx"]
    onnx.checker.check_model(tmp_path / "out" / "model.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert {i.name: i.shape for i in session.get_inputs()} == {
        "optical": ["N", 3, "H", "W"],
        "sar": ["N", 1, "H", "W"],
    }
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("probabilities", ["N", 3, "H", "W"])]
    tile = "s0_r0_c0.tif"
    optical, sar = (read_float(world / "tiles" / kind / tile) for kind in ("optical", "sar"))
    assert np.isnan(sar).any()
    (found,) = session.run(None, {"optical": optical[None], "sar": sar[None]})
    trained = Trained.read(weights)
    images = {
        k: torch.from_numpy(trained.normalisation.apply(x, k))[None] for x, k in ((optical, "optical"), (sar, "sar"))
    }
    with torch.no_grad():
        expected = trained.network(images).softmax(1).numpy()
    assert np.abs(found - expected).max() < 1e-5
    assert expected.std() > 0.05
    assert np.isfinite(found).all()


@pytest.fixture
def stand_in(monkeypatch):
    """An exporter that takes no time, and the difference of its model."""

    def set_difference(value):
        monkeypatch.setattr(export, "_write_onnx", lambda _trained, file, *_: file.write_bytes(b"model"))
        monkeypatch.setattr(export, "largest_difference", lambda _trained, _file, _raw: value)
        monkeypatch.setattr(export, "_write_metadata", lambda _file, _card: None)

    return set_difference


def test_the_card_says_what_a_user_must_know(tmp_path, world, stand_in):
    stand_in(2e-6)
    weights = write_weights(tmp_path / "weights.safetensors", world)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "metrics.json").write_text(
        json.dumps({"oa": 0.8, "miou": 0.6, "iou": {"land": 0.6}, "confusion": []})
    )
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "index.csv").write_text("tile,scene,pixel_metres\na,a,20.000000\n")
    export_model(
        weights, tmp_path, tmp_path / "tiles", manifest=tmp_path / "manifest.json", metrics=tmp_path / "metrics.json"
    )
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["name"] == f"{QUICK}-baseline__random__R50__s1"
    assert card["run"]["fraction"] == 50
    assert [band["name"] for band in card["inputs"]["optical"]["bands"]] == ["b0", "b1", "b2"]
    assert (card["inputs"]["optical"]["unit"], card["inputs"]["sar"]["unit"]) == ("as delivered", "dB")
    assert card["classes"][1] == {"id": 1, "name": "land", "color": "#00ff00"}
    assert card["ground_sampling_distance_m"] == 20
    assert card["metrics"] == {
        "validation": {"miou": 0.5, "oa": None},
        "test": {"oa": 0.8, "miou": 0.6, "iou": {"land": 0.6}},
    }
    assert card["data_sha256"] == hashlib.sha256(b"{}").hexdigest()
    assert card["normalisation"]["optical"][0]["low"] == 50
    assert card["checked"]["n_h_w"] == [list(size) for size in SIZES]
    assert card["checked"]["largest_difference"] == 2e-6


@pytest.mark.slow
@pytest.mark.parametrize(("network", "variant"), NETWORKS)
def test_every_network_can_be_exported(tmp_path, world, monkeypatch, network, variant):
    """At one block a stage, which has every kind of layer: the exporter takes half a minute for all of them."""
    monkeypatch.setitem(backbone.LAYERS, "resnet18", ((1, 1, 1, 1), False))
    weights = write_weights(tmp_path / "weights.safetensors", world, network, variant)
    export_model(weights, tmp_path)
    assert largest_difference(Trained.read(weights), tmp_path / "model.onnx") <= TOLERANCE


@pytest.mark.parametrize("difference", [1.1 * TOLERANCE, float("nan"), float("inf")])
def test_a_model_that_differs_is_not_kept(tmp_path, world, stand_in, difference):
    stand_in(difference)
    with pytest.raises(InputError, match=r"weights\.safetensors: the exported model differs by up to"):
        export_model(write_weights(tmp_path / "weights.safetensors", world), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("change", [{"clip": 1.4}, {"sar": -4.0}])
def test_another_scaling_is_noticed(tmp_path, world, change):
    """Compared with a network whose normalisation differs a little, the same model is not taken for the same."""
    trained = Trained.read(write_weights(tmp_path / "weights.safetensors", world))
    scaling = trained.normalisation
    if "sar" in change:
        change = {"bands": {**scaling, "sar": (Band("b0", -17.0, change["sar"], 0, 1),)}}
    other = replace(trained, normalisation=replace(scaling, **change))

    class Session:
        def __init__(self, *_arguments, **_options):
            self.network = RawNetwork(trained.network, trained.normalisation)

        def run(self, _names, images):
            with torch.no_grad():
                return [self.network(*map(torch.from_numpy, images.values())).numpy()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", Session)
        assert largest_difference(trained, tmp_path) <= 1e-6
        assert largest_difference(other, tmp_path) > TOLERANCE


def test_a_network_that_onnx_cannot_hold_is_named(tmp_path, world, monkeypatch):
    class Odd(nn.Module):
        def forward(self, image, _no_data):
            return image if image.sum() > 0 else -image

    monkeypatch.setattr(export, "_Scaling", lambda bands, clip: Odd())
    with pytest.raises(InputError, match=r"weights\.safetensors: pixel_logistic cannot be written as ONNX"):
        export_model(write_weights(tmp_path / "weights.safetensors", world), tmp_path / "out")


def change_sar(path, world, **changes):
    """Weights of the small network with another description of its SAR input."""
    trained = Trained.read(write_weights(path, world))
    described = trained.sensors.model_dump()
    described["sar"] |= changes
    replace(trained, sensors=SensorsConfig.model_validate(described)).write(path, {})
    return path


@pytest.mark.parametrize(("scale", "power"), [("linear", 10), ("amplitude", 20)])
def test_raw_backscatter_is_converted_in_the_model(tmp_path, world, scale, power):
    """Numbers of files, with factor and offset, give the probabilities that the network gives of clipped decibels."""
    weights = change_sar(
        tmp_path / "weights.safetensors",
        world,
        scale=scale,
        scale_factor=0.5,
        add_offset=0.001,
        clip_db=(-16.0, -6.0),
    )
    export_model(weights, tmp_path / "out", raw=True)
    decibels = np.random.default_rng(1).uniform(-20, -2, (1, 1, 40, 50)).astype("f4")
    numbers = ((10 ** (decibels / power) - 0.001) / 0.5).astype("f4")
    numbers[..., :5, :5], numbers[..., -1, -1] = np.nan, -0.002  # no data, and no return at all
    decibels[..., :5, :5], decibels[..., -1, -1] = np.nan, -16
    optical = np.random.default_rng(2).uniform(0, 300, (1, 3, 40, 50)).astype("f4")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    (found,) = session.run(None, {"optical": optical, "sar": numbers})
    trained = Trained.read(weights)
    clipped = {"optical": optical, "sar": np.clip(decibels, -16, -6)}
    scaled = {k: torch.from_numpy(trained.normalisation.apply(v[0], k))[None] for k, v in clipped.items()}
    with torch.no_grad():
        expected = trained.network(scaled).softmax(1).numpy()
    assert np.abs(found - expected).max() < TOLERANCE and expected.std() > 0.01
    card = json.loads((tmp_path / "out" / "card.json").read_text())["inputs"]["sar"]
    assert card["unit"] == {"linear": "linear power", "amplitude": "amplitude"}[scale]
    steps = ["value = number * 0.5 + 0.001", f"dB = {power} log10(value)", "clipped to -16..-6 dB"]
    assert card["conversion"] == {"steps": steps, "inside_model": True}


def test_the_file_itself_holds_the_card(tmp_path, world):
    weights = change_sar(tmp_path / "weights.safetensors", world, scale="linear")
    export_model(weights, tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    properties = {p.key: p.value for p in onnx.load(tmp_path / "out" / "model.onnx").metadata_props}
    assert properties.pop("name") == card.pop("name")
    assert {key: json.loads(value) for key, value in properties.items()} == card
    assert {"inputs", "classes", "normalisation", "ground_sampling_distance_m", "metrics", "provenance"} <= set(card)
    sar = card["inputs"]["sar"]
    assert (sar["unit"], sar["conversion"]["inside_model"]) == ("dB", False)
    assert sar["conversion"]["steps"][0] == "dB = 10 log10(value)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "auto"}, "the scale of `sar` was detected from each file"),
        ({"scale": "linear", "speckle": "lee"}, "after the speckle filter `lee`"),
    ],
)
def test_what_the_model_cannot_convert_is_named(tmp_path, world, changes, message):
    with pytest.raises(InputError, match=message):
        export_model(change_sar(tmp_path / "weights.safetensors", world, **changes), tmp_path / "out", raw=True)
