"""What a pixel covers on the ground, and where a tile lies."""

from __future__ import annotations

import math

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS

from tmcnet.raster.io.geocentric import geocentric
from tmcnet.raster.io.projection import reproject_points
from tmcnet.raster.io.rasters import Grid

GROUND = ("x", "y", "pixel_x", "pixel_y", "pixel_metres", "north_up", "lon", "lat", "radius_metres")
"""Columns of the index that say where on the ground a tile lies."""

_STRAIGHT = 1e-6
"""Rows and columns that lean no more than this against the axes of the map, a pixel in a million, are straight."""
_ROUNDING = 0.005
"""Metres added to a radius for the digits that centre and radius are written with."""


def ground_columns(grid: Grid) -> dict[str, str]:
    """Where a tile lies, as the index tells it.

    Returns:
        Under the names of `GROUND`: the centre and the sides of a pixel in map units; the side of a pixel in metres;
        1 where rows and columns run along the axes of the map, else 0; longitude and latitude of the centre in
        degrees (WGS 84); and the radius in metres of a circle around it that holds the tile. Empty what is not
        known; all without a CRS.
    """
    if not grid.crs:
        return dict.fromkeys(GROUND, "")
    at = grid.transform
    x, y = at @ (grid.width / 2, grid.height / 2)
    sides = math.hypot(at.a, at.d), math.hypot(at.b, at.e)
    area = pixel_area(grid)
    values = (
        *(f"{value:.6f}" for value in (x, y)),
        *(f"{side:.12g}" for side in sides),
        f"{math.sqrt(area):.6f}" if area else "",
        "1" if max(abs(at.b) / sides[1], abs(at.d) / sides[0]) < _STRAIGHT else "0",
        *(_circle(grid) if area else ("", "", "")),
    )
    return dict(zip(GROUND, values, strict=True))


def _circle(grid: Grid) -> tuple[str, str, str]:
    """Longitude, latitude and radius of the circle around a tile; empty where the map has no ground there."""
    # corners and the middles of the edges: on some maps these are the farthest
    columns, rows = (side.ravel() for side in np.meshgrid((0.5, 0, 1), (0.5, 0, 1)))
    x, y = grid.transform @ (columns * grid.width, rows * grid.height)
    try:
        lon, lat = reproject_points(grid.crs, "EPSG:4326", x, y)
    except CPLE_BaseError:  # rasterio has no public name for what a failure of PROJ raises
        return "", "", ""
    places = geocentric(lon, lat)
    radius = float(np.linalg.norm(places - places[0], axis=1).max())
    if not math.isfinite(radius):
        return "", "", ""
    return f"{lon[0]:.8f}", f"{lat[0]:.8f}", f"{radius + _ROUNDING:.3f}"


def pixel_area(grid: Grid) -> float | None:
    """Area of a pixel in square metres.

    With a projected CRS it is the area in the plane of the map, as GIS programs give it. With a geographic one the
    pixel at the centre of the grid is measured in a local equal-area projection.

    Returns:
        The area; None without a CRS, or with one that is neither projected nor geographic.
    """
    if not grid.crs:
        return None
    crs = CRS.from_user_input(grid.crs)
    if crs.is_projected:
        metres = float(crs.linear_units_factor[1])
        return float(abs(grid.transform.determinant) * metres**2)
    return _geographic_area(grid) if crs.is_geographic else None


def _geographic_area(grid: Grid) -> float:
    column, row = grid.width / 2, grid.height / 2
    longitude, latitude = grid.transform @ (column, row)
    local = f"+proj=laea +lat_0={latitude!r} +lon_0={longitude!r} +ellps=WGS84"
    corners = np.array([[-0.5, 0.5, 0.5, -0.5], [-0.5, -0.5, 0.5, 0.5]])
    x, y = reproject_points(grid.crs, local, *(grid.transform @ (column + corners[0], row + corners[1])))
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
