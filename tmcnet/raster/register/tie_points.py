"""Tie points between two images: match windows on a grid, keep reliable matches, and find the inliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from tmcnet.raster.io.files import BoolArray, FloatArray
from tmcnet.raster.io.windowed import Image, PointMap, Warped
from tmcnet.raster.register import matching
from tmcnet.raster.register.alignment import IDENTITY, AffineMap, Array, at_scale, distortion
from tmcnet.raster.register.matching import Points, Window
from tmcnet.raster.register.model_selection import Correspondences, fit_model, ransac_inliers, robust_affine

MAX_GRID_POINTS = 2000  # more points cost time and no longer improve precision
MIN_PEAK_RATIO = 1.1  # minimum ratio of the highest correlation peak to the second-highest of a reliable match
MIN_CORRELATION = 0.06  # minimum correlation of a reliable match
MAX_ROUND_TRIP_PX = 1.5  # maximum distance from a point to where matching forward and backward leads
POOLED_WEIGHT = 0.5  # weight of a match from pooled surfaces relative to one from its own surface
MAX_POOLED_DIFFERENCE_PX = 0.75  # reject matches that differ more than this from the match of the pooled surfaces

NEIGHBOURS = 8  # neighbours whose median displacement a point is compared with
MIN_CONSISTENT_POINTS = NEIGHBOURS + 2  # with fewer consistent points there are no inliers
SURFACE_SMOOTHING = 0.005  # smoothing of the spline through the inliers; see `SMOOTHING`
MAX_BENDING_PX = 12.0
"""Largest distance of an inlier from the affine map; relief and orbit errors do not bend a scene more."""

MIN_TIE_POINTS = 12  # minimum number of tie points, and of inliers, to accept a correction
MIN_INLIER_SHARE = 0.3  # minimum share of inliers among the tie points
MIN_CHANCE_RATIO = 2.5  # minimum ratio of inliers to those with the SAR image rotated by 180 degrees
MAX_DISTORTION = 0.07
"""Maximum relative change of length: the search range (2 degrees and 3 % make 0.046) and some bending."""
CONFIDENT_INLIER_RATIO, MAX_CONFIDENT_DISTORTION = 10.0, 0.12
"""With this ratio of inliers to those expected by chance a larger distortion is accepted; relief may add to it."""


@dataclass(frozen=True)
class Level:
    """Settings of one level of the image pyramid."""

    scale: int  # reduction factor of the images
    spacing: int  # distance between grid points in reduced pixels
    window: Window  # windows to match, in reduced pixels
    tolerance_px: float  # largest residual of an inlier, in full-resolution pixels


@dataclass(frozen=True)
class TiePoints:
    """Reliable matches."""

    source: Array  # N x 2 points (x, y) on the common grid, in pixels
    target: Array  # N x 2 matching points of the moving image
    weight: Array  # N, relative weight in fits
    inlier: BoolArray  # n flags, whether a point is displaced like its neighbours
    affine: Array  # 2 x 3, affine map through the inliers; the identity if they are too few

    @property
    def n_inliers(self) -> int:
        """Number of inliers."""
        return int(self.inlier.sum())

    def rows(self) -> list[list[float]]:
        """Points as [x, y, dx, dy, inlier]."""
        table = np.column_stack([self.source, self.target - self.source, self.inlier])
        return [[float(value) for value in row] for row in table]

    def correspondences(self, shape: tuple[int, int], level: Level) -> Correspondences:
        """The inliers of a scene of height x width for model selection."""
        window_px = float(level.window.side * level.scale)
        # on coarse levels a model only guides the next level; only the finest excludes overlapping windows
        buffer_px = window_px if level.scale == 1 else 0.0
        source, target, weight = (part[self.inlier] for part in (self.source, self.target, self.weight))
        return Correspondences(source, target, weight, shape, 2.0 * window_px, buffer_px, 2.0 * level.tolerance_px)


def point_grid(shape: tuple[int, int], spacing: int) -> Points:
    """Points on a regular grid: N x 2, x and y in whole pixels, sorted by y."""
    height, width = shape
    step = max(spacing, int(np.ceil(np.sqrt(height * width / MAX_GRID_POINTS))))
    xs, ys = (np.arange(min((side % step + step) // 2, side // 2), side, step) for side in (width, height))
    return np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.int64)


def find_tie_points(
    reference: Image, moving: Image, where: PointMap, level: Level, threads: int = 1, pool: bool = False
) -> TiePoints:
    """Match a grid of windows forward and backward after warping the moving image by a known map.

    Both images are reduced by `level.scale`; the map is in full-resolution pixels. With `pool`, the pooled surfaces
    of neighbours count too: where a point has no reliable match, or one that differs.
    """
    _, height, width = reference.shape
    scale, offset = level.scale, (level.scale - 1) / 2.0
    grid = point_grid((height, width), level.spacing)
    warped = Warped(moving, at_scale(where, scale))
    surfaces = matching.correlation_surfaces(reference, warped, grid, level.window, threads)
    reliable, step, weight = _two_way_matches(*surfaces)
    if pool:
        pooled, pooled_step, pooled_weight = _two_way_matches(*(pool_surfaces(each, grid) for each in surfaces))
        differ = reliable & pooled & (np.hypot(*(step - pooled_step).T) > MAX_POOLED_DIFFERENCE_PX)
        step[~reliable], weight[~reliable] = pooled_step[~reliable], POOLED_WEIGHT * pooled_weight[~reliable]
        reliable = (reliable | pooled) & ~differ
    source = grid[reliable].astype(np.float64) * scale + offset
    target = where(source + scale * step[reliable])
    return find_inliers(source, target, weight[reliable], (height * scale, width * scale), level.tolerance_px)


def _two_way_matches(forward: FloatArray, backward: FloatArray) -> tuple[BoolArray, Array, Array]:
    """Whether the match of each point is reliable, its displacement (N x 2) and its weight."""
    one, two = matching.find_peaks(forward), matching.find_peaks(backward)
    round_trip = np.nan_to_num(np.hypot(one.dx + two.dx, one.dy + two.dy), nan=np.inf)
    reliable = round_trip < MAX_ROUND_TRIP_PX
    for matches in (one, two):
        reliable &= np.isfinite(matches.dx) & (matches.ratio >= MIN_PEAK_RATIO) & (matches.peak >= MIN_CORRELATION)
    step = np.stack([one.dx - two.dx, one.dy - two.dy], axis=1).astype(np.float64) / 2.0
    return reliable, step, np.minimum(one.peak, two.peak).astype(np.float64) ** 2


def pool_surfaces(surfaces: FloatArray, points: Points) -> FloatArray:
    """Average each surface (N x S x S) with those of its eight neighbours, like a window twice as wide."""
    known = np.flatnonzero(np.isfinite(surfaces).all(axis=(1, 2)))
    mean = np.full_like(surfaces, np.nan)
    if not len(known):
        return mean
    step = float(np.abs(np.diff(points, axis=0)).max(axis=1).min())
    for number, near in enumerate(cKDTree(points[known]).query_ball_point(points, 1.5 * step)):
        chosen = known[near]
        weight = np.prod(1.0 - np.abs(points[chosen] - points[number]) / (2.0 * step), axis=1)
        if weight.sum() >= 1.0:
            mean[number] = np.tensordot(weight / weight.sum(), surfaces[chosen], axes=1)
    return mean


def find_inliers(
    source: Array, target: Array, weight: Array, shape: tuple[int, int], tolerance_px: float
) -> TiePoints:
    """Find the points (`source`, N x 2) that are displaced like their neighbours.

    They are at most `tolerance_px` from a smooth surface through the inliers. Weights are only for later fits.
    """
    none, equal = np.zeros(len(source), dtype=bool), np.ones(len(source))
    start = ransac_inliers(source, target, 2.0 * tolerance_px)
    if start.sum() < MIN_CONSISTENT_POINTS:
        return TiePoints(source, target, weight, none, IDENTITY)
    affine = robust_affine(source, target, equal, MAX_BENDING_PX, start=start)
    residual = target - AffineMap(affine)(source)
    bounded = np.hypot(*residual.T) < MAX_BENDING_PX + tolerance_px
    # the median of neighbours is robust but coarse, a surface is precise: first one, then the other
    median = _neighbour_median(source, residual, bounded)
    inlier = bounded & (np.hypot(*(residual - median).T) < 1.5 * tolerance_px)
    for _ in range(2):
        if inlier.sum() < MIN_CONSISTENT_POINTS:
            return TiePoints(source, target, weight, inlier, IDENTITY)
        points = Correspondences(source[inlier], target[inlier], equal[inlier], shape, 0.0, 0.0, 2.0 * tolerance_px)
        surface = fit_model(points, "thin_plate", SURFACE_SMOOTHING)
        inlier = bounded & (np.hypot(*(surface(source) - target).T) < tolerance_px)
    affine = robust_affine(source, target, equal, MAX_BENDING_PX, start=inlier)
    return TiePoints(source, target, weight, inlier, affine)


def _neighbour_median(source: Array, residual: Array, valid: BoolArray) -> Array:
    """Median residual of the nearest valid points, without the point itself: N x 2."""
    _, near = cKDTree(source[valid]).query(source, k=NEIGHBOURS + 1)
    index = np.flatnonzero(valid)[near]
    others = np.where(index == np.arange(len(source))[:, None], index[:, -1:], index)[:, :NEIGHBOURS]
    return np.asarray(np.median(residual[others], axis=1))


def rejection_reason(points: TiePoints, shape: tuple[int, int], max_shift_px: float, chance_inliers: int) -> str:
    """Explain why tie points are rejected; empty if not. `chance_inliers` is 0 if that was checked before."""
    n, inliers = len(points.source), points.n_inliers
    if n < MIN_TIE_POINTS:
        return f"only {n} reliable tie points, {MIN_TIE_POINTS} are needed"
    if inliers < max(MIN_TIE_POINTS, MIN_INLIER_SHARE * n):
        return f"only {inliers} of {n} tie points are inliers"
    if inliers < MIN_CHANCE_RATIO * chance_inliers:
        return f"{inliers} inliers, but {chance_inliers} with the SAR image rotated by 180 degrees"
    confident = inliers >= CONFIDENT_INLIER_RATIO * max(chance_inliers, MIN_CONSISTENT_POINTS)
    limit, found = MAX_CONFIDENT_DISTORTION if confident else MAX_DISTORTION, distortion(points.affine)
    if found > limit:
        return f"the tie points imply a distortion of {found:.1%}, more than {limit:.0%} for georeferenced images"
    centre = np.array([[shape[1] - 1, shape[0] - 1]]) / 2.0
    shift = float(np.hypot(*(AffineMap(points.affine)(centre) - centre)[0]))
    if shift > 1.5 * max_shift_px:
        return f"the tie points imply a shift of {shift:.1f} px, beyond the search radius of {max_shift_px:g} px"
    return ""
