"""Estimate the misregistration of a SAR image and an optical one, from coarse to fine."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage

from tmcnet.config import AlignConfig
from tmcnet.raster.io.blocks import log_line
from tmcnet.raster.io.files import FloatArray
from tmcnet.raster.io.windowed import ArrayImage, Image, PointMap, Reduced, Warped, as_image, in_memory
from tmcnet.raster.register import matching
from tmcnet.raster.register.alignment import (
    IDENTITY,
    AffineMap,
    Alignment,
    Array,
    at_full_scale,
    displacements,
    on_lattice,
    rotation_and_scale,
)
from tmcnet.raster.register.matching import Window
from tmcnet.raster.register.model_selection import (
    BENDING_MODELS,
    Correspondences,
    Selection,
    select_model,
    standard_error_px,
)
from tmcnet.raster.register.tie_points import (
    MIN_TIE_POINTS,
    Level,
    TiePoints,
    find_tie_points,
    point_grid,
    rejection_reason,
)

WINDOW_PX = 64  # side of the windows matched around tie points
SPACING_PX = 32  # distance between the windows
MAX_RESIDUAL_PX = 2.0  # largest residual of an inlier at full resolution; relief makes up much of it
GLOBAL_SEARCH_SIDE_PX = 256  # the global search runs on images reduced to this side
ROTATIONS_DEGREES, SCALES = (0.0, -1.0, 1.0, -2.0, 2.0), (1.0, 0.98, 1.02)
"""Rotations and scales of the global search; tie points find what is between and slightly beyond."""
MIN_VALID_SHARE = 0.25  # minimum share of the reduced image that is valid in both images at a shift
COARSEST_SIDE_PX = 512  # the coarsest level of tie points has images reduced to this side
MAX_LEVEL_RATIO = 4  # maximum ratio of the resolutions of consecutive levels
POOLED_PASSES = 2  # additional passes at full resolution for models that bend
IN_MEMORY_MAX_SIDE_PX = 2400  # images up to this side are kept in memory

MIN_OVERLAP = 0.02  # minimum share of pixels valid in both images
MIN_CORRECTION_PX = 1.0
"""A smaller correction (RMS at the inliers) is not made: the inliers share errors of up to a pixel, such as the side
from which the radar sees walls and slopes, that held-out ones do not show (benchmarks/README.md)."""
MAX_IN_PLACE_RMSE_PX = 3.0
"""Without a correction, images are in place if their inliers are displaced by no more than this (RMSE)."""
MAX_PEAK_DISTANCE_PX, MIN_IN_PLACE_RATIO, MIN_SHIFTED_RATIO = 2.25, 1.4, 2.0
"""Without inliers they are if the mean correlation of all windows peaks this near to zero shift at full and at half
resolution, at one of them the first ratio times as high as elsewhere. The SAR image is shifted if the peaks are this
near to each other, at both the second ratio times as high. Unrelated pairs do neither (benchmarks/README.md)."""
COMMON_PEAK_RADIUS_PX = 16  # largest common shift
BACKGROUND_SIGMA_PX = 3.0  # shores and clouds make slopes and humps wider than this in the mean correlation
MIN_STANDARD_ERRORS = 2.78
"""A correction of fewer of its standard errors (RMS over the scene) is within its uncertainty: 97.5 % quantile of
Student's t with four degrees of freedom, from a jackknife over five folds."""
MIN_SIGN_TEST_Z = 1.645  # a correction raises the similarity of more than half of the windows (one-sided, 5 %)
MAX_HELD_OUT_RMSE_PX = 2.2
"""Reject a model with a larger held-out RMSE: true pairs have at most 1.8, the best unrelated pair 2.7
(benchmarks/README.md)."""


class _Pair:
    """Both images at any resolution, and the settings; small enough copies are kept in memory."""

    def __init__(self, reference: Image, moving: Image, config: AlignConfig, threads: int) -> None:
        self.config, self.threads = config, threads
        _, height, width = reference.shape
        self.shape = height, width
        self._copies = {1: (reference, moving)}
        self._in_memory_scale = 1
        while max(self.shape) / self._in_memory_scale > IN_MEMORY_MAX_SIDE_PX:
            self._in_memory_scale *= 2

    def reduced(self, scale: int) -> tuple[Image, Image]:
        """Both images reduced by a power of two, from a copy in memory if there is one."""
        if scale not in self._copies:
            finer = self._in_memory_scale if scale > self._in_memory_scale else 1
            one, two = (Reduced(image, scale // finer) for image in self.reduced(finer))
            keep = scale >= self._in_memory_scale
            self._copies[scale] = (in_memory(one), in_memory(two)) if keep else (one, two)
        return self._copies[scale]


def estimate(
    reference: FloatArray | Image, moving: FloatArray | Image, config: AlignConfig | None = None, threads: int = 1
) -> Alignment:
    """Estimate where the content of each optical pixel is in the SAR image.

    Args:
        reference: Optical image, C x H x W or H x W in any units with NaN for no data, or an image read by windows.
        moving: SAR image on the same grid, backscatter in dB. Values that are never negative are taken for amplitudes
            or powers.
        config: Search range and allowed models.
        threads: Number of threads; the result does not depend on it.

    Returns:
        The correction, or the reason why there is none.

    Raises:
        ValueError: If the two images differ in height or width.

    Example:
        >>> alignment = estimate(optical, sar)
        >>> corrected = warp(sar, alignment.where)
    """
    one, two = as_image(reference), as_image(moving)
    if one.shape[1:] != two.shape[1:]:
        raise ValueError(f"the images must share one grid, but are {one.shape[1:]} and {two.shape[1:]} pixels")
    pair = _Pair(one, two, config or AlignConfig(), threads)
    levels = _levels(pair)
    small = np.concatenate([in_memory(image).array for image in pair.reduced(levels[0].scale)])
    if np.isfinite(small).all(axis=0).mean() < MIN_OVERLAP or min(pair.shape) < WINDOW_PX:
        reason = f"the images overlap by less than {MIN_OVERLAP:.0%}, or are smaller than {WINDOW_PX} px"
        return Alignment("rejected", reason)
    return _register(pair, levels)


def warp(image: FloatArray, where: PointMap) -> FloatArray:
    """Resample an image, C x H x W, through a map from the pixels (x, y) of the result to its own."""
    return Warped(ArrayImage(image), where).read(0, 0, *image.shape[1:])


def _levels(pair: _Pair) -> list[Level]:
    scale = 2 if min(pair.shape) >= 4 * WINDOW_PX else 1
    while max(pair.shape) / scale > COARSEST_SIDE_PX:
        scale *= 2
    coarse_radius = int(np.clip(pair.config.max_shift / scale + 4, 8, 14))
    forms = [(scale, coarse_radius, 1.5 * max(MAX_RESIDUAL_PX, scale))]
    while len(forms) == 1 or scale > 1:
        scale = max(1, scale // MAX_LEVEL_RATIO)
        forms.append((scale, 6, MAX_RESIDUAL_PX if scale == 1 else 1.5 * scale))
    return [Level(s, max(8, SPACING_PX // s), Window(WINDOW_PX, radius), most) for s, radius, most in forms]


def _register(pair: _Pair, levels: list[Level]) -> Alignment:
    """Refine a global map level by level, then pass twice more over models that bend."""
    where: PointMap = _initial_map(pair, levels[0])
    chance_inliers = _chance_inliers(pair, levels[0])
    selection: Selection | None = None
    for number, level in enumerate([*levels, *[levels[-1]] * POOLED_PASSES]):
        pool = number >= len(levels)
        if pool and selection and selection.model not in BENDING_MODELS:
            break
        # bending within a window blurs its correlation: the next pass matches with the bend removed
        points = find_tie_points(*pair.reduced(level.scale), where, level, pair.threads, pool)
        log_line(f"scale 1/{level.scale}: {points.n_inliers} of {len(points.source)} tie points are inliers")
        if reason := rejection_reason(points, pair.shape, pair.config.max_shift, chance_inliers):
            return _uncorrected(pair, reason, points)
        inliers = points.correspondences(pair.shape, level)
        selection = select_model(inliers, pair.config.models)
        where, chance_inliers = selection.where, 0
    assert selection
    return _decide(pair, points, inliers, selection)


def _initial_map(pair: _Pair, level: Level) -> AffineMap:
    scale = level.scale
    while max(pair.reduced(level.scale)[0].shape[1:]) * level.scale / scale > GLOBAL_SEARCH_SIDE_PX:
        scale *= 2
    return global_search(*pair.reduced(scale), scale, pair.config.max_shift)


def _chance_inliers(pair: _Pair, level: Level) -> int:
    """Number of inliers without common content: with the SAR image rotated by 180 degrees."""
    reference, moving = pair.reduced(level.scale)
    rotated = ArrayImage(np.ascontiguousarray(in_memory(moving).array[:, ::-1, ::-1]))
    where = global_search(reference, rotated, level.scale, pair.config.max_shift, shift_only=True)
    return find_tie_points(reference, rotated, where, level, pair.threads).n_inliers


def global_search(
    reference: Image, moving: Image, scale: int, max_shift_px: float, shift_only: bool = False
) -> AffineMap:
    """Find the shift, rotation and scaling of highest correlation of two images reduced by `scale`.

    The map is in full-resolution pixels; it is the identity if nothing can be compared.
    """
    search_radius = int(np.ceil(max_shift_px / scale)) + 2
    _, height, width = reference.shape
    side = max(height, width)
    wide = side + 2 * search_radius
    channels, valid = matching.describe(
        reference.read(0, 0, side, side), matching.image_scaling(reference, sar=False)
    )
    template, scaling = (channels[None], valid[None]), matching.image_scaling(moving, sar=True)
    best, matrix = -np.inf, IDENTITY
    for degrees, zoom in [(0.0, 1.0)] if shift_only else product(ROTATIONS_DEGREES, SCALES):
        linear = rotation_and_scale(degrees, zoom, height, width)
        window = Warped(moving, AffineMap(linear)).read(-search_radius, -search_radius, wide, wide)
        channels, valid = matching.describe(window, scaling)
        surface = matching.correlate(template, (channels[None], valid[None]), MIN_VALID_SHARE)
        found = matching.find_peaks(np.where(np.isfinite(surface), surface, -1.0).astype(np.float32))
        if np.isfinite(found.dx[0]) and found.peak[0] > best:
            best, shift = found.peak[0], np.array([found.dx[0], found.dy[0]], dtype=np.float64)
            matrix = np.column_stack([linear[:, :2], linear[:, :2] @ shift + linear[:, 2]])
    return AffineMap(at_full_scale(matrix, scale))


def _decide(pair: _Pair, points: TiePoints, inliers: Correspondences, selection: Selection) -> Alignment:
    """Accept the selected model if it corrects something, has a small held-out RMSE and raises the similarity."""
    rmse, before, model = selection.rmse_px, selection.identity_rmse_px, selection.model
    at_inliers, moved = (
        float(np.sqrt((moves**2).sum(axis=1).mean()))
        for moves in (selection.where(inliers.source) - inliers.source, displacements(selection.where, pair.shape))
    )
    if model == "none":
        reason = "no model has a clearly lower held-out RMSE than no correction"
    elif at_inliers < MIN_CORRECTION_PX:
        reason = f"the correction at the inliers is {at_inliers:.2f} px (RMS), below {MIN_CORRECTION_PX:g} px"
    elif rmse > MAX_HELD_OUT_RMSE_PX:
        reason = f"held-out RMSE of the best model is {rmse:.1f} px, above {MAX_HELD_OUT_RMSE_PX:g} px"
    else:
        reason = ""
    if reason:
        return _uncorrected(pair, reason, points, before)
    # bending models are selected by the standard error of their gain
    error = standard_error_px(inliers, model) if model == "shift" or model == "affine" else 0.0
    # inliers that are displaced, but not where the images are more similar, are wrong
    trusted = before if before <= MAX_IN_PLACE_RMSE_PX else None
    correction = f"a correction of {moved:.1f} px (RMS)"
    if moved < MIN_STANDARD_ERRORS * error:
        reason = f"{correction} is within its uncertainty, a standard error of {error:.1f} px"
        return _uncorrected(pair, reason, points, trusted)
    gain, z = _similarity_gain(pair, selection.where)
    if z < MIN_SIGN_TEST_Z:
        reason = f"{correction} does not clearly raise the similarity of the images"
        return _uncorrected(pair, reason, points, trusted)
    reason = (
        f"held-out RMSE {rmse:.2f} px with the {model.replace('_', '-')} model ({before:.2f} px without correction); "
        f"similarity of the images rose by {gain:.3f}"
    )
    matrix = selection.where.matrix.tolist() if isinstance(selection.where, AffineMap) else None
    nodes = on_lattice(selection.where, pair.shape).tolist() if matrix is None else []
    return Alignment("aligned", reason, points.rows(), rmse, model, matrix, nodes)


def _uncorrected(pair: _Pair, reason: str, points: TiePoints, rmse_px: float | None = None) -> Alignment:
    """The georeference as delivered: kept if the images match in place, rejected if not.

    Inliers show it by the RMSE of their displacements, `rmse_px`; without them (None) all windows together do.
    """
    if rmse_px is None:
        shifts, ratios = _common_peaks(pair)
        from_zero, apart = np.hypot(*shifts.T).max(), np.hypot(*(shifts[0] - shifts[1]))
        in_place = from_zero <= MAX_PEAK_DISTANCE_PX and ratios.max() >= MIN_IN_PLACE_RATIO
        peak = f"peaks {from_zero:.1f} px from zero, {ratios.max():.2f} times as high as elsewhere"
        evidence = f"the mean correlation of all windows {peak if np.isfinite(from_zero) else 'has no peak'}"
        # a shift that many inliers do not show is none
        may_shift = "shift" in pair.config.models and points.n_inliers < MIN_TIE_POINTS and not in_place
        if may_shift and apart <= MAX_PEAK_DISTANCE_PX and ratios.min() >= MIN_SHIFTED_RATIO:
            matrix = np.column_stack([np.eye(2), shifts[0]]).tolist()
            return Alignment("aligned", f"{reason}; {evidence}", points.rows(), None, "shift", matrix)
    else:
        in_place, evidence = rmse_px <= MAX_IN_PLACE_RMSE_PX, f"inliers are displaced by {rmse_px:.2f} px (RMSE)"
    reason += f"; the images {'match' if in_place else 'do not match'} in place: {evidence}"
    if not in_place:
        return Alignment("rejected", reason, points.rows())
    return Alignment("already_aligned", reason, points.rows(), rmse_px)


def _common_peaks(pair: _Pair) -> tuple[Array, Array]:
    """Highest peak of the mean correlation of all windows: its shift (x, y) in pixels, 2 x 2, and its ratio, 2.

    It shows a match that is too weak for single windows. The first is of full and the second of half resolution, with
    less speckle: by chance both are rarely near zero or each other. Without a peak the shift is NaN.
    """
    found = []
    for scale in (1, 2):
        reference, moving = pair.reduced(scale)
        grid = point_grid((reference.shape[1], reference.shape[2]), SPACING_PX // scale)
        window = Window(WINDOW_PX, COMMON_PEAK_RADIUS_PX // scale)
        forward, backward = matching.correlation_surfaces(reference, moving, grid, window, pair.threads)
        both = (forward + backward[:, ::-1, ::-1]) / 2.0
        mean = both[np.isfinite(both).all(axis=(1, 2))].sum(axis=0) / len(both)
        background = ndimage.gaussian_filter(mean, BACKGROUND_SIGMA_PX / scale, mode="nearest")
        peak = matching.find_peaks((mean - background)[None])
        found.append((scale * peak.dx[0], scale * peak.dy[0], peak.ratio[0]))
    table = np.array(found, dtype=np.float64)
    return table[:, :2], table[:, 2]


def _similarity_gain(pair: _Pair, where: PointMap) -> tuple[float, float]:
    """Median gain in correlation of windows by the correction, and z of the sign test that most of them improve."""
    # at full resolution: the wider filters of a coarser one bias matches towards the brighter side of edges
    reference, before = pair.reduced(1)
    # windows side by side: their gains are independent
    grid, window = point_grid(pair.shape, WINDOW_PX), Window(WINDOW_PX, 1)
    images = Warped(before, where), before
    surfaces = (matching.correlation_surfaces(reference, image, grid, window, pair.threads)[0] for image in images)
    corrected, delivered = (forward[:, 1, 1] for forward in surfaces)  # without any shift
    gain = corrected - delivered
    gain = gain[np.isfinite(gain)] if np.isfinite(gain).any() else np.zeros(1)
    return float(np.median(gain)), float(np.sign(gain).sum() / np.sqrt(gain.size))
