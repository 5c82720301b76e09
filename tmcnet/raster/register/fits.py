"""Fit shifts, affine maps, polynomials and splines to tie points, of which some are wrong."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree
from skimage.measure import ransac
from skimage.transform import AffineTransform

from tmcnet.raster.io.files import BoolArray
from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.register.deformation import IDENTITY, AffineMap, Array, distortion
from tmcnet.seeding import generator

RANSAC_TRIALS = 1500
MAX_RANSAC_DISTORTION = 0.12
"""Images that share a georeference differ by little more than a shift."""
REWEIGHTING_ROUNDS = 12
"""Iterations of reweighted least squares; the weights converge well before."""
SMOOTHING = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Smoothing parameters of splines to choose from; coordinates are in halves of the scene's longer side. Smaller ones
are no better on any pair with checkpoints, but look better in cross-validation (benchmarks/README.md)."""
OUTLIER_MEDIANS, MIN_OUTLIER_PX = 4.0, 0.5
"""Tie points farther than this many median residuals, and pixels, from a smooth surface get no weight."""
MIN_WEIGHT = 1e-3
"""Replaces a weight of zero, since splines divide by it."""


def ransac_inliers(source: Array, target: Array, threshold_px: float) -> BoolArray:
    """Find the tie points that fit one affine map, by RANSAC with a fixed seed.

    Args:
        source: N x 2 points.
        target: N x 2 matched points.
        threshold_px: Largest residual of an inlier.

    Returns:
        N flags; all false where no map was found.
    """
    none = np.zeros(len(source), dtype=bool)
    if len(source) < 4:
        return none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about samples on a line, which are skipped
        model, inliers = ransac(
            (source, target),
            AffineTransform,
            min_samples=3,
            residual_threshold=threshold_px,
            is_model_valid=_is_plausible,
            max_trials=RANSAC_TRIALS,
            rng=generator(0, "coregister ransac"),
        )
    return none if model is None or inliers is None else np.asarray(inliers, dtype=bool)


def _is_plausible(model: AffineTransform, *_: Array) -> bool:
    return bool(np.isfinite(model.params).all() and distortion(model.params[:2]) < MAX_RANSAC_DISTORTION)


def robust_affine(
    source: Array,
    target: Array,
    weight: Array,
    tolerance_px: float,
    model: Literal["shift", "affine"] = "affine",
    start: BoolArray | None = None,
) -> Array:
    """Fit a shift or an affine map by iteratively reweighted least squares with Tukey's biweight.

    Args:
        source: N x 2 points.
        target: N x 2 matched points.
        weight: N, prior weight of each point.
        tolerance_px: Residual beyond which a point has no weight.
        model: `affine` or `shift`.
        start: N flags, the points of the first iteration; None for all.

    Returns:
        2 x 3 matrix from source to target.
    """
    weights = weight if start is None else weight * start
    matrix = IDENTITY
    for _ in range(REWEIGHTING_ROUNDS):
        matrix = _least_squares(source, target, weights, model)
        ratio = np.hypot(*(AffineMap(matrix)(source) - target).T) / tolerance_px
        weights = weight * _biweight(ratio)
        if np.count_nonzero(weights) < 4:
            break
    return matrix


def _biweight(ratio: Array) -> Array:
    """Tukey's biweight of residuals divided by the tolerance."""
    return np.where(ratio < 1.0, (1.0 - ratio**2) ** 2, 0.0)


def _least_squares(source: Array, target: Array, weights: Array, model: Literal["shift", "affine"]) -> Array:
    if model == "shift":
        shift = (weights[:, None] * (target - source)).sum(axis=0) / max(float(weights.sum()), 1e-9)
        return np.column_stack([np.eye(2), shift])
    centre = source.mean(axis=0)
    design = np.column_stack([source - centre, np.ones(len(source))]) * np.sqrt(weights)[:, None]
    solution = np.linalg.lstsq(design, (target - source) * np.sqrt(weights)[:, None], rcond=None)[0]
    linear = solution[:2].T
    return np.column_stack([np.eye(2) + linear, solution[2] - linear @ centre])


def quadratic(places: Array, moves: Array, weight: Array) -> PointMap:
    """Fit a polynomial of second order by weighted least squares; arguments as for `smoothing_spline`."""
    root = np.sqrt(weight)[:, None]
    solution = np.linalg.lstsq(root * _monomials(places), root * moves, rcond=None)[0]
    return lambda points: np.asarray(_monomials(points) @ solution)


def _monomials(points: Array) -> Array:
    x, y = points.T
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def smoothing_spline(places: Array, moves: Array, weight: Array, smoothing: float) -> PointMap:
    """Fit a smoothing spline that penalises third derivatives and reproduces quadratic polynomials.

    It is the thin-plate spline of third order (Duchon, "Splines minimizing rotation-invariant semi-norms in Sobolev
    spaces", 1977; Wahba, Spline Models for Observational Data, 1990). The one of second order, usually meant by the
    name, suppresses wide bends nearly as much as the noise of single points.

    Args:
        places: N x 2.
        moves: N x K, the values to approximate.
        weight: N, relative weight of each point.
        smoothing: Smoothing parameter; independent of the number of points.
    """
    spline: PointMap = RBFInterpolator(places, moves, smoothing=_ridge(smoothing, weight), kernel="quintic", degree=2)
    return spline


def ridge_spline(places: Array, moves: Array, weight: Array, smoothing: float) -> PointMap:
    """Fit a thin-plate spline of second order, which grows only linearly far from the points."""
    spline: PointMap = RBFInterpolator(places, moves, smoothing=_ridge(smoothing, weight))
    return spline


def _ridge(smoothing: float, weight: Array) -> Array:
    """Ridge parameter of each point; equal to `smoothing` for a hundred points of equal weight."""
    return np.asarray(smoothing * weight.sum() / 100.0 / weight)


def tukey_weights(places: Array, moves: Array, weight: Array, smoothing: float) -> Array:
    """Reduce the weights of points far from a smooth surface through all points (Tukey's biweight); N."""
    prior = weight
    for _ in range(2):
        residual = np.hypot(*(smoothing_spline(places, moves, weight, smoothing)(places) - moves).T)
        ratio = residual / max(OUTLIER_MEDIANS * float(np.median(residual)), MIN_OUTLIER_PX)
        weight = prior * np.maximum(_biweight(ratio), MIN_WEIGHT)
    return weight


def leave_out_residuals(places: Array, moves: Array, weight: Array, smoothing: float, radius: float) -> Array:
    """Squared residual at each point of a spline fitted without the points within `radius` of it; N.

    A spline is linear in the moves, so none is fitted again: with the smoother matrix H and the residuals r, the
    residuals of left-out points G are (1 - H_GG)^-1 r_G.
    """
    matrix = smoothing_spline(places, np.eye(len(places)), weight, smoothing)(places)
    residual = moves - matrix @ moves
    squared = np.empty(len(places))
    for number, near in enumerate(cKDTree(places).query_ball_point(places, radius)):
        group = [number, *(other for other in near if other != number)]
        left_out = np.linalg.solve(np.eye(len(group)) - matrix[np.ix_(group, group)], residual[group])
        squared[number] = (left_out[0] ** 2).sum()
    return squared
