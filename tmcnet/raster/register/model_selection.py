"""Fit models of a displacement to tie points, of which some are wrong, and select one by cross-validation.

Whole parts of the scene are left out: errors of neighbouring tie points are correlated.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree
from skimage.measure import ransac
from skimage.transform import AffineTransform

from tmcnet.raster.io.files import BoolArray
from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.register.alignment import (
    IDENTITY,
    LATTICE_NODES,
    AffineMap,
    Array,
    LatticeMap,
    Model,
    displacements,
    distortion,
    on_lattice,
)
from tmcnet.seeding import generator

MODELS: tuple[Model, ...] = ("none", "shift", "affine", "quadratic", "thin_plate")  # from stiff to flexible
BENDING_MODELS: tuple[Model, ...] = ("quadratic", "thin_plate")
MIN_POINTS = {"none": 0, "shift": 4, "affine": 8, "quadratic": 16, "thin_plate": 24}
"""Minimum number of inliers for a model to be fitted."""
FOLDS = 5  # folds of the cross-validation, made of blocks of the scene
MIN_BLOCKS, MAX_BLOCKS = 3, 8  # number of blocks along the longer side of a scene
MIN_GAIN = 0.03  # minimum relative decrease of the held-out RMSE for a more flexible model
MIN_GAIN_OVER_IDENTITY = 0.1  # the same for any correction: matching errors of neighbouring windows are correlated
CORRELATION_LENGTH = 0.75
"""Matching errors are correlated up to this share of a block, 1.5 windows: windows and pooled surfaces overlap."""
OUTLIER_SMOOTHING = 0.001  # smoothing of the spline from which outliers are measured; see `SMOOTHING`
ANCHOR_DISTANCE = 1.5  # anchor a spline where no tie point is within this many steps of a coarse lattice
ANCHOR_SMOOTHING, ANCHOR_WEIGHT = 0.1, 0.05
"""Smoothing of the ridge spline that gives the anchors, and their weight relative to the median tie point."""
RANSAC_TRIALS = 1500
MAX_RANSAC_DISTORTION = 0.12  # images that share a georeference differ by little more than a shift
REWEIGHTING_ROUNDS = 12  # iterations of reweighted least squares; the weights converge well before
SMOOTHING = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Smoothing parameters of splines to choose from; coordinates are in halves of the scene's longer side. Smaller ones
are no better on any pair with checkpoints, but look better in cross-validation (benchmarks/README.md)."""
OUTLIER_MEDIANS, MIN_OUTLIER_PX = 4.0, 0.5
"""Tie points farther than this many median residuals, and pixels, from a smooth surface get no weight."""
MIN_WEIGHT = 1e-3  # replaces a weight of zero, since splines divide by it


@dataclass(frozen=True)
class Correspondences:
    """Inliers of a scene, to which models are fitted."""

    source: Array  # N x 2 points (x, y) on the common grid, in pixels
    target: Array  # N x 2 matching points
    weight: Array  # N, relative weight of each point
    shape: tuple[int, int]  # height and width of the scene
    block_px: float  # side of the blocks left out together, unless the scene has too few or too many of them
    # points nearer than this to a held-out point are not fitted to either, since errors of overlapping windows are
    # correlated
    buffer_px: float
    tolerance_px: float  # residual beyond which a point has no weight

    def subset(self, chosen: BoolArray) -> Correspondences:
        """The points with a flag."""
        return replace(self, source=self.source[chosen], target=self.target[chosen], weight=self.weight[chosen])

    @property
    def half_side_px(self) -> float:
        """Half of the scene's longer side."""
        return max(self.shape) / 2.0

    @property
    def scaled(self) -> tuple[Array, Array]:
        """Points in units of `half_side_px` about (1, 1), for splines; and displacements in pixels."""
        half = self.half_side_px
        return (self.source - half) / half, self.target - self.source

    @property
    def correlation_length(self) -> float:
        """Distance up to which matching errors are correlated, in units of `half_side_px`."""
        return CORRELATION_LENGTH * self.block_px / self.half_side_px


@dataclass(frozen=True)
class Candidate:
    """A model with its cross-validation error."""

    model: Model
    smoothing: float  # smoothing of the thin-plate spline; 0 for other models
    squared: Array  # N, squared held-out residual of each point in square pixels; infinite if too few points remained
    rmse_px: float  # their weighted root mean square


@dataclass(frozen=True)
class Selection:
    """The selected model, fitted to all points."""

    model: Model
    where: PointMap
    rmse_px: float  # held-out RMSE of the model, all points weighted equally
    identity_rmse_px: float  # the same without a correction


def select_model(points: Correspondences, allowed: Sequence[Model]) -> Selection:
    """Compare the allowed models and the identity by held-out RMSE, and fit the best to all points.

    A stiff model is kept unless a more flexible one is clearly better.
    """
    if len(points.source) >= MIN_POINTS["thin_plate"]:
        points = replace(points, weight=tukey_weights(*points.scaled, points.weight, OUTLIER_SMOOTHING))
    identity, *others = evaluate_candidates(points, allowed)
    best, (_, blocks) = identity, assign_folds(points)
    for candidate in others:
        if candidate.model == best.model:
            better = candidate.rmse_px < best.rmse_px
        else:
            better = _is_clearly_better(candidate, best, points.weight, blocks)
        best = candidate if better else best
    smoothing, squared = best.smoothing, best.squared
    if points.buffer_px and best.model == "thin_plate":
        # the stiffest spline whose held-out RMSE is close to the smallest
        splines = [candidate for candidate in others if candidate.model == "thin_plate"]
        limit = (1.0 + MIN_GAIN) * min(spline.rmse_px for spline in splines)
        smoothing = next(spline.smoothing for spline in splines if spline.rmse_px <= limit)
        radius = points.correlation_length / 2.0
        squared = leave_out_residuals(*points.scaled, points.weight, smoothing, radius)
    elif points.buffer_px:
        unbuffered = replace(points, buffer_px=0.0)
        squared = held_out_residuals(unbuffered, assign_folds(unbuffered)[0], best.model)
    rmse, identity_rmse = (float(np.sqrt(part.mean())) for part in (squared, identity.squared))
    return Selection(best.model, fit_model(points, best.model, smoothing), rmse, identity_rmse)


def _is_clearly_better(one: Candidate, stiffer: Candidate, weight: Array, blocks: npt.NDArray[np.int64]) -> bool:
    """Whether a model lowers the held-out RMSE by a margin and, if it bends, by more than one standard error.

    The standard error is that of the mean gain over blocks, because errors of neighbouring points are correlated
    (one-standard-error rule, Breiman et al., Classification and Regression Trees, 1984).
    """
    margin = MIN_GAIN_OVER_IDENTITY if stiffer.model == "none" else MIN_GAIN
    if not one.rmse_px < (1.0 - margin) * stiffer.rmse_px:
        return False
    if one.model not in BENDING_MODELS:
        return True
    gain = np.bincount(blocks, weight * (stiffer.squared - one.squared))
    share = np.bincount(blocks, weight) / weight.sum()
    mean = gain.sum()
    number = np.count_nonzero(share)
    variance = ((gain - share * mean) ** 2).sum() * number / max(number - 1, 1)
    return bool(mean > np.sqrt(variance))


def evaluate_candidates(points: Correspondences, allowed: Sequence[Model]) -> list[Candidate]:
    """Cross-validate each model, from stiff to flexible, the identity first."""
    folds, _ = assign_folds(points)
    candidates = []
    for model in MODELS:
        if model != "none" and (model not in allowed or len(points.source) < MIN_POINTS[model]):
            continue
        for smoothing in SMOOTHING[::-1] if model == "thin_plate" else (0.0,):
            squared = held_out_residuals(points, folds, model, smoothing)
            rmse = float(np.sqrt(np.average(squared, weights=points.weight)))
            candidates.append(Candidate(model, smoothing, squared, rmse))
    return candidates


def assign_folds(points: Correspondences) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number of the fold and of the block of each point; blocks of one fold are never neighbours."""
    longest = max(points.shape)
    side = np.clip(points.block_px, longest / MAX_BLOCKS, longest / MIN_BLOCKS)
    column, row = np.maximum(points.source // side, 0).astype(np.int64).T
    return np.asarray((column + 2 * row) % FOLDS), np.asarray(row * (column.max() + 1) + column)


def held_out_residuals(
    points: Correspondences, folds: npt.NDArray[np.int64], model: Model, smoothing: float = 0.0
) -> Array:
    """Squared residual in square pixels at each point, from a fit without its surroundings; N.

    Splines cannot bridge a bend within the hole of a fold, so they are fitted without the points around each whose
    errors are correlated: enough to show whether they follow errors.
    """
    infinite = np.full(len(points.source), np.inf)
    if model == "thin_plate" and points.buffer_px:
        (places, moves), radius = points.scaled, points.correlation_length
        near = cKDTree(places).query_ball_point(places, radius, return_length=True)
        if len(places) - near.max() < MIN_POINTS["thin_plate"]:
            return infinite
        return leave_out_residuals(places, moves, points.weight, smoothing, radius)
    squared = infinite.copy()
    for fold in np.unique(folds):
        test = folds == fold
        distance, _ = cKDTree(points.source[test]).query(points.source)
        train = ~test & (distance >= points.buffer_px)
        if train.sum() < MIN_POINTS[model]:
            if model in BENDING_MODELS or test.all():
                return infinite
            train = ~test
        where = _fit(points.subset(train), model, smoothing)
        squared[test] = ((where(points.source[test]) - points.target[test]) ** 2).sum(axis=1)
    return squared


def standard_error_px(points: Correspondences, model: Literal["shift", "affine"]) -> float:
    """Standard error of a map, root mean square over the scene, by the jackknife; infinite with too few points.

    Each fold of the cross-validation is left out in turn, because errors of neighbouring points are correlated (Efron
    and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11).
    """
    moves, (folds, _) = [], assign_folds(points)
    for fold in np.unique(folds):
        kept = points.subset(folds != fold)
        if len(kept.source) < MIN_POINTS[model]:
            return np.inf
        moves.append(displacements(_fit(kept, model, 0.0), points.shape))
    return float(np.sqrt((len(moves) - 1) * np.var(moves, axis=0).sum(axis=1).mean()))


def fit_model(points: Correspondences, model: Model, smoothing: float = 0.0) -> PointMap:
    """Fit a model to all points; bending models are sampled on a lattice."""
    where = _fit(_with_anchors(points) if model == "thin_plate" else points, model, smoothing)
    return where if isinstance(where, AffineMap) else LatticeMap(on_lattice(where, points.shape))


def _with_anchors(points: Correspondences) -> Correspondences:
    """Add points from a ridge spline far from all others, where a spline would diverge."""
    height, width = points.shape
    step = max(points.block_px / 2.0, max(height, width) / (LATTICE_NODES - 1))
    xs, ys = (np.arange(0.0, side + step, step) for side in (width, height))
    nodes = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    distance, _ = cKDTree(points.source).query(nodes)
    nodes = nodes[distance > ANCHOR_DISTANCE * step]
    ridge = _in_pixels(ridge_spline(*points.scaled, points.weight, ANCHOR_SMOOTHING), points)
    weight = np.full(len(nodes), ANCHOR_WEIGHT * float(np.median(points.weight)))
    source, target = np.vstack([points.source, nodes]), np.vstack([points.target, ridge(nodes)])
    return replace(points, source=source, target=target, weight=np.concatenate([points.weight, weight]))


def _fit(points: Correspondences, model: Model, smoothing: float) -> PointMap:
    if model == "none":
        return AffineMap(IDENTITY)
    if model == "shift" or model == "affine":
        return AffineMap(robust_affine(points.source, points.target, points.weight, points.tolerance_px, model))
    if model == "quadratic":
        return _in_pixels(quadratic(*points.scaled, points.weight), points)
    return _in_pixels(smoothing_spline(*points.scaled, points.weight, smoothing), points)


def _in_pixels(displacement: PointMap, points: Correspondences) -> PointMap:
    """The map of a displacement over points in the units of `Correspondences.scaled`."""
    half = points.half_side_px
    return lambda places: np.asarray(places + displacement((places - half) / half))


def ransac_inliers(source: Array, target: Array, threshold_px: float) -> BoolArray:
    """Find the tie points, N x 2 each, that fit one affine map, by RANSAC; all false without one."""

    def is_plausible(model: AffineTransform, *_: Array) -> bool:
        return bool(np.isfinite(model.params).all() and distortion(model.params[:2]) < MAX_RANSAC_DISTORTION)

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
            is_model_valid=is_plausible,
            max_trials=RANSAC_TRIALS,
            rng=generator(0, "coregister ransac"),
        )
    return none if model is None or inliers is None else np.asarray(inliers, dtype=bool)


def robust_affine(
    source: Array,
    target: Array,
    weight: Array,
    tolerance_px: float,
    model: Literal["shift", "affine"] = "affine",
    start: BoolArray | None = None,
) -> Array:
    """Fit a shift or an affine map (2 x 3) by iteratively reweighted least squares with Tukey's biweight.

    Points, N x 2, have a prior weight, and none beyond a residual of `tolerance_px`; those of `start` come first.
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
    name, suppresses wide bends nearly as much as the noise of single points. `places` are N x 2, `moves` N x K;
    `smoothing` does not depend on the number of points.
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
