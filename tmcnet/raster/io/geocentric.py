"""Places on the ground as points in space, whatever map they come from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SEMI_MAJOR = 6_378_137.0
"""Semi-major axis of WGS 84 in metres."""
FLATTENING = 1 / 298.257223563
"""Flattening of WGS 84."""


def geocentric(longitude: Array, latitude: Array) -> Array:
    """Points on the ellipsoid of WGS 84 as geocentric coordinates (EPSG:4978).

    Straight distances between them are never longer than those along the ground.

    Args:
        longitude: N degrees east.
        latitude: N degrees north.

    Returns:
        N x 3 metres.
    """
    lon, lat = np.radians(longitude), np.radians(latitude)
    squashed = FLATTENING * (2 - FLATTENING)
    radius = SEMI_MAJOR / np.sqrt(1 - squashed * np.sin(lat) ** 2)
    flat = radius * np.cos(lat)
    return np.stack([flat * np.cos(lon), flat * np.sin(lon), radius * (1 - squashed) * np.sin(lat)], axis=-1)
