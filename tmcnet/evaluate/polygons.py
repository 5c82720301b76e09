"""Maps for GIS programs: polygons in a GeoPackage, and styles of QGIS with class names and colours."""

from __future__ import annotations

import csv
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio import features

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE
from tmcnet.raster.io.files import ByteArray
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.geometry import PixelMap, equal_area, pixel_area
from tmcnet.raster.io.opening import open_raster
from tmcnet.raster.io.reader import read_grid

LAYER = "land_cover"
_GEOMETRY = "geometry"
"""Name of the geometry column."""
TOOLS = ("ogr2ogr",)
"""GDAL tools needed."""

_NO_CRS = 'LOCAL_CS["Undefined Cartesian SRS"]'
"""CRS of the GeoPackage standard for a plane without reference; GDAL would assume degrees."""

_MAX_PIECE_PX = 16
"""Edges of polygons are straight on the map; pieces of this length are so in other projections too."""

Ring = NDArray[np.float64]


def write_polygons(map_file: Path, classes: ClassTable, minimum_mapping_unit: float, out: Path) -> None:
    """Write a map as polygons: layer `land_cover` with `class_id`, `class` and `area_m2`; void is left out.

    Areas are geodesic where the projection does not preserve them within 0.5 %, in the plane of the map elsewhere.
    Without a CRS the area is in pixels, in the field `area_pixels`. Pixels that touch at a corner only are apart.
    Patches below the minimum mapping unit join their largest neighbour, in square metres at the centre of the map
    (pixels without a CRS). The GeoPackage holds a style with names and colours, with which QGIS opens the layer. The
    file appears whole or not at all. Memory holds the map a few times over in its own type, one byte a pixel, and its
    polygons.

    Raises:
        InputError: If the map cannot be read, or GDAL's `ogr2ogr` is missing or fails.
    """
    grid = read_grid(map_file)
    with open_raster(map_file) as dataset:
        ids = dataset.read(1)
    area = pixel_area(grid)
    unit = 1.0 if area is None else area
    merged = merge_small(ids, math.ceil(minimum_mapping_unit / unit))
    with TemporaryDirectory(prefix=".polygons_", dir=out.parent) as name:
        table, draft = Path(name) / "polygons.csv", Path(name) / "polygons.gpkg"
        # the sidecar file defines the field types, so that a map without polygons has the same fields
        table.with_suffix(".csvt").write_text("Integer,String,Real,WKT\n")
        with table.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["class_id", "class", "area_pixels" if area is None else "area_m2", _GEOMETRY])
            plane = equal_area(grid)
            for k, rings in _polygons(merged):
                size = _area(rings) * unit if plane is None else _area([_flatten(ring, plane) for ring in rings])
                rows.writerow([k, classes.names[k], size, _wkt(rings, grid.transform)])
        reading = ("-oo", f"GEOM_POSSIBLE_NAMES={_GEOMETRY}", "-oo", "KEEP_GEOM_COLUMNS=NO")
        # GDAL takes lines of at most 10 MB otherwise, and one polygon may be longer
        unlimited = ("--config", "OGR_CSV_MAX_LINE_SIZE", "-1")
        layer = ("-nln", LAYER, "-nlt", "POLYGON", "-a_srs", grid.crs or _NO_CRS)
        run_tool("ogr2ogr", "-f", "GPKG", *unlimited, *layer, *reading, draft, table)
        add_layer_style(draft, polygon_style(classes))
        draft.replace(out)


def merge_small(ids: ByteArray, size: int) -> ByteArray:
    """Join patches of fewer than `size` pixels with their largest neighbour, in H x W ids.

    Void neither grows nor shrinks: it is no neighbour. Patches without a neighbour of that size stay, such as an
    islet in void. The size grows by doubling: noise, in which the largest neighbour of a patch is too small as well,
    merges into ever larger patches so, where one step to the full size would leave it as it is.
    """
    valid = ids != IGNORE
    step = 2
    while step < 2 * size:
        before, ids = ids, features.sieve(ids, min(step, size), mask=valid)
        step = step if step >= size and not np.array_equal(before, ids) else 2 * step
    return ids


def _polygons(ids: ByteArray) -> Iterator[tuple[int, list[Ring]]]:
    """Yield class and rings (outer one first, N x 2 column and row) of each patch."""
    for shape, k in features.shapes(ids, mask=ids != IGNORE):
        yield int(k), [np.asarray(ring, np.float64) for ring in shape["coordinates"]]


def _area(rings: Sequence[Ring]) -> float:
    """Return the area of a polygon: its outer ring without the others, by the shoelace formula."""
    outer, *holes = (abs(float(x[:-1] @ y[1:] - y[:-1] @ x[1:])) / 2 for x, y in (ring.T for ring in rings))
    return outer - sum(holes)


def _flatten(ring: Ring, plane: PixelMap) -> Ring:
    """Project a ring to an equal-area plane, in pieces short enough to be straight there."""
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(ring, axis=0)).sum(axis=1))])
    at = np.union1d(length, np.arange(0.0, length[-1], _MAX_PIECE_PX))
    column, row = (np.interp(at, length, side) for side in ring.T)
    flat = np.stack(plane(column, row), axis=1)
    return np.asarray(flat - flat[0])  # the shoelace formula loses digits far from the origin


def _wkt(rings: list[Ring], transform: Affine) -> str:
    """Return a polygon in map coordinates as well-known text."""
    parts = []
    for ring in rings:
        x, y = transform @ (ring[:, 0], ring[:, 1])
        parts.append(", ".join(f"{east!r} {north!r}" for east, north in zip(x.tolist(), y.tolist(), strict=True)))
    return f"POLYGON ({', '.join(f'({part})' for part in parts)})"


_VERSION = "3.28"
"""First version of QGIS with the elements that are written here."""
_STYLES_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
    styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN,
    description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME
)
"""
"""The table as QGIS creates it."""


def raster_style(classes: ClassTable) -> bytes:
    """The QML of a raster of class ids."""
    root = _root()
    pipe = SubElement(root, "pipe")
    renderer = SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = SubElement(renderer, "colorPalette")
    for c in classes.classes:
        SubElement(palette, "paletteEntry", value=str(c.id), color=c.color, alpha="255", label=c.name)
    return _text(root)


def polygon_style(classes: ClassTable) -> bytes:
    """The QML of polygons without outlines, coloured by their `class_id`."""
    root = _root()
    renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr="class_id", symbollevels="0")
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for c in classes.classes:
        key = str(c.id)
        SubElement(categories, "category", symbol=key, value=key, label=c.name, render="true", type="long")
        symbol = SubElement(symbols, "symbol", type="fill", name=key, alpha="1", clip_to_extent="1")
        layer = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
        options = SubElement(layer, "Option", type="Map")
        values = {"color": ",".join(map(str, (*c.rgb, 255))), "style": "solid", "outline_style": "no"}
        for name, value in values.items():
            SubElement(options, "Option", name=name, type="QString", value=value)
    return _text(root)


def add_layer_style(geopackage: Path, style: bytes) -> None:
    """Add the default style (QML) of the layer to a GeoPackage without styles."""
    named = {"f_table_catalog": "", "f_table_schema": "", "f_table_name": LAYER, "f_geometry_column": _GEOMETRY}
    values = {**named, "styleName": LAYER, "styleQML": style.decode(), "styleSLD": "", "useAsDefault": True}
    contents = {"table_name": "layer_styles", "data_type": "attributes", "identifier": "layer_styles"}
    with closing(sqlite3.connect(geopackage)) as file, file:
        file.execute(_STYLES_TABLE)
        for table, row in (("layer_styles", values), ("gpkg_contents", contents)):
            places = ", ".join("?" * len(row))
            file.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", list(row.values()))


def _root() -> Element:
    return Element("qgis", version=_VERSION, styleCategories="Symbology")


def _text(root: Element) -> bytes:
    indent(root)
    text: bytes = tostring(root, encoding="utf-8")
    return b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + text + b"\n"
