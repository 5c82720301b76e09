"""`tmcnet predict` maps files that fit the network, and says what does not fit."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from affine import Affine
from rasterio.enums import ColorInterp

from tmcnet.classes import ClassTable
from tmcnet.cli import main
from tmcnet.config import AlignConfig, ContextConfig, ModelConfig, Run, SensorConfig, SensorsConfig
from tmcnet.dataset.normalise import Band, Normalisation
from tmcnet.evaluate.trained import Trained
from tmcnet.model.model_file import write_model as write_model_file
from tmcnet.model.networks import build_network
from tmcnet.raster.io import blocks as raster_blocks
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import read_float, read_grid, read_labels
from tmcnet.raster.io.writer import write_raster

SIDE = 64
BANDS = {"optical": ["red", "nir"], "sar": ["vv", "vh"]}
FINETUNED = {"finetune": {"modality_dropout": 0.0}}


def write_model(
    path: Path,
    gsd: float | None = 10,
    finetuned: dict = FINETUNED,
    broken: bool = False,
    blocks: np.ndarray | None = None,
    kind: str = "mssnet-corrected",
    **model_keys: object,
) -> Path:
    model = ModelConfig(backbone="resnet18", width=8, aspp_channels=16, decoder_channels=16, **model_keys)
    sensors = SensorsConfig(
        optical=SensorConfig(bands=BANDS["optical"], kind="reflectance"),
        sar=SensorConfig(bands=BANDS["sar"], kind="backscatter", scale="db"),
    )
    ranges = {"optical": (0, 4000), "sar": (-25, 0)}
    scaling = {n: tuple(Band(b, *map(float, ranges[n]), 0.0, 1.0) for b in bands) for n, bands in BANDS.items()}
    torch.manual_seed(0)
    network = build_network(*kind.split("-"), sensors.band_counts, 3, model).eval()
    if broken:
        with torch.no_grad():
            next(network.parameters())[0] = torch.nan
    classes = ClassTable.of([("water", "#0000ff"), ("land", "#00ff00"), ("ice", "#ffffff")])
    known = (Run.parse(f"{kind}__random__R5__s1"), model, sensors, classes, Normalisation(scaling, 1.5, 1))
    Trained(network, *known, {"miou": 0.5}, AlignConfig(enabled=False), gsd).write(path, finetuned)
    if blocks is not None:
        np.savez(path.with_suffix(".npz"), confusion=blocks, blocks=[f"s 0 {i}" for i in range(len(blocks))])
        write_model_file(path, path.with_suffix(".npz"), path)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A network, and a scene with named bands in the order of the network."""
    write_model(tmp_path / "weights.safetensors")
    write_scene(tmp_path)
    return tmp_path


def write_scene(folder: Path, side: int = SIDE, metres: float = 10, **names: list[str]) -> None:
    random = np.random.default_rng(3)
    grid = Grid("EPSG:32633", Affine(metres, 0, 500_000, 0, -metres, 5_400_000), side, side)
    optical = random.integers(1, 4000, (2, side, side)).astype("u2")
    sar = random.normal(-12, 4, (2, side, side)).astype("f4")
    write_raster(folder / "optical.tif", optical, grid, 0, names.get("optical", BANDS["optical"]))
    write_raster(folder / "sar.tif", sar, grid, None, names.get("sar", BANDS["sar"]))


def write_area(path: Path, left: int, top: int, right: int, bottom: int) -> None:
    """A rectangle in pixels of the scene, as GeoJSON."""
    corners = [[500_000 + 10 * x, 5_400_000 - 10 * y] for x, y in ((left, top), (right, top), (right, bottom))]
    polygon = {"type": "Polygon", "coordinates": [[*corners, [corners[0][0], corners[2][1]], corners[0]]]}
    content = {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": polygon}]}
    content["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path.write_text(json.dumps(content))


def predict(place: Path, *more: str, out: str = "map.tif", images: tuple[str, ...] = ("optical", "sar")) -> int:
    files = [part for name in images for part in (f"--{name}", str(place / f"{name}.tif"))]
    return main(["predict", str(place / "weights.safetensors"), *files, "--out", str(place / out), *more])


def test_a_map_has_grid_classes_and_confidence(place: Path) -> None:
    assert predict(place, "--confidence", "--polygons", str(place / "vector" / "map.gpkg")) == 0
    assert read_grid(place / "map.tif") == read_grid(place / "optical.tif")
    assert set(np.unique(read_labels(place / "map.tif"))) <= {0, 1, 2}
    assert (place / "map_confidence.tif").exists() and (place / "vector" / "map.gpkg").exists()
    assert "<Category>ice</Category>" in (place / "map.tif.aux.xml").read_text()
    assert not list(place.glob(".tmcnet_*")), "nothing else is left"


def test_other_bands_are_refused_unless_they_are_mapped(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(place, out="as_trained.tif") == 0
    write_scene(place, sar=["hh", "hv"])
    assert predict(place) == 1
    message = capsys.readouterr().err
    assert "sar.tif: has the bands ['hh', 'hv']; the network was trained on ['vv', 'vh']" in message
    assert "`--band hh=vv --band hv=vh`" in message
    assert not (place / "map.tif").exists()
    assert predict(place, "--band", "HH=vv", "--band", "hv=vh") == 0
    assert (place / "map.tif").read_bytes() == (place / "as_trained.tif").read_bytes()


def test_names_that_the_network_does_not_have_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scene(place, sar=["vv", "vv2"])
    assert predict(place, "--band", "vv2=hv", "--image", f"dem={place / 'sar.tif'}") == 1
    message = capsys.readouterr().err
    assert "--band: the network has no band hv. Write" in message
    assert "the network has no modality dem; it has optical, sar. Leave out its file" in message


def test_bands_are_found_by_name(place: Path) -> None:
    assert predict(place, out="as_trained.tif") == 0
    order = ["-b", "2", "-b", "1", "-b", "1"]
    turned = ["gdal_translate", "-q", *order, str(place / "optical.tif"), str(place / "turned.tif")]
    subprocess.run(turned, check=True)
    (place / "turned.tif").replace(place / "optical.tif")
    assert predict(place) == 0
    assert (place / "map.tif").read_bytes() == (place / "as_trained.tif").read_bytes()


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize("mark", [ColorInterp.alpha, ColorInterp.undefined])
def test_a_mask_beside_named_bands_is_none_of_them(
    place: Path, order: list[int], mark: ColorInterp, capsys: pytest.CaptureFixture[str]
) -> None:
    path, grid = place / "optical.tif", read_grid(place / "optical.tif")
    alpha = np.where(np.arange(SIDE) < 20, 0, 65535) * np.ones((1, SIDE, 1))
    values = read_float(path)[order] * (alpha > 0)
    names = [*(BANDS["optical"][band] for band in order), ""]
    write_raster(path, np.concatenate([values, alpha]).astype("u2"), grid, None, names)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.undefined, mark]
    assert predict(place) == 0
    assert "optical pixels are 0 in all bands" not in capsys.readouterr().err


def test_other_pixel_sizes_are_resampled_and_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scene(place, side=128, metres=5)
    assert predict(place) == 0
    assert "pixels of 5 m are resampled to 10 m, as in training" in capsys.readouterr().err
    assert abs(read_grid(place / "map.tif").pixel_size - 10) < 0.05
    write_scene(place, metres=10.5)
    assert predict(place) == 0
    assert "resampled" not in capsys.readouterr().err
    assert read_grid(place / "map.tif").pixel_size == 10.5


def test_a_missing_modality_needs_a_network_that_was_trained_for_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(place, images=("sar",)) == 1
    assert "needs `optical`, which scene scene lacks: it was not trained for that" in capsys.readouterr().err
    write_model(place / "weights.safetensors", finetuned={"finetune": {"modality_dropout": 0.3}})
    assert predict(place, images=("sar",)) == 0


def test_oddities_of_the_images_are_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000), SIDE, SIDE)
    write_raster(place / "sar.tif", np.full((2, SIDE, SIDE), -12, "f4"), grid, None, BANDS["sar"])
    assert predict(place) == 0
    assert "sar.tif: band 1 has the same value everywhere" in capsys.readouterr().err


@pytest.mark.parametrize("factor", [1e-4, 1 / 16])
def test_values_in_another_unit_than_in_training_are_noted(
    place: Path, capsys: pytest.CaptureFixture[str], factor: float
) -> None:
    assert predict(place) == 0
    assert "in training from" not in capsys.readouterr().err
    grid = read_grid(place / "optical.tif")
    write_raster(place / "optical.tif", read_float(place / "optical.tif") * factor, grid, None, BANDS["optical"])
    assert predict(place) == 0
    assert re.search(
        r"scene: optical band red is mostly from .*, in training from 0 to 4000: check", capsys.readouterr().err
    )


def test_only_the_area_of_interest_is_mapped(place: Path) -> None:
    assert predict(place, out="whole.tif") == 0
    write_area(place / "area.geojson", 0, 0, 32, 32)
    assert predict(place, "--aoi", str(place / "area.geojson")) == 0
    whole, inside = read_labels(place / "whole.tif"), read_labels(place / "map.tif")
    assert (inside[:31, :31] == whole[:31, :31]).all()
    assert (inside[34:] == 255).all() and (inside[:, 34:] == 255).all()


def test_only_the_area_and_a_margin_are_aligned(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(place / "weights.safetensors", context=ContextConfig(windows=[3, 7], relative_window=None))
    write_scene(place, side=256)
    write_area(place / "area.geojson", 216, 96, 256, 128)
    small = ["--window", "64", "--overlap", "32"]
    assert predict(place, *small, out="whole.tif") == 0
    assert predict(place, *small, "--aoi", str(place / "area.geojson")) == 0
    margin = 32 + AlignConfig().max_shift
    left, top = (216 - margin) // 16 * 16, (96 - margin) // 16 * 16
    grid, inside, whole = (
        read_grid(place / "map.tif"),
        read_labels(place / "map.tif"),
        read_labels(place / "whole.tif"),
    )
    assert (grid.width, grid.height) == (256 - left, 128 + margin - top)
    assert (grid.transform.c, grid.transform.f) == (500_000 + 10 * left, 5_400_000 - 10 * top)
    mapped = np.zeros(inside.shape, bool)
    mapped[96 - top : 128 - top, 216 - left :] = True
    assert (inside[mapped] == whole[96:128, 216:].ravel()).mean() > 0.99
    assert 0 <= ((inside != 255) & ~mapped).sum() <= 2 * 34, "the pixels that the edge touches"
    write_area(place / "area.geojson", 5000, 0, 5032, 32)
    assert predict(place, "--aoi", str(place / "area.geojson")) == 1
    assert "area.geojson: is not near the `optical` image of scene scene" in capsys.readouterr().err


def test_a_sheet_maps_every_scene(place: Path) -> None:
    assert predict(place, out="single.tif") == 0
    (place / "scenes.csv").write_text("scene,optical,sar\na,optical.tif,sar.tif\nb,optical.tif,sar.tif\n")
    sheet = ["--sheet", str(place / "scenes.csv"), "--data-root", str(place), "--out", str(place / "maps")]
    assert main(["predict", str(place / "weights.safetensors"), *sheet]) == 0
    assert [row["scene"] for row in read_areas(place / "maps" / "areas.csv")[::3]] == ["a", "b", "all scenes"]
    maps = {path.name: path.read_bytes() for path in (place / "maps").glob("*.tif")}
    assert maps == dict.fromkeys(("a.tif", "b.tif"), (place / "single.tif").read_bytes())


BLOCKS = np.stack([[[80, 10, 0], [20, 90, 0], [0, 0, 100]], [[90, 5, 0], [10, 95, 0], [0, 0, 50]]] * 3)


def test_areas_are_corrected_where_the_file_of_the_network_has_test_scores(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(place) == 0
    assert "Class areas: as mapped; for corrected areas use a network with test scores" in capsys.readouterr().err
    plain = read_areas(place / "map_areas.csv")
    assert sum(float(row["mapped_ha"]) for row in plain) == pytest.approx(SIDE**2 / 100)
    assert {(row["scene"], row["ha"]) for row in plain} == {("map", "")}
    same = (place / "map.tif").read_bytes()

    write_model(place / "weights.safetensors", blocks=BLOCKS)
    assert predict(place) == 0
    assert "they assume that test blocks represent the mapped ground" in capsys.readouterr().err
    assert (place / "map.tif").read_bytes() == same
    rows = read_areas(place / "map_areas.csv")
    assert [row["mapped_ha"] for row in rows] == [row["mapped_ha"] for row in plain]
    assert sum(float(row["ha"]) for row in rows) == pytest.approx(SIDE**2 / 100)
    assert {row["test_blocks"] for row in rows} == {"6"}
    assert (place / "map.png").is_file() and (place / "map.qml").is_file()
    assert main(["info", str(place / "weights.safetensors")]) == 0
    said = yaml.safe_load(capsys.readouterr().out)["test"]
    assert said["blocks"] == 6 and said["confusion"] == BLOCKS.sum(axis=0).tolist()
    assert said["oa"] == pytest.approx(505 / 550, abs=1e-3)


def read_areas(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_ensemble_is_one_file_for_info_and_predict(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = "optical_only_and_mssnet-corrected"
    weights = write_model(place / "weights.safetensors", kind=kind)
    trained = Trained.read(weights)
    trained.network.temperature.copy_(torch.tensor([0.5, 2.0]))
    trained.write(weights, FINETUNED)
    assert main(["info", str(weights)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["members"] == {"optical_only": 0.5, "mssnet": 2.0}
    assert predict(place) == 0
    images = {name: read_float(place / f"{name}.tif")[None] for name in BANDS}
    scaled = {n: torch.from_numpy(trained.normalisation.apply(x[0], n))[None] for n, x in images.items()}
    with torch.no_grad():
        shares = [(m(scaled) / t).softmax(1) for m, t in zip(trained.network.members, (0.5, 2.0), strict=True)]
    expected = (shares[0] + shares[1])[0].argmax(0).numpy()
    assert (read_labels(place / "map.tif") == expected).mean() > 0.999


def test_progress_states_the_time_left(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(raster_blocks, "LOG_INTERVAL_S", 0.0)
    assert predict(place, "--window", "32", "--overlap", "0") == 0
    assert re.search(r"^map of scene: 100%, 0 s left$", capsys.readouterr().err, re.MULTILINE)


def test_weights_that_are_not_finite_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(place / "weights.safetensors", broken=True)
    assert predict(place) == 1
    assert "weights.safetensors: holds weights that are not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--overlap", "700"], "--overlap: is 700, more than half of the window of 1024"),
        (["--band", "hh"], "--band: cannot read hh. Write `--band name=value`."),
        (["--sheet", "scenes.csv"], "--sheet: is given together with files of one scene"),
    ],
)
def test_wrong_options_are_named(
    place: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert predict(place, *more) == 1
    assert message in capsys.readouterr().err


def test_usage_errors_end_with_2_and_help_with_0() -> None:
    for arguments, code in ((["predict"], 2), (["no-such-command"], 2), (["predict", "--help"], 0), (["--help"], 0)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == code


def test_info_prints_what_the_file_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(place / "weights.safetensors")]) == 0
    said = yaml.safe_load(capsys.readouterr().out)
    assert said["ground_sampling_distance_m"] == 10
    assert said["registration"]["enabled"] is False
    assert list(said["inputs"]["sar"]["bands"]) == ["vv", "vh"] and said["inputs"]["sar"]["scale"] == "db"
    assert said["classes"][2] == "ice #ffffff"
    assert said["validation"] == {"miou": 0.5}
    assert main(["info", str(place / "optical.tif")]) == 1


def test_no_image_is_overwritten_and_messages_name_what_was_given(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = (place / "optical.tif").read_bytes()
    images = ["--optical", "optical.tif", "--sar", "sar.tif"]
    (place / "scenes.csv").write_text("scene,optical,sar\na,gone.tif,sar.tif\n")
    (place / "file").touch()
    (place / "map_areas.csv").touch()
    (place / "link.tif").hardlink_to(place / "sar.tif")
    for name, scene in {"own.csv": "optical", "areas.csv": "other"}.items():
        (place / name).write_text(f"scene,optical,sar\n{scene},optical.tif,sar.tif\n")
    (place / "twins.csv").write_text("scene,optical,sar\na,optical.tif,sar.tif\na_areas,optical.tif,sar.tif\n")
    cases = {
        ("a;b.tif", *images): "a;b.tif: has `;` in its path, which separates files in sample sheets. Rename",
        ("maps", "--sheet", "twins.csv"): "has scenes whose maps would be named like another file of a map: a_areas",
        ("optical.tif", *images): "optical.tif: is one of the inputs, which would be lost. Choose another name",
        ("weights.safetensors", *images): "weights.safetensors: is one of the inputs, which would be lost",
        ("link.tif", *images): "link.tif: is one of the inputs, which would be lost",
        ("map.tif", *images, "--polygons", "sar.tif"): "sar.tif: is one of the inputs, which would be lost",
        ("map.tif", *images, "--aoi", "map_areas.csv"): "map_areas.csv: is one of the inputs, which would be lost",
        (".", "--sheet", "own.csv"): "optical.tif: is one of the inputs, which would be lost",
        (".", "--sheet", "areas.csv"): "areas.csv: is one of the inputs, which would be lost",
        (".", *images): ".: is a folder. Choose another name for the map (`--out`).",
        ("map.png", *images): "map.png: ends in `.png`, but the map is a GeoTIFF. Choose a name that ends in `.tif`",
        ("map.tif", *images, "--polygons", "map.tif"): "map.tif: is a file of the map as well, which would be lost",
        ("file/map.tif", *images): "file: File exists. Check the path, its permissions",
        ("maps", "--sheet", "scenes.csv"): "sample sheet scenes.csv, line 2 (a): the file gone.tif does not exist",
    }
    for (out, *others), words in cases.items():
        assert main(["predict", "weights.safetensors", *others, "--out", out]) == 1
        assert words in capsys.readouterr().err
    assert (place / "optical.tif").read_bytes() == before
