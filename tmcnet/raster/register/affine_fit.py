"""Fit a shift or an affine model to displacements of which many are wrong."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
from skimage.measure import ransac
from skimage.transform import AffineTransform

from tmcnet.seeding import generator

Array = npt.NDArray[np.float64]
Model = Literal["none", "shift", "affine", "quadratic", "thin_plate"]

IDENTITY: Array = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
ROUNDS = 12
"""Rounds of reweighting; the weights no longer change well before."""


def apply(matrix: Array, points: Array) -> Array:
    """Map N x 2 points (x, y) by a 2 x 3 matrix."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def consensus(source: Array, target: Array, threshold: float) -> npt.NDArray[np.bool_]:
    """Which pairs of points agree with one affine model, found by RANSAC with a fixed seed.

    Args:
        source: N x 2 points.
        target: N x 2, where they were found.
        threshold: Largest residual of an agreeing pair in pixels.

    Returns:
        N flags; none set where no model could be found.
    """
    nobody = np.zeros(len(source), dtype=bool)
    if len(source) < 4:
        return nobody
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # samples on a line are simply passed over
        model, inliers = ransac(
            (source, target),
            AffineTransform,
            min_samples=3,
            residual_threshold=threshold,
            is_model_valid=_plausible,
            max_trials=1500,
            rng=generator(0, "coregister ransac"),
        )
    return nobody if model is None or inliers is None else np.asarray(inliers, dtype=bool)


def _plausible(model: AffineTransform, *_: Array) -> bool:
    """Images that share a georeference differ by little more than a shift."""
    return bool(np.isfinite(model.params).all() and distortion(model.params[:2]) < 0.12)


def distortion(matrix: Array) -> float:
    """Largest change of the length of a vector by the linear part, as a share."""
    return float(np.linalg.norm(matrix[:, :2] - np.eye(2), 2))


def refine(
    source: Array, target: Array, start: npt.NDArray[np.bool_], trust: Array, threshold: float, model: Model
) -> Array:
    """Least squares fit, reweighted so that far-off points lose their say (Tukey's biweight).

    Args:
        source: N x 2 points.
        target: N x 2, where they were found.
        start: The points to begin with.
        trust: N, weight of each point before its residual is known.
        threshold: Residual in pixels beyond which a point has no weight.
        model: `affine`, `shift` or `none`.

    Returns:
        2 x 3 matrix from source to target.
    """
    weights = trust * start
    matrix = IDENTITY
    for _ in range(ROUNDS):
        matrix = _fit(source, target, weights, model)
        share = np.hypot(*(apply(matrix, source) - target).T) / threshold
        weights = trust * np.where(share < 1, (1 - share**2) ** 2, 0.0)
        if np.count_nonzero(weights) < 4:
            break
    return matrix


def _fit(source: Array, target: Array, weights: Array, model: Model) -> Array:
    """Weighted least squares."""
    if model == "none":
        return IDENTITY
    if model == "shift":
        shift = (weights[:, None] * (target - source)).sum(axis=0) / max(float(weights.sum()), 1e-9)
        return np.column_stack([np.eye(2), shift])
    centre = source.mean(axis=0)
    design = np.column_stack([source - centre, np.ones(len(source))]) * np.sqrt(weights)[:, None]
    solution = np.linalg.lstsq(design, (target - source) * np.sqrt(weights)[:, None], rcond=None)[0]
    linear = solution[:2].T
    return np.column_stack([np.eye(2) + linear, solution[2] - linear @ centre])
