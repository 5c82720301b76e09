"""Surfaces of the ground and their optical and SAR signatures.

Reflectances and backscatter are typical mid-latitude summer values from textbooks and spectral libraries. Several
surfaces look alike to one of the sensors and different to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WATER, FOREST, CROPLAND, GRASSLAND, ROAD, BUILDING = range(1, 7)
"""Label codes of the demo; 0 is void."""


@dataclass(frozen=True)
class Surface:
    """One type of surface.

    Attributes:
        code: Label code of its class.
        reflectance: Surface reflectance in percent: blue, green, red, near infrared.
        backscatter: Mean sigma nought in dB: VV, VH.
        spread: Relative standard deviation of the brightness between parcels.
        texture: Relative standard deviation of the brightness within a parcel.
        height: Height above ground in metres.
    """

    code: int
    reflectance: tuple[float, float, float, float]
    backscatter: tuple[float, float]
    spread: float
    texture: float
    height: float = 0.0


SURFACES: dict[str, Surface] = {
    "clear_water": Surface(WATER, (4.4, 3.9, 2.2, 1.4), (-19.5, -27.0), 0.05, 0.05),
    "turbid_water": Surface(WATER, (5.2, 6.6, 5.0, 3.2), (-18.5, -26.0), 0.10, 0.06),
    "algal_water": Surface(WATER, (2.9, 4.4, 2.9, 12.0), (-18.0, -25.5), 0.12, 0.16),
    "conifers": Surface(FOREST, (2.3, 3.3, 2.2, 15.5), (-9.6, -15.0), 0.10, 0.16, 20.0),
    "broadleaf": Surface(FOREST, (2.6, 4.6, 2.7, 27.0), (-9.0, -14.4), 0.10, 0.16, 17.0),
    "ripe_grain": Surface(CROPLAND, (6.6, 10.0, 12.5, 25.0), (-12.8, -19.2), 0.12, 0.06),
    "maize": Surface(CROPLAND, (3.4, 6.2, 4.0, 37.0), (-9.9, -16.2), 0.10, 0.08, 1.5),
    "green_crop": Surface(CROPLAND, (4.0, 7.6, 4.8, 39.0), (-11.4, -17.8), 0.10, 0.06),
    "bare_soil": Surface(CROPLAND, (8.0, 10.4, 13.4, 19.0), (-11.8, -20.0), 0.14, 0.06),
    "stubble": Surface(CROPLAND, (9.0, 12.4, 15.8, 25.0), (-12.4, -20.2), 0.12, 0.06),
    "meadow": Surface(GRASSLAND, (3.9, 7.4, 4.9, 33.0), (-11.9, -18.6), 0.12, 0.13),
    "pasture": Surface(GRASSLAND, (5.0, 8.2, 7.0, 28.0), (-12.3, -19.2), 0.14, 0.15),
    "garden": Surface(GRASSLAND, (5.0, 7.6, 6.4, 26.0), (-11.0, -17.0), 0.10, 0.22),
    "asphalt": Surface(ROAD, (9.6, 10.6, 11.6, 14.8), (-17.5, -25.0), 0.10, 0.06),
    "gravel": Surface(ROAD, (10.6, 13.0, 15.6, 21.0), (-15.5, -23.0), 0.12, 0.08),
    "red_roof": Surface(BUILDING, (8.6, 10.4, 14.8, 19.5), (-7.0, -14.0), 0.22, 0.08, 8.0),
    "grey_roof": Surface(BUILDING, (10.2, 11.4, 12.4, 15.8), (-7.5, -14.5), 0.24, 0.08, 8.0),
    "hall": Surface(BUILDING, (18.0, 19.5, 20.5, 23.0), (-6.0, -13.0), 0.28, 0.06, 10.0),
}

INDEX: dict[str, int] = {name: i for i, name in enumerate(SURFACES)}
"""Index of each surface in maps of surfaces."""


def column(attribute: str) -> npt.NDArray[np.float32]:
    """One attribute of all surfaces, by surface index."""
    return np.array([getattr(surface, attribute) for surface in SURFACES.values()], dtype=np.float32)


CODES: npt.NDArray[np.uint8] = column("code").astype(np.uint8)
"""Label code of each surface index."""
