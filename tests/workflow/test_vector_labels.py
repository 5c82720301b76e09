"""With vector labels, other names of classes repeat nothing but maps and tables, unless features name their class."""

from __future__ import annotations

import json
from pathlib import Path

import rasterio
import rasterio.features
import yaml

from tests.workflow.conftest import ROOT, Project

CLASSES = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["labels"]["classes"]


def write_vectors(folder: Path, value_of: dict[int, object]) -> None:
    """Write the label raster of a folder as GeoJSON."""
    with rasterio.open(folder / "label.tif") as file:
        shapes = rasterio.features.shapes(file.read(1), transform=file.transform)
        features = [
            {"type": "Feature", "geometry": shape, "properties": {"class": value_of[int(code)]}}
            for shape, code in shapes
            if int(code) in value_of
        ]
        crs = {"type": "name", "properties": {"name": file.crs.to_string()}}
    (folder / "label.geojson").write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


def renamed(*names: str) -> str:
    """The config with other names of the first classes."""
    classes = [{**c, "name": name} for c, name in zip(CLASSES, names, strict=False)] + CLASSES[len(names) :]
    return yaml.safe_dump({"labels": {"classes": classes}})


def test_other_names_of_classes_retrain_nothing_where_features_give_codes(project: Project) -> None:
    sheet = project.folder / "scenes.csv"
    sheet.write_text(sheet.read_text().replace("label.tif", "label.geojson"))
    by_code = {code: code for c in CLASSES for code in c["codes"]}
    for scene in project.scenes[:2]:
        write_vectors(project.folder / scene, by_code)
    project.run("splits")
    assert project.plan("", "splits") == {}
    assert project.plan(renamed("lake"), "splits") == {}

    name_of = {code: c["name"] for c in CLASSES for code in c["codes"]}
    write_vectors(project.folder / "alder", name_of)
    project.run("splits")
    assert project.plan("", "splits") == {}
    first, second = CLASSES[0]["name"], CLASSES[1]["name"]
    plan = project.plan(renamed(second, first), "splits")
    assert plan["inspect_scene"] == 1, "only that of the features with names"
    assert plan["make_splits"] == 1
