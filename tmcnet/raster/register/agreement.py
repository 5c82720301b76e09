"""Which control points to believe, and whether to believe them at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from tmcnet.config import AlignConfig
from tmcnet.raster.register import affine_fit
from tmcnet.raster.register.affine_fit import IDENTITY, Array
from tmcnet.raster.register.model_choice import Evidence, fit

NEIGHBOURS = 8
"""Neighbours whose median displacement a point is compared with."""
FEWEST = NEIGHBOURS + 2
"""Fewer points than this are not looked at."""
STIFFNESS = 0.005
"""Weight of bending in the surface through points that agree, as in `bending.SMOOTHING`."""
MOST_BENDING = 12.0
"""Largest distance in pixels from one affine model for the whole scene: relief and orbits bend no further."""
MOST_DISTORTION = 0.07
"""Largest change of lengths that two images with a georeference may show, as a share: what is looked for (2 degrees
and 3 % make 0.046) and some bending."""
MOST_OF_SURE, SURE = 0.12, 10.0
"""The same where so many times more control points agree than by chance, and than are looked at at all: relief may
add to it."""
ABOVE_CHANCE = 2.5
"""So many times more control points must agree than with the SAR image upside down."""


@dataclass(frozen=True)
class Found:
    """Reliable control points.

    Attributes:
        source: N x 2 places (x, y) on the common grid, in pixels.
        target: N x 2, where their content was found.
        weight: N, how much a point is to be trusted beside the others.
        agree: N flags, whether a point agrees with its neighbours.
        matrix: 2 x 3, one affine model for those that agree; the identity where there are too few.
    """

    source: Array
    target: Array
    weight: Array
    agree: npt.NDArray[np.bool_]
    matrix: Array

    def rows(self) -> list[list[float]]:
        """Points as [x, y, dx, dy, agrees]."""
        table = np.column_stack([self.source, self.target - self.source, self.agree])
        return [[float(value) for value in row] for row in table]


def by_neighbours(source: Array, target: Array, weight: Array, shape: tuple[int, int], tolerance: float) -> Found:
    """Find the points that are displaced like their neighbours, whatever the shape of the displacement.

    Args:
        source: N x 2 points (x, y).
        target: N x 2, where they were found.
        weight: N, how much each is to be trusted in a fit. Whether it agrees is told by its place alone.
        shape: Height and width of the scene.
        tolerance: Largest distance in pixels from a smooth surface through those that agree.
    """
    start = affine_fit.consensus(source, target, 2.0 * tolerance)
    if start.sum() < FEWEST:
        return Found(source, target, weight, np.zeros(len(source), dtype=bool), IDENTITY)
    alike = np.ones(len(source))
    matrix = affine_fit.refine(source, target, start, alike, MOST_BENDING, "affine")
    off = target - affine_fit.apply(matrix, source)
    bent = np.hypot(*off.T) < MOST_BENDING + tolerance
    # the median of neighbours is safe against mistakes but blunt, a surface is sharp: one after the other
    agree = bent & (np.hypot(*(off - _typical(source, off, bent)).T) < 1.5 * tolerance)
    for _ in range(2):
        if agree.sum() < FEWEST:
            return Found(source, target, weight, agree, IDENTITY)
        trusted = Evidence(source[agree], target[agree], alike[agree], shape, 0.0, 0.0, 2.0 * tolerance)
        surface = fit(trusted, "thin_plate", STIFFNESS)
        agree = bent & (np.hypot(*(surface(source) - target).T) < tolerance)
    matrix = affine_fit.refine(source, target, agree, alike, MOST_BENDING, "affine")
    return Found(source, target, weight, agree, matrix)


def _typical(source: Array, off: Array, trusted: npt.NDArray[np.bool_]) -> Array:
    """Median of what the nearest trusted points are off by, the point itself left out: N x 2."""
    _, near = cKDTree(source[trusted]).query(source, k=NEIGHBOURS + 1)
    numbers = np.flatnonzero(trusted)[near]
    others = np.where(numbers == np.arange(len(source))[:, None], numbers[:, -1:], numbers)[:, :NEIGHBOURS]
    return np.asarray(np.median(off[others], axis=1))


def doubts(found: Found, config: AlignConfig, shape: tuple[int, int], by_chance: int) -> str:
    """Why control points should not be believed, or nothing.

    Args:
        found: The points.
        config: What is asked for.
        shape: Height and width of the scene.
        by_chance: How many points agree where nothing can be right; 0 once they have been compared with that.
    """
    n, agreeing = len(found.source), int(found.agree.sum())
    if n < config.min_points:
        return f"only {n} control points could be matched reliably, {config.min_points} are needed"
    if agreeing < max(config.min_points, config.min_inlier_share * n):
        return f"only {agreeing} of {n} control points agree with their neighbours, too few to believe them"
    if agreeing < ABOVE_CHANCE * by_chance:
        return f"{agreeing} control points agree, but {by_chance} do with an image that has nothing to do with it"
    most = MOST_OF_SURE if agreeing >= SURE * max(by_chance, FEWEST) else MOST_DISTORTION
    if affine_fit.distortion(found.matrix) > most:
        return "the control points ask for a distortion that images with a georeference do not have"
    centre = np.array([[shape[1] - 1, shape[0] - 1]]) / 2.0
    shift = float(np.hypot(*(affine_fit.apply(found.matrix, centre) - centre)[0]))
    if shift > 1.5 * config.max_shift:
        return f"the control points ask for a shift of {shift:.1f} pixels, more than was looked for"
    return ""
