"""Register a SAR image to an optical one on the same grid: by how much does the georeference err?

Coarse to fine: one shift for the whole image at low resolution, then control points on a regular grid at half and
at full resolution, each time with the image warped by what is known already. A correction is only given where
enough control points agree on it and the images are more alike after it than before; otherwise the georeference
stands, and the record says why.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.config import AlignConfig
from tmcnet.raster import affine_fit, matching
from tmcnet.raster.affine_fit import IDENTITY, Array, Model
from tmcnet.raster.control_points import Window, control_grid, match
from tmcnet.raster.matching import FloatArray, Matches

Status = Literal["aligned", "already_aligned", "rejected", "single_sensor"]

NEGLIGIBLE = 0.5
"""A displacement below this many pixels everywhere is left alone."""
AGREEMENT = 2.0
"""Largest residual in pixels of a control point that agrees with the model; relief makes up much of it."""
MIN_RATIO = 1.1
"""A match counts as reliable when its peak stands out this many times over the second-best one."""
MIN_PEAK = 0.06
"""Least correlation of a reliable match."""
ROUND_TRIP = 1.5
"""Largest distance in pixels by which a point may miss its origin when matched there and back."""
MOST_DISTORTION = 0.1
"""Largest change of lengths that two images with a georeference may show, as a share."""
ABOVE_CHANCE = 2.5
"""So many times more control points must agree than with the SAR image upside down."""
OVERVIEW = 512
"""Side in pixels to which the image is reduced for the first, global match."""


@dataclass(frozen=True)
class Alignment:
    """What was found; `alignment.json` holds this and, as `digests`, the SHA-256 of the rasters beside it.

    Attributes:
        status: `aligned`: use the matrix. `already_aligned`: under half a pixel, nothing to do. `rejected`: no
            correction could be trusted, the matrix is the identity. `single_sensor`: there is nothing to register.
        model: Kind of the matrix; `none` is the identity.
        matrix: 2 x 3, from optical pixel (x, y) to SAR pixel on the common grid, pixel centres at whole numbers.
        n_points: Control points that could be matched reliably.
        n_inliers: Those of them that agree with one model.
        rmse_px: Residual of the model at agreeing points in parts of the scene held out of the fit, root mean
            square in pixels; None where there is no model.
        reason: In words, why the status is what it is.
        points: Reliable control points [x, y, dx, dy, inlier], in pixels.
    """

    status: Status
    model: Model
    matrix: list[list[float]]
    n_points: int
    n_inliers: int
    rmse_px: float | None
    reason: str
    points: list[list[float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, coordinates rounded to thousandths of a pixel."""
        record = asdict(self)
        record["matrix"] = [[round(value, 9) for value in row] for row in self.matrix]
        record["points"] = [[*(round(v, 3) for v in p[:4]), int(p[4])] for p in self.points]
        record["rmse_px"] = None if self.rmse_px is None else round(self.rmse_px, 4)
        return record


@dataclass(frozen=True)
class _Found:
    """Reliable control points and the model they support."""

    source: Array
    target: Array
    agree: npt.NDArray[np.bool_]
    matrix: Array


@dataclass(frozen=True)
class _Level:
    """One step from coarse to fine: reduction, largest shift in reduced pixels, agreement in full ones."""

    scale: int
    reach: int
    agreement: float


def estimate(reference: FloatArray, moving: FloatArray, config: AlignConfig | None = None) -> Alignment:
    """Estimate where the content of each optical pixel lies in the SAR image.

    Args:
        reference: Optical image, C x H x W or H x W, any units; NaN is no data.
        moving: SAR image on the same grid, B x H x W or H x W, backscatter in dB; NaN is no data.
        config: Search range, spacing and side of the windows, and what it takes to believe a correction.

    Returns:
        The correction with its evidence, or the reason why there is none.

    Raises:
        ValueError: If the two images differ in height or width.
    """
    config = config or AlignConfig()
    one, two = (np.asarray(a if a.ndim == 3 else a[None], dtype=np.float32) for a in (reference, moving))
    if one.shape[1:] != two.shape[1:]:
        raise ValueError(f"the images must share one grid, but are {one.shape[1:]} and {two.shape[1:]} pixels")
    both = np.isfinite(one).all(axis=0) & np.isfinite(two).all(axis=0)
    if both.mean() < 0.02 or min(both.shape) < config.template:
        return _rejected("the images hardly overlap, or are smaller than the window that is matched")
    matrix = _overview(one, two, config)
    levels = _levels(both.shape, config)
    by_chance = _agreeing_by_chance(one, two, config, levels[0])
    for level in levels:
        found = _refined(one, two, matrix, config, level)
        refusal = _doubts(found, config, by_chance if level is levels[0] else 0)
        if refusal:
            return _rejected(refusal, found)
        matrix = found.matrix
    return _decide(one, two, found, config)


def _levels(shape: tuple[int, ...], config: AlignConfig) -> list[_Level]:
    """Half resolution with a wide search, then full resolution with a narrow one; small images skip the former."""
    wide = config.max_shift * 0.6 + 4.0
    fine = _Level(1, 5, AGREEMENT)
    if min(shape) < 4 * config.template:
        return [_Level(1, int(wide), 1.5 * AGREEMENT), fine]
    return [_Level(2, int(wide / 2), 1.5 * AGREEMENT), fine]


def _agreeing_by_chance(one: FloatArray, two: FloatArray, config: AlignConfig, level: _Level) -> int:
    """Control points that agree where nothing can be right: with the SAR image turned by half a turn."""
    turned = np.ascontiguousarray(two[:, ::-1, ::-1])
    return int(_refined(one, turned, _overview(one, turned, config), config, level).agree.sum())


def _overview(one: FloatArray, two: FloatArray, config: AlignConfig) -> Array:
    """One shift for the whole image; the identity where the images cannot be compared."""
    scale = max(1, -(-max(one.shape[1:]) // OVERVIEW))
    small = _reduce(one, scale), _reduce(two, scale)
    reach = int(np.ceil(config.max_shift / scale)) + 2
    height, width = small[0].shape[1:]
    side = max(height, width)
    template = matching.describe(matching.cut(small[0], 0, 0, side, side), matching.value_range(small[0]))
    wide = matching.cut(small[1], -reach, -reach, side + 2 * reach, side + 2 * reach)
    search = matching.describe(wide, matching.value_range(small[1]))
    surface = matching.correlate(template[0][None], template[1][None], search[0][None], search[1][None], 0.02)
    found = matching.locate(surface)
    shift = np.array([found.dx[0], found.dy[0]], dtype=np.float64) * scale
    return np.column_stack([np.eye(2), shift]) if np.isfinite(shift).all() else IDENTITY


def _refined(one: FloatArray, two: FloatArray, matrix: Array, config: AlignConfig, level: _Level) -> _Found:
    """Match control points after warping by what is known, there and back, and fit a model to them."""
    small = _reduce(one, level.scale), _reduce(warp(two, matrix), level.scale)
    grid = control_grid((small[0].shape[1], small[0].shape[2]), max(8, config.spacing // level.scale))
    window = Window(config.template, level.reach)
    there, back = match(*small, grid, window), match(small[1], small[0], grid, window)
    good = _reliable(there) & _reliable(back)
    miss = np.hypot(there.dx + back.dx, there.dy + back.dy)
    good &= np.nan_to_num(miss, nan=np.inf) < ROUND_TRIP
    step = np.stack([there.dx - back.dx, there.dy - back.dy], axis=1)[good] / 2.0
    source = np.asarray(grid[good] * level.scale + (level.scale - 1) / 2.0, dtype=np.float64)
    target = affine_fit.apply(matrix, source + level.scale * step.astype(np.float64))
    agree = affine_fit.consensus(source, target, level.agreement)
    if agree.sum() < 4:
        return _Found(source, target, agree, matrix)
    fitted = affine_fit.refine(source, target, agree, level.agreement, "affine")
    residual = np.hypot(*(affine_fit.apply(fitted, source) - target).T)
    return _Found(source, target, residual < level.agreement, fitted)


def _reliable(matches: Matches) -> npt.NDArray[np.bool_]:
    return np.isfinite(matches.dx) & (matches.ratio >= MIN_RATIO) & (matches.peak >= MIN_PEAK)


def _doubts(found: _Found, config: AlignConfig, by_chance: int) -> str:
    """Why the model should not be believed, or nothing."""
    n, agreeing = len(found.source), int(found.agree.sum())
    if n < config.min_points:
        return f"only {n} control points could be matched reliably, {config.min_points} are needed"
    if agreeing < max(config.min_points, config.min_inlier_share * n):
        return f"only {agreeing} of {n} control points agree with one model, too few to believe it"
    if agreeing < ABOVE_CHANCE * by_chance:
        return f"{agreeing} control points agree, but {by_chance} do with an image that has nothing to do with it"
    if affine_fit.distortion(found.matrix) > MOST_DISTORTION:
        return "the control points ask for a distortion that images with a georeference do not have"
    largest = float(np.abs(affine_fit.apply(found.matrix, found.source) - found.source).max())
    if largest > 1.5 * config.max_shift:
        return f"the control points ask for a shift of {largest:.1f} pixels, more than was looked for"
    return ""


def _rejected(reason: str, found: _Found | None = None) -> Alignment:
    points = _points(found) if found else []
    agreeing = int(found.agree.sum()) if found else 0
    return Alignment("rejected", "none", IDENTITY.tolist(), len(points), agreeing, None, reason, points)


def _points(found: _Found) -> list[list[float]]:
    rows = np.column_stack([found.source, found.target - found.source, found.agree])
    return [[float(value) for value in row] for row in rows]


def _decide(one: FloatArray, two: FloatArray, found: _Found, config: AlignConfig) -> Alignment:
    """Choose between affine model and shift, and make sure that the choice does good."""
    source, target = found.source[found.agree], found.target[found.agree]
    errors = {
        name: affine_fit.held_out_error(source, target, AGREEMENT, name) for name in ("affine", "shift", "none")
    }
    model: Model = "affine" if errors["affine"] < errors["shift"] else "shift"
    everyone = np.ones(len(source), dtype=bool)
    matrix = (
        affine_fit.refine(source, target, everyone, 2.0 * AGREEMENT, "shift") if model == "shift" else found.matrix
    )
    height, width = one.shape[1:]
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], dtype=np.float64)
    largest = float(np.hypot(*(affine_fit.apply(matrix, corners) - corners).T).max())
    counts = len(found.source), len(source)
    if largest < NEGLIGIBLE:
        reason = f"the largest displacement found is {largest:.2f} pixels, nothing to correct"
        return Alignment(
            "already_aligned", "none", IDENTITY.tolist(), *counts, errors["none"], reason, _points(found)
        )
    gain, better = _improvement(one, two, matrix, config)
    if gain <= 0.0 or better < 0.5:
        return _rejected("the images are not more alike after the correction than before", found)
    reason = f"the {model} model agrees with {counts[1]} of {counts[0]} control points; likeness rose by {gain:.3f}"
    return Alignment("aligned", model, matrix.tolist(), *counts, errors[model], reason, _points(found))


def _improvement(one: FloatArray, two: FloatArray, matrix: Array, config: AlignConfig) -> tuple[float, float]:
    """Median gain in correlation of the windows by the correction, and the share of windows that gained."""
    reference, before, after = (_reduce(image, 2) for image in (one, two, warp(two, matrix)))
    grid = control_grid((reference.shape[1], reference.shape[2]), config.spacing)
    window = Window(config.template // 2, 1)
    gain = match(reference, after, grid, window).still - match(reference, before, grid, window).still
    gain = gain[np.isfinite(gain)]
    return (float(np.median(gain)), float((gain > 0).mean())) if gain.size else (0.0, 0.0)


def warp(image: FloatArray, matrix: Array) -> FloatArray:
    """Bring the content of a displaced image to where it belongs, with linear interpolation.

    Args:
        image: C x H x W with NaN for no data.
        matrix: 2 x 3 from the pixels (x, y) wanted to those of the image.
    """
    if np.array_equal(matrix, IDENTITY):
        return image
    linear, offset = matrix[::-1, 1::-1], matrix[::-1, 2]
    return np.stack(
        [ndimage.affine_transform(band, linear, offset, order=1, cval=np.nan, output=np.float32) for band in image]
    )


def _reduce(image: FloatArray, scale: int) -> FloatArray:
    """Mean of the valid pixels of each block of `scale` x `scale`; NaN where there are none."""
    if scale == 1:
        return image
    bands, height, width = image.shape
    rows, cols = height // scale, width // scale
    blocks = image[:, : rows * scale, : cols * scale].reshape(bands, rows, scale, cols, scale)
    valid = np.isfinite(blocks)
    count = valid.sum(axis=(2, 4))
    total = np.where(valid, blocks, 0.0).sum(axis=(2, 4))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
