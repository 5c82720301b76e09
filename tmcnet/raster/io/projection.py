"""Points from one coordinate reference system to another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rasterio.warp import transform

Coordinates = npt.NDArray[np.float64]


def reproject_points(source: str, target: str, x: Coordinates, y: Coordinates) -> tuple[Coordinates, Coordinates]:
    """Map coordinates of one CRS in another.

    Args:
        source: CRS of the points, such as `EPSG:32632`.
        target: CRS wanted.
        x: Eastings, or longitudes, of any shape.
        y: Northings, or latitudes, of the same shape.
    """
    eastings, northings = transform(source, target, np.ravel(x), np.ravel(y))
    return np.reshape(eastings, np.shape(x)), np.reshape(northings, np.shape(y))
