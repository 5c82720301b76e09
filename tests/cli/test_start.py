"""`tmcnet init` writes a config that `tmcnet check` accepts; presets are below the config of the user."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from affine import Affine

from tests.cli.test_predict import write_model
from tmcnet.cli import main
from tmcnet.config import load_overlays
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.writer import write_raster
from tmcnet.report.charts import look_alike


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    grid = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000), 32, 32)
    for scene in ("north", "south"):
        for kind in ("s2", "s1"):
            (tmp_path / kind).mkdir(exist_ok=True)
        write_raster(tmp_path / "s2" / f"{scene}.tif", np.ones((3, 32, 32), "u2"), grid, None, ["b", "g", "r"])
        write_raster(tmp_path / "s1" / f"{scene}.tif", np.ones((1, 32, 32), "f4"), grid)
    (tmp_path / "labels").mkdir()
    write_raster(tmp_path / "labels" / "north.tif", np.arange(1024).reshape(1, 32, 32).astype("u1") % 3, grid)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_of_rasters_becomes_a_config(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(folder)]) == 0
    assert (folder / "scenes.csv").read_text().splitlines() == [
        "scene,optical,sar,label,role",
        "north,s2/north.tif,s1/north.tif,labels/north.tif,train",
        "south,s2/south.tif,s1/south.tif,,predict",
    ]
    written = yaml.safe_load((folder / "mine.yaml").read_text())
    assert written["sensors"]["optical"]["bands"] == ["b", "g", "r"]
    assert written["labels"]["void"] == [0]
    assert [c["codes"] for c in written["labels"]["classes"]] == [[1], [2]]
    assert main(["check", str(folder / "mine.yaml")]) == 0
    assert "Number of scenes: 2 (1 to learn from, 1 to map)" in capsys.readouterr().out
    assert main(["init", str(folder)]) == 1
    assert "scenes.csv: exists. Move it away" in capsys.readouterr().err
    assert main(["init", str(folder / "gone")]) == 1
    assert "gone: is no folder" in capsys.readouterr().err


def test_any_names_and_codes_become_a_config(folder: Path) -> None:
    """Bands whose names YAML takes for other values, names in other scripts, and labels with NaN."""
    grid = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000), 32, 32)
    for path in folder.glob("*/*.tif"):
        path.unlink()
    for scene in ("北京", "上海"):
        write_raster(folder / "s2" / f"{scene}.tif", np.ones((3, 32, 32), "u2"), grid, None, ["1", "no", "2e3"])
        write_raster(folder / "s1" / f"{scene}.tif", np.ones((1, 32, 32), "f4"), grid)
        codes = np.where(np.eye(32, dtype=bool), np.nan, np.arange(32) % 2 + 1).astype("f4")
        write_raster(folder / "labels" / f"{scene}.tif", codes[None], grid)
    assert main(["init", str(folder)]) == 0
    assert main(["check", str(folder / "mine.yaml")]) == 0
    config = load_overlays([folder / "mine.yaml"])
    assert config.sensors["optical"].bands == ["1", "no", "2e3"]
    assert (folder / "scenes.csv").read_text().count("train") == 2


@pytest.mark.parametrize(
    ("values", "classes"),
    [((3, 7), {"class_1": [1], "class_2": [2], "class_3": [3], "class_7": [7]}), (("wood", "sea"), None)],
)
def test_vector_labels_are_found_with_their_attribute(
    folder: Path, capsys: pytest.CaptureFixture[str], values: tuple[object, ...], classes: dict[str, list[int]] | None
) -> None:
    square = [[[500_000 + x, 5_400_000 + y] for x, y in ((0, 0), (90, 0), (90, -90), (0, -90), (0, 0))]]
    features = [
        {
            "type": "Feature",
            "properties": {"area": 0.1 * n, "land_class": value, "note": None},
            "geometry": {"type": "Polygon", "coordinates": square},
        }
        for n, value in enumerate(values)
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    (folder / "labels" / "south.geojson").write_text(text)
    (folder / "fields.geojson").write_text(text)
    if classes is None:
        (folder / "labels" / "north.tif").unlink()
    assert main(["init", str(folder)]) == 0
    assert "Left out: fields.geojson" in capsys.readouterr().out
    assert "south,s2/south.tif,s1/south.tif,labels/south.geojson,train" in (folder / "scenes.csv").read_text()
    labels = yaml.safe_load((folder / "mine.yaml").read_text())["labels"]
    assert labels["attribute"] == "land_class"
    assert {c["name"]: c["codes"] for c in labels["classes"]} == (classes or {"sea": [1], "wood": [2]})
    assert main(["check", str(folder / "mine.yaml")]) == 0

    capsys.readouterr()
    wrong = {
        text.replace('"land_class"', '"kind"'): "south.geojson: has no attribute `land_class`; its attributes are",
        text.replace(f": {json.dumps(values[0])},", ": 99,"): "has 1 values that no class has: `99` (1 features)",
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": []}): "south.geojson: has no feature on",
    }
    for content, message in wrong.items():
        (folder / "labels" / "south.geojson").write_text(content)
        assert main(["check", str(folder / "mine.yaml")]) == 1
        assert message in capsys.readouterr().err


def test_bands_of_a_product_are_stacked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000), 32, 32)
    product = "S2B_MSIL2A_20200101.SAFE/GRANULE/L2A_T33UUP/IMG_DATA"
    for name in ("R10m/T33UUP_B04_10m", "R10m/T33UUP_B02_10m", "R20m/T33UUP_B02_20m", "R20m/T33UUP_SCL_20m"):
        (folder / product / name).parent.mkdir(parents=True, exist_ok=True)
        write_raster(folder / product / f"{name}.tif", np.ones((1, 32, 32), "u2"), grid)
    assert main(["init", str(folder)]) == 0
    stacked = ";".join(f"{product}/R10m/T33UUP_{band}_10m.tif" for band in ("B02", "B04"))
    assert f"t33uup,{stacked},,,predict\n" in (folder / "scenes.csv").read_text()
    assert "With one sensor only: t33uup; join rows" in capsys.readouterr().out


def test_readers_can_distinguish_the_colours_of_twelve_classes(folder: Path) -> None:
    grid = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000), 32, 32)
    codes = np.arange(1024).reshape(1, 32, 32) % 13
    write_raster(folder / "labels" / "north.tif", codes.astype("u1"), grid)
    assert main(["init", str(folder)]) == 0
    classes = yaml.safe_load((folder / "mine.yaml").read_text())["labels"]["classes"]
    assert len(classes) == 12 and look_alike({c["name"]: c["color"] for c in classes}) == []


def test_void_codes_and_true_colours_are_guessed(folder: Path) -> None:
    """A negative code is no data, and then 0 is a class."""
    grid = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000), 32, 32)
    write_raster(folder / "labels" / "north.tif", np.arange(1024).reshape(1, 32, 32).astype("i2") % 3 - 1, grid)
    names = ["B2", "B3", "B4", "B8"]
    for scene in ("north", "south"):
        write_raster(folder / "s2" / f"{scene}.tif", np.ones((4, 32, 32), "u2"), grid, None, names)
    assert main(["init", str(folder)]) == 0
    written = yaml.safe_load((folder / "mine.yaml").read_text())
    assert written["sensors"]["optical"]["display"] == ["B4", "B3", "B2"]
    assert written["labels"]["void"] == [-1]
    assert [c["codes"] for c in written["labels"]["classes"]] == [[0], [1]]


def test_heights_are_the_second_modality_where_there_is_no_sar(folder: Path) -> None:
    (folder / "s1").rename(folder / "dem")
    assert main(["init", str(folder)]) == 0
    assert "\nnorth,s2/north.tif,dem/north.tif,labels/north.tif,train" in (folder / "scenes.csv").read_text()
    written = yaml.safe_load((folder / "mine.yaml").read_text())
    assert written["sensors"]["sar"]["kind"] == "elevation" and written["align"] == {"enabled": False}
    assert main(["check", str(folder / "mine.yaml")]) == 0


def test_without_labels_networks_from_files_are_named_and_checked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "labels" / "north.tif").unlink()
    assert main(["init", str(folder)]) == 0
    config = folder / "mine.yaml"
    assert main(["check", str(config)]) == 1
    assert "`maps.models.mine`: there is no file /path/to/model.safetensors." in capsys.readouterr().err
    write_model(folder / "weights.safetensors")
    given = config.read_text().replace("/path/to/model", "weights")
    config.write_text(given)
    assert main(["check", str(config)]) == 1
    assert "was trained on the bands ['red', 'nir'] of `optical`; `sensors.optical` has" in capsys.readouterr().err
    sensors = yaml.safe_load(given)["sensors"]
    sensors["optical"]["bands"], sensors["sar"]["bands"] = ["red", "nir"], ["vv", "vh"]
    sensors["optical"]["display"], sensors["sar"]["display"] = ["red"], ["vv"]
    config.write_text(yaml.safe_dump(yaml.safe_load(given) | {"sensors": sensors}))
    assert main(["check", str(config)]) == 0
    assert "Number of runs: 0 (preset `standard`), networks from files: mine" in capsys.readouterr().out
    classes = [{"name": name, "codes": [i], "color": "#00000" + str(i)} for i, name in enumerate("ab")]
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"labels": {"classes": classes}}))
    assert main(["check", str(config)]) == 1
    assert "was trained on the classes" in capsys.readouterr().err


def test_check_names_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(folder)]) == 0
    (folder / "s1" / "south.tif").unlink()
    assert main(["check", str(folder / "mine.yaml")]) == 1
    assert "line 3 (south): the file s1/south.tif does not exist" in capsys.readouterr().err
    (folder / "mine.yaml").write_text("preset: huge\n")
    assert main(["check", str(folder / "mine.yaml")]) == 1
    assert "config key `preset`: is `huge`. It is one of demo, full, quick, standard." in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["quick", "standard", "full", None])
def test_a_config_of_ones_own_inherits_nothing_of_the_demo(folder: Path, preset: str | None) -> None:
    assert main(["init", str(folder)]) == 0
    values = yaml.safe_load((folder / "mine.yaml").read_text())
    if preset is None:
        del values["preset"]
    else:
        values["preset"] = preset
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))
    config = load_overlays([folder / "mine.yaml"])
    assert config.preset == (preset or "standard")
    assert len(config.runs) == len(config.map_runs) == 1, "one good map, not a study"
    assert config.normalise.high == 98 and config.sensors["sar"].clip_db == (-35, 10)
    assert config.finetune.learning_rate < 1e-2


def test_null_removes_a_method_of_the_preset(folder: Path) -> None:
    assert main(["init", str(folder)]) == 0
    more = folder / "more.yaml"
    sweep = "finetune: {sweep: [{methods: [simclr], networks: [mssnet], fractions: [100], seeds: [1]}]}\n"
    more.write_text(f"pretrain: {{methods: {{tmcnet: null, simclr: {{method: simclr}}}}}}\n{sweep}")
    assert list(load_overlays([folder / "mine.yaml", more]).pretrain.methods) == ["simclr"]


def test_networks_from_files_need_no_classes_and_no_training(folder: Path) -> None:
    (folder / "scenes.csv").write_text("scene,optical,sar,role\nnorth,s2/north.tif,s1/north.tif,predict\n")
    sensors = "{optical: {bands: [b, g, r]}, sar: {bands: [vv]}}"
    source = "{layout: scenes, sheet: scenes.csv}"
    text = f"data_root: .\nsource: {source}\nsensors: {sensors}\nmaps: {{models: {{theirs: w.safetensors}}}}\n"
    (folder / "mine.yaml").write_text(text)
    assert load_overlays([folder / "mine.yaml"]).labels.classes == []
