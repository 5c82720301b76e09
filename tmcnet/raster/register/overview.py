"""The first look at two images: one shift, rotation and scale for the whole of them, at low resolution."""

from __future__ import annotations

from itertools import product

import numpy as np

from tmcnet.raster.io.windowed import Displaced, Image
from tmcnet.raster.register import matching
from tmcnet.raster.register.affine_fit import IDENTITY, Array
from tmcnet.raster.register.control_points import tone_of
from tmcnet.raster.register.deformation import AffineMap

DEGREES = (0.0, -1.0, 1.0, -2.0, 2.0)
SCALES = (1.0, 0.98, 1.02)
"""Rotations and scales tried. What lies between and a little beyond them is left to the control points."""
MIN_VALID = 0.25
"""Smallest share of the overview that must be valid in both images at a shift."""


def overview(reference: Image, moving: Image, reach: int, turned: bool = True) -> Array:
    """The shift, and rotation and scale about the centre, at which two small images are most alike.

    Args:
        reference: Optical image.
        moving: SAR image on the same grid.
        reach: Largest shift looked for in pixels.
        turned: Whether rotations and scales are tried as well.

    Returns:
        2 x 3 from the pixels of the reference to those of the moving image; the identity where the images cannot
        be compared.
    """
    _, height, width = reference.shape
    side = max(height, width)
    template = matching.describe(reference.read(0, 0, side, side), tone_of(reference, speckled=False))
    scaling = tone_of(moving, speckled=True)
    wide = side + 2 * reach
    best, matrix = -np.inf, IDENTITY
    for degrees, scale in product(DEGREES, SCALES) if turned else [(0.0, 1.0)]:
        linear = about_centre(degrees, scale, height, width)
        search = matching.describe(Displaced(moving, AffineMap(linear)).read(-reach, -reach, wide, wide), scaling)
        surface = matching.correlate(
            template[0][None], template[1][None], search[0][None], search[1][None], MIN_VALID
        )
        found = matching.locate(np.where(np.isfinite(surface), surface, -1.0).astype(np.float32))
        if np.isfinite(found.dx[0]) and found.peak[0] > best:
            best, shift = found.peak[0], np.array([found.dx[0], found.dy[0]], dtype=np.float64)
            matrix = np.column_stack([linear[:, :2], linear[:, :2] @ shift + linear[:, 2]])
    return matrix


def about_centre(degrees: float, scale: float, height: int, width: int) -> Array:
    """A rotation and a change of scale about the centre of an image, 2 x 3."""
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([width - 1, height - 1]) / 2.0
    return np.column_stack([linear, centre - linear @ centre])


def enlarged(matrix: Array, scale: int) -> Array:
    """A map found on images reduced by means over `scale` x `scale` pixels, in full pixels."""
    middle = (scale - 1) / 2.0
    linear = matrix[:, :2]
    return np.column_stack([linear, scale * matrix[:, 2] + middle - linear @ np.full(2, middle)])
