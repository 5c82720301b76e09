"""Select the model of a displacement by cross-validation, leaving out whole parts of the scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from tmcnet.raster.io.files import BoolArray
from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.register import fits
from tmcnet.raster.register.deformation import (
    IDENTITY,
    LATTICE_NODES,
    AffineMap,
    Array,
    LatticeMap,
    Model,
    on_lattice,
)

MODELS: tuple[Model, ...] = ("none", "shift", "affine", "quadratic", "thin_plate")
"""From stiff to flexible."""
BENDING_MODELS: tuple[Model, ...] = ("quadratic", "thin_plate")
MIN_POINTS = {"none": 0, "shift": 4, "affine": 8, "quadratic": 16, "thin_plate": 24}
"""Minimum number of inliers for a model to be fitted."""
FOLDS = 5
"""Folds of the cross-validation, made of blocks of the scene."""
MIN_BLOCKS, MAX_BLOCKS = 3, 8
"""Number of blocks along the longer side of a scene."""
MIN_GAIN = 0.03
"""Minimum relative decrease of the held-out RMSE for a more flexible model."""
MIN_GAIN_OVER_IDENTITY = 0.1
"""The same for any correction: matching errors of neighbouring windows are correlated."""
CORRELATION_LENGTH = 0.75
"""Matching errors are correlated up to this share of a block, 1.5 windows: windows and pooled surfaces overlap."""
OUTLIER_SMOOTHING = 0.001
"""Smoothing of the spline from which outliers are measured; see `fits.SMOOTHING`."""
ANCHOR_DISTANCE = 1.5
"""Anchor a spline where no tie point is within this many steps of a coarse lattice."""
ANCHOR_SMOOTHING, ANCHOR_WEIGHT = 0.1, 0.05
"""Smoothing of the ridge spline that gives the anchors, and their weight relative to the median tie point."""


@dataclass(frozen=True)
class Correspondences:
    """Inliers of a scene, to which models are fitted.

    Attributes:
        source: N x 2 points (x, y) on the common grid, in pixels.
        target: N x 2 matching points.
        weight: N, relative weight of each point.
        shape: Height and width of the scene.
        block_px: Side of the blocks left out together, unless the scene has too few or too many of them.
        buffer_px: Points nearer than this to a held-out point are not fitted to either, since errors of overlapping
            windows are correlated.
        tolerance_px: Residual beyond which a point has no weight.
    """

    source: Array
    target: Array
    weight: Array
    shape: tuple[int, int]
    block_px: float
    buffer_px: float
    tolerance_px: float

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
    """A model with its cross-validation error.

    Attributes:
        model: The model.
        smoothing: Smoothing of the thin-plate spline; 0 for other models.
        squared: N, squared held-out residual of each point in square pixels; infinite if too few points remained.
        rmse_px: Their weighted root mean square.
    """

    model: Model
    smoothing: float
    squared: Array
    rmse_px: float


@dataclass(frozen=True)
class Selection:
    """The selected model, fitted to all points.

    Attributes:
        model: The model.
        where: Its map.
        rmse_px: Held-out RMSE of the model, all points weighted equally.
        identity_rmse_px: The same without a correction.
    """

    model: Model
    where: PointMap
    rmse_px: float
    identity_rmse_px: float


def select_model(points: Correspondences, allowed: Sequence[Model]) -> Selection:
    """Compare the allowed models and the identity by held-out RMSE, and fit the best to all points.

    A stiff model is kept unless a more flexible one is clearly better.
    """
    if len(points.source) >= MIN_POINTS["thin_plate"]:
        points = replace(points, weight=fits.tukey_weights(*points.scaled, points.weight, OUTLIER_SMOOTHING))
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
        squared = fits.leave_out_residuals(*points.scaled, points.weight, smoothing, radius)
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
        for smoothing in fits.SMOOTHING[::-1] if model == "thin_plate" else (0.0,):
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

    Stiff models are fitted without the fold of a point and the buffer around it. Splines cannot bridge a bend within
    such a hole, however well they would follow it, so they are fitted without the points around each whose errors are
    correlated: enough to show whether they follow errors.
    """
    infinite = np.full(len(points.source), np.inf)
    if model == "thin_plate" and points.buffer_px:
        (places, moves), radius = points.scaled, points.correlation_length
        near = cKDTree(places).query_ball_point(places, radius, return_length=True)
        if len(places) - near.max() < MIN_POINTS["thin_plate"]:
            return infinite
        return fits.leave_out_residuals(places, moves, points.weight, smoothing, radius)
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
    ridge = _in_pixels(fits.ridge_spline(*points.scaled, points.weight, ANCHOR_SMOOTHING), points)
    weight = np.full(len(nodes), ANCHOR_WEIGHT * float(np.median(points.weight)))
    source, target = np.vstack([points.source, nodes]), np.vstack([points.target, ridge(nodes)])
    return replace(points, source=source, target=target, weight=np.concatenate([points.weight, weight]))


def _fit(points: Correspondences, model: Model, smoothing: float) -> PointMap:
    if model == "none":
        return AffineMap(IDENTITY)
    if model == "shift" or model == "affine":
        return AffineMap(fits.robust_affine(points.source, points.target, points.weight, points.tolerance_px, model))
    if model == "quadratic":
        return _in_pixels(fits.quadratic(*points.scaled, points.weight), points)
    return _in_pixels(fits.smoothing_spline(*points.scaled, points.weight, smoothing), points)


def _in_pixels(displacement: PointMap, points: Correspondences) -> PointMap:
    """The map of a displacement over points in the units of `Correspondences.scaled`."""
    half = points.half_side_px
    return lambda places: np.asarray(places + displacement((places - half) / half))
