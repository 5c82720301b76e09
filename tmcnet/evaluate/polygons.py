"""Maps as polygons in a GeoPackage, for any GIS."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio import features

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE
from tmcnet.raster.io.files import ByteArray, open_raster
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.geometry import pixel_area
from tmcnet.raster.io.reader import read_grid

LAYER = "land_cover"
TOOLS = ("ogr2ogr",)
"""GDAL tools needed."""

_NO_CRS = 'LOCAL_CS["Undefined Cartesian SRS"]'
"""CRS of the GeoPackage standard for a plane without reference; GDAL would assume degrees."""

Ring = NDArray[np.float64]


def write_polygons(map_file: Path, classes: ClassTable, minimum_mapping_unit: float, out: Path) -> None:
    """Write a map as polygons: layer `land_cover` with `class_id`, `class` and `area_m2`; void is left out.

    Without a CRS the area is in pixels, in the field `area_pixels`. Pixels that touch at a corner only are apart.
    The file appears whole or not at all. Memory holds the map a few times over in its own type, one byte a pixel, and
    its polygons.

    Args:
        map_file: Class ids, 255 for void.
        classes: The classes of the ids.
        minimum_mapping_unit: Patches below this area join their largest neighbour, in square metres (pixels without a
            CRS); 0 keeps all.
        out: The GeoPackage to write.

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
            rows.writerow(["class_id", "class", "area_pixels" if area is None else "area_m2", "geometry"])
            for k, pixels, rings in _polygons(merged):
                rows.writerow([k, classes.names[k], pixels * unit, _wkt(rings, grid.transform)])
        reading = ("-oo", "GEOM_POSSIBLE_NAMES=geometry", "-oo", "KEEP_GEOM_COLUMNS=NO")
        # GDAL takes lines of at most 10 MB otherwise, and one polygon may be longer
        unlimited = ("--config", "OGR_CSV_MAX_LINE_SIZE", "-1")
        layer = ("-nln", LAYER, "-nlt", "POLYGON", "-a_srs", grid.crs or _NO_CRS)
        run_tool("ogr2ogr", "-f", "GPKG", *unlimited, *layer, *reading, draft, table)
        draft.replace(out)


def merge_small(ids: ByteArray, size: int) -> ByteArray:
    """Join patches of fewer than `size` pixels with their largest neighbour.

    Void neither grows nor shrinks: it is no neighbour. Patches without a neighbour of that size stay, such as an
    islet in void. The size grows by doubling: noise, in which the largest neighbour of a patch is too small as well,
    merges into ever larger patches so, where one step to the full size would leave it as it is.

    Args:
        ids: H x W, 255 for void.
        size: In pixels.

    Returns:
        H x W.
    """
    valid = ids != IGNORE
    step = 2
    while step < 2 * size:
        before, ids = ids, features.sieve(ids, min(step, size), mask=valid)
        step = step if step >= size and not np.array_equal(before, ids) else 2 * step
    return ids


def _polygons(ids: ByteArray) -> Iterator[tuple[int, float, list[Ring]]]:
    """Yield class, area in pixels and rings (outer one first, N x 2 column and row) of each patch."""
    for shape, k in features.shapes(ids, mask=ids != IGNORE):
        rings = [np.asarray(ring, np.float64) for ring in shape["coordinates"]]
        outer, *holes = (_area(ring) for ring in rings)
        yield int(k), outer - sum(holes), rings


def _area(ring: Ring) -> float:
    """Return the area of a closed ring by the shoelace formula."""
    x, y = ring.T
    return abs(float(x[:-1] @ y[1:] - y[:-1] @ x[1:])) / 2


def _wkt(rings: list[Ring], transform: Affine) -> str:
    """Return a polygon in map coordinates as well-known text."""
    parts = []
    for ring in rings:
        x, y = transform @ (ring[:, 0], ring[:, 1])
        parts.append(", ".join(f"{east!r} {north!r}" for east, north in zip(x.tolist(), y.tolist(), strict=True)))
    return f"POLYGON ({', '.join(f'({part})' for part in parts)})"
