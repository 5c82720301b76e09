"""What a pixel covers on the ground."""

from __future__ import annotations

import numpy as np
from rasterio.crs import CRS

from tmcnet.raster.io import Grid
from tmcnet.raster.projection import reproject_points


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
