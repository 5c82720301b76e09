"""An area of interest: polygons of a vector file, as a window of a raster."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.geometry import Box, Grid, pixel_area, to_pixels


def area_window(area: Path, grid: Grid, margin_m: float, step: int = 1) -> Box | None:
    """Return the window of a raster that contains the features of a vector file and a margin.

    Args:
        area: The vector file.
        grid: Grid of the raster, with CRS.
        margin_m: Margin in metres; in pixels if the CRS has no unit of length.
        step: The window starts at multiples of this number of pixels.

    Returns:
        The window, within the raster; None if no feature is near the raster.

    Raises:
        InputError: If the file cannot be read or has no feature.
    """
    text = run_tool("ogr2ogr", "-f", "GeoJSON", "-t_srs", grid.crs, "/vsistdout/", area)
    geometries = [feature["geometry"] for feature in json.loads(text)["features"] if feature["geometry"]]
    points = np.array([point for geometry in geometries for point in _points(geometry)])
    if not len(points):
        raise InputError(Problem(str(area), "has no feature", "Draw the polygons that you want mapped."))
    columns, rows = to_pixels(grid, grid.crs, points[:, 0], points[:, 1])
    metres = pixel_area(grid)
    margin = margin_m / math.sqrt(metres) if metres else margin_m
    (left, right), (top, bottom) = (
        (max(0, math.floor((places.min() - margin) / step) * step), min(length, math.ceil(places.max() + margin)))
        for places, length in ((columns, grid.width), (rows, grid.height))
    )
    return (top, left, bottom - top, right - left) if top < bottom and left < right else None


def _points(geometry: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Vertices of a GeoJSON geometry."""
    if geometry["type"] == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _points(part)
        return
    nested = [geometry["coordinates"]]
    while nested:
        item = nested.pop()
        if isinstance(item[0], int | float):
            yield float(item[0]), float(item[1])
        else:
            nested += item


def crop(path: Path, box: Box, target: Path) -> None:
    """Write a virtual raster of a window of a file; values, tags and no data stay as they are."""
    row, column, height, width = box
    run_tool("gdal_translate", "-q", "-of", "VRT", "-srcwin", column, row, width, height, path.resolve(), target)
