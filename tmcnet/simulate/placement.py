"""Where the simulated images lie, and by how much the SAR image is displaced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine
from scipy import ndimage

from tmcnet.raster.io.projection import reproject_points
from tmcnet.raster.io.rasters import Grid

Points = npt.NDArray[np.float64]

OPTICAL_CRS = "EPSG:32632"
PIXEL = 10.0
"""Pixel size of the optical image in metres."""
SAR_GRIDS = (("EPSG:3035", 8.0), ("EPSG:32633", 9.0), ("EPSG:3035", 12.0), ("EPSG:32631", 8.0))
"""CRS and pixel size of the SAR images, taken in turn."""
BORDER = 16
"""Margin of the SAR image around the optical one, in optical pixels, over and above the displacement."""
STEP = 8
"""Coordinates are computed at every so many pixels and interpolated between: errs by under 0.01 pixels."""


@dataclass(frozen=True)
class Displacement:
    """A smooth field: the content of optical pixel p is found at p + at(p) on the common grid.

    Attributes:
        matrix: 2 x 3, affine part of the displacement in pixels, of x, y relative to the centre and half the side.
        waves: W x 6: amplitude in x and in y, wave vector in radians per pixel (x, y), phase in x and in y.
        size: Side of the scene in pixels.
        gain: Factor that brings the largest displacement to the size wanted.
    """

    matrix: Points
    waves: Points
    size: int
    gain: float

    def at(self, x: Points, y: Points) -> tuple[Points, Points]:
        """Displacement in x and y, in pixels, at places given in optical pixels (centres at whole numbers)."""
        half = (self.size - 1) / 2.0
        u, v = (x - half) / half, (y - half) / half
        dx = self.matrix[0, 0] * u + self.matrix[0, 1] * v + self.matrix[0, 2]
        dy = self.matrix[1, 0] * u + self.matrix[1, 1] * v + self.matrix[1, 2]
        for ax, ay, kx, ky, px, py in self.waves:
            dx = dx + ax * np.sin(kx * x + ky * y + px)
            dy = dy + ay * np.sin(kx * x + ky * y + py)
        return self.gain * dx, self.gain * dy


def make_displacement(rng: np.random.Generator, size: int, largest: float) -> Displacement:
    """A shift with some rotation and scale, and waves of less than half a pixel that no affine model follows.

    Args:
        rng: Source of randomness.
        size: Side of the scene in pixels.
        largest: Largest displacement within the scene in pixels.
    """
    direction = rng.uniform(0.0, 2.0 * np.pi)
    shift = 0.8 * largest * np.array([np.cos(direction), np.sin(direction)])
    rotation, scale = 0.11 * largest * rng.choice([-1, 1], 2) * rng.uniform(0.5, 1.0, 2)
    matrix = np.array([[scale, -rotation, shift[0]], [rotation, scale, shift[1]]])
    amplitude = min(0.16, 0.04 * largest) * rng.uniform(0.6, 1.0, (3, 2))
    heading = rng.uniform(0.0, 2.0 * np.pi, 3)
    number = 2.0 * np.pi / (size * rng.uniform(0.5, 1.2, 3))
    vectors = np.column_stack([number * np.cos(heading), number * np.sin(heading)])
    waves = np.column_stack([amplitude, vectors, rng.uniform(0.0, 2.0 * np.pi, (3, 2))])
    field = Displacement(matrix, waves, size, 1.0)
    greatest = float(np.hypot(*displacement_map(field).transpose(2, 0, 1)).max())
    return Displacement(matrix, waves, size, largest / greatest if greatest > 0 else 0.0)


def displacement_map(field: Displacement) -> npt.NDArray[np.float32]:
    """The field at every optical pixel: H x W x 2, dx and dy in pixels."""
    y, x = np.mgrid[: field.size, : field.size].astype(np.float64)
    return np.stack(field.at(x, y), -1).astype(np.float32)


def optical_grid(rng: np.random.Generator, size: int) -> Grid:
    """A place for the scene within UTM zone 32 north, on whole tens of metres."""
    left = 10.0 * np.rint(rng.uniform(35e3, 65e3))
    top = 10.0 * np.rint(rng.uniform(525e3, 585e3))
    return Grid(OPTICAL_CRS, Affine(PIXEL, 0.0, float(left), 0.0, -PIXEL, float(top)), size, size)


def sar_grid(optical: Grid, number: int, largest: float) -> Grid:
    """The grid on which SAR image `number` is delivered: it covers the optical image with a margin."""
    crs, pixel = SAR_GRIDS[number % len(SAR_GRIDS)]
    reach = BORDER + int(np.ceil(largest))
    edge = np.linspace(-reach, optical.width + reach, 33)
    cols, rows = np.meshgrid(edge, edge)
    x, y = reproject_points(optical.crs, crs, *(optical.transform @ (cols, rows)))
    left, top = np.floor(x.min() / pixel) * pixel, np.ceil(y.max() / pixel) * pixel
    width, height = int(np.ceil((x.max() - left) / pixel)), int(np.ceil((top - y.min()) / pixel))
    return Grid(crs, Affine(pixel, 0.0, float(left), 0.0, -pixel, float(top)), width, height)


def content_of(sar: Grid, optical: Grid, field: Displacement) -> Points:
    """The place on the ground that each SAR pixel shows, in optical pixels: 2 x H x W, rows then columns."""
    cols = np.arange(0, sar.width + STEP, STEP) + 0.5
    rows = np.arange(0, sar.height + STEP, STEP) + 0.5
    x, y = reproject_points(sar.crs, optical.crs, *(sar.transform @ tuple(np.meshgrid(cols, rows))))
    col, row = ~optical.transform @ (x, y)
    seen_x, seen_y = col - 0.5, row - 0.5
    true_x, true_y = seen_x, seen_y
    for _ in range(6):  # the field varies slowly, so each round gains two digits
        dx, dy = field.at(true_x, true_y)
        true_x, true_y = seen_x - dx, seen_y - dy
    at = np.mgrid[: sar.height, : sar.width] / STEP
    return np.stack([ndimage.map_coordinates(part, at, order=1) for part in (true_y, true_x)])
