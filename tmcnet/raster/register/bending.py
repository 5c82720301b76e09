"""Smooth maps through scattered points: a polynomial, and splines that bend as much as the points bear out."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.register.affine_fit import Array

SMOOTHING = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Weights of bending in splines that are tried; coordinates are in halves of the scene's longer side. Suppler ones
are no better on any pair with checkpoints, but look so where points are left out (benchmarks/README.md)."""
FAR, LEAST_FAR = 4.0, 0.5
"""Points further than so many median residuals, and than so many pixels, from a smooth surface have no weight."""
HARDLY = 1e-3
"""In place of no weight, since splines divide by it."""


def spline(places: Array, moves: Array, weight: Array, smoothing: float) -> PointMap:
    """Smoothing spline that leaves quadratic polynomials alone and holds third derivatives small.

    It is the thin-plate spline of third order (Duchon, "Splines minimizing rotation-invariant semi-norms in Sobolev
    spaces", 1977; Wahba, Spline Models for Observational Data, 1990). That of second order, whose name is the
    shorter one, holds down wide bends nearly as much as the noise of single points.

    Args:
        places: N x 2.
        moves: N x K, what to interpolate.
        weight: N, how much each point is to be trusted beside the others.
        smoothing: Weight of bending; it means the same however many points there are.
    """
    each = _of_each(smoothing, weight)
    surface: PointMap = RBFInterpolator(places, moves, smoothing=each, kernel="quintic", degree=2)
    return surface


def calm(places: Array, moves: Array, weight: Array, smoothing: float) -> PointMap:
    """Thin-plate spline of second order, which grows no faster than in proportion far from points; see `spline`."""
    surface: PointMap = RBFInterpolator(places, moves, smoothing=_of_each(smoothing, weight))
    return surface


def _of_each(smoothing: float, weight: Array) -> Array:
    """The weight of bending against each point; a hundred points that are alike have it as given."""
    return np.asarray(smoothing * weight.sum() / 100.0 / weight)


def quadratic(places: Array, moves: Array, weight: Array) -> PointMap:
    """Least squares polynomial of second order; see `spline`."""
    root = np.sqrt(weight)[:, None]
    solution = np.linalg.lstsq(root * _terms(places), root * moves, rcond=None)[0]
    return lambda points: np.asarray(_terms(points) @ solution)


def _terms(points: Array) -> Array:
    x, y = points.T
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def wary(places: Array, moves: Array, weight: Array, smoothing: float) -> Array:
    """The weights, less for points far from a smooth surface through all of them (Tukey's biweight); N."""
    given = weight
    for _ in range(2):
        off = np.hypot(*(spline(places, moves, weight, smoothing)(places) - moves).T)
        share = off / max(FAR * float(np.median(off)), LEAST_FAR)
        weight = given * np.maximum(np.where(share < 1.0, (1.0 - share**2) ** 2, 0.0), HARDLY)
    return weight


def apart(places: Array, moves: Array, weight: Array, smoothing: float, near: float) -> Array:
    """Squared residual at each point from a spline fitted without it and without those nearer than `near`; N.

    A spline is linear in the moves, so no spline is fitted anew: with H its matrix and r its residuals, those of
    points G that are left out are (1 - H_GG)^-1 r_G.
    """
    matrix = spline(places, np.eye(len(places)), weight, smoothing)(places)
    off = moves - matrix @ moves
    squares = np.empty(len(places))
    for number, around in enumerate(cKDTree(places).query_ball_point(places, near)):
        group = [number, *(other for other in around if other != number)]
        left = np.linalg.solve(np.eye(len(group)) - matrix[np.ix_(group, group)], off[group])
        squares[number] = (left[0] ** 2).sum()
    return squares
