"""Files beside a map for people: picture, QGIS styles."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from tmcnet.classes import ClassTable
from tmcnet.config import MapsConfig
from tmcnet.evaluate.map_files import MapStyle, style_map
from tmcnet.evaluate.quicklook import north_of
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.writer import write_raster

CLASSES = ClassTable.of(
    [("open water", "#0000ff"), ("land & <sea>", "#00ff00"), ("a name that is longer " * 5, "#004400")]
)
UTM = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_200_000), 60, 40)
DEGREES = Grid("EPSG:4326", Affine(1e-3, 0, 15, 0, -1e-3, 60), 60, 40)
NOWHERE = Grid("", Affine.identity(), 60, 40)


def draw(folder: Path, grid: Grid, blocks: np.ndarray | None = None, **formats: object) -> Path:
    ids = np.zeros((grid.height, grid.width), np.uint8)
    ids[:, grid.width // 2 :] = 1
    ids[:4, :4] = 255
    prediction = np.stack([ids, np.where(ids == 255, 255, 80)]).astype(np.uint8)
    write_raster(folder / "prediction.tif", prediction, grid, 255)
    style = MapStyle(CLASSES, MapsConfig(**formats), blocks)
    style_map(folder / "prediction.tif", style, "here", folder / "map.tif")
    return folder / "map.tif"


def colours(picture: Path) -> set[tuple[int, int, int]]:
    with Image.open(picture) as image:
        return {colour for _, colour in image.getcolors(2**20)}  # type: ignore[misc, union-attr]


@pytest.mark.parametrize("grid", [UTM, DEGREES, NOWHERE])
def test_the_picture_shows_map_and_legend(tmp_path: Path, grid: Grid) -> None:
    picture = draw(tmp_path, grid, np.stack([50 * np.eye(3, dtype=int)] * 3)).with_suffix(".png")
    assert {(0, 0, 255), (0, 255, 0), (0, 68, 0), (238, 238, 238)} <= colours(picture)
    with Image.open(picture) as image:
        sides = np.asarray(image.convert("RGB"))
    rows, columns = np.nonzero((sides[:, : sides.shape[1] - 600] == (0, 255, 0)).all(axis=2))
    ratio = (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
    # at 60 degrees north a degree of longitude is half as long as one of latitude
    assert ratio == pytest.approx(4 / 3 * (2 if grid.crs == "EPSG:4326" else 1), rel=0.02)


def test_north_is_up_unless_the_grid_is_turned() -> None:
    assert north_of(UTM) == pytest.approx([0, -1], abs=0.01)
    turned = Grid(UTM.crs, Affine(0, 10, 500_000, 10, 0, 5_200_000), 60, 40)
    assert north_of(turned) == pytest.approx([1, 0], abs=0.01)


def test_the_raster_style_names_and_colours_every_class(tmp_path: Path) -> None:
    root = ElementTree.parse(draw(tmp_path, UTM).with_suffix(".qml")).getroot()
    entries = [(e.get("value"), e.get("color"), e.get("label")) for e in root.iter("paletteEntry")]
    assert entries == [(str(c.id), c.color, c.name) for c in CLASSES.classes]
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None and (renderer.get("type"), renderer.get("band")) == ("paletted", "1")


def test_the_geopackage_holds_the_style_of_its_layer(tmp_path: Path) -> None:
    path = draw(tmp_path, UTM, polygons=True).with_suffix(".gpkg")
    with closing(sqlite3.connect(path)) as file:
        query = "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ((layer, geometry, default, style),) = file.execute(query).fetchall()
        columns = file.execute("SELECT table_name, column_name FROM gpkg_geometry_columns").fetchall()
        kinds = dict(file.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall())
    assert columns == [(layer, geometry)]
    assert default == 1 and kinds == {layer: "features", "layer_styles": "attributes"}
    root = ElementTree.fromstring(style.partition("\n")[2])
    categories = [(e.get("value"), e.get("label")) for e in root.iter("category")]
    assert categories == [(str(c.id), c.name) for c in CLASSES.classes]
    fills = [e.get("value") for e in root.iter("Option") if e.get("name") == "color"]
    assert fills == ["0,0,255,255", "0,255,0,255", "0,68,0,255"]
    renderer = root.find("renderer-v2")
    assert renderer is not None and renderer.get("attr") == "class_id"
