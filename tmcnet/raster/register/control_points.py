"""Match windows around a grid of control points, a block of the images at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from tmcnet.raster.io.windowed import Image
from tmcnet.raster.register import matching
from tmcnet.raster.register.matching import BoolArray, FloatArray, Matches, Tone

MOST_POINTS = 2000
"""Control points beyond this many are thinned out: they cost time and no longer add precision."""
BLOCK = 256
"""Side in pixels of the part of an image whose control points are worked on together."""
BATCH = 32
"""Windows compared at a time."""
SAMPLES, SAMPLE_SIDE = 4, 72
"""So many windows along each side of an image, each so many pixels wide, tell its range of values."""


@dataclass(frozen=True)
class Window:
    """How windows are matched: their side and the largest shift, in pixels."""

    side: int
    reach: int


def control_grid(shape: tuple[int, int], spacing: int) -> npt.NDArray[np.int64]:
    """Control points on a regular grid: N x 2, x and y in whole pixels, sorted by y."""
    height, width = shape
    step = max(spacing, int(np.ceil(np.sqrt(height * width / MOST_POINTS))))
    xs, ys = (np.arange(min((side % step + step) // 2, side // 2), side, step) for side in (width, height))
    return np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.int64)


def tone_of(image: Image, speckled: bool) -> Tone:
    """How to scale the brightness of an image, told from windows spread over it; see `matching.tone`."""
    _, height, width = image.shape
    sides = min(SAMPLE_SIDE, height), min(SAMPLE_SIDE, width)
    rows, cols = (
        np.unique(np.linspace(0, size - side, SAMPLES).astype(int))
        for size, side in zip((height, width), sides, strict=True)
    )
    return matching.tone([image.read(int(r), int(c), *sides) for r in rows for c in cols], speckled)


def match(
    reference: Image, moving: Image, points: npt.NDArray[np.int64], window: Window, threads: int = 1
) -> tuple[Matches, Matches]:
    """Find windows of the reference image around `points` in the moving image, and those of the latter in the former.

    Args:
        reference: Optical image.
        moving: SAR image on the same grid.
        points: N x 2, x and y.
        window: Side of the windows and largest shift.
        threads: How many threads match; the result does not depend on it.

    Returns:
        The matches there and back, in the order of the points.
    """
    there, back = correlations(reference, moving, points, window, threads)
    return matching.locate(there), matching.locate(back)


def correlations(
    reference: Image, moving: Image, points: npt.NDArray[np.int64], window: Window, threads: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Correlation surfaces there and back, in the order of the points; see `match` and `matching.correlate`."""
    tones = tone_of(reference, speckled=False), tone_of(moving, speckled=True)
    block = points // BLOCK
    _, number = np.unique(block[:, 1] * (block[:, 0].max() + 1) + block[:, 0], return_inverse=True)
    members = [np.flatnonzero(number == n) for n in range(number.max() + 1)]
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda m: _correlate_block((reference, moving), tones, points[m], window), members))
    order = np.argsort(np.concatenate(members))
    there, back = (np.concatenate(surfaces)[order] for surfaces in zip(*parts, strict=True))
    return there, back


def pooled(surfaces: FloatArray, points: npt.NDArray[np.int64]) -> FloatArray:
    """Surfaces averaged with those of the eight points around, as a window twice as wide would have them.

    Args:
        surfaces: N x S x S, of points that are displaced alike.
        points: N x 2, as `control_grid` gives them.

    Returns:
        N x S x S; NaN where neither a point nor two around it have a surface.
    """
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


def _correlate_block(
    images: tuple[Image, Image], tones: tuple[Tone, Tone], points: npt.NDArray[np.int64], window: Window
) -> tuple[FloatArray, FloatArray]:
    half = window.side // 2
    margin = half + window.reach + matching.REACH
    left, top = (points.min(axis=0) - margin).tolist()
    width, height = (np.ptp(points, axis=0) + 2 * margin).tolist()
    one, two = (
        matching.describe(image.read(top, left, height, width), scaling)
        for image, scaling in zip(images, tones, strict=True)
    )
    corners = points - np.array([left + half, top + half], dtype=np.int64)
    there, back = [], []
    for start in range(0, len(points), BATCH):
        some = corners[start : start + BATCH]
        there.append(_correlate(one, two, some, window))
        back.append(_correlate(two, one, some, window))
    return np.concatenate(there), np.concatenate(back)


def _correlate(
    one: tuple[FloatArray, BoolArray],
    two: tuple[FloatArray, BoolArray],
    corners: npt.NDArray[np.int64],
    window: Window,
) -> FloatArray:
    small = _gather(one, corners, window.side)
    large = _gather(two, corners - window.reach, window.side + 2 * window.reach)
    return matching.correlate(*small, *large)


def _gather(
    described: tuple[FloatArray, BoolArray], corners: npt.NDArray[np.int64], side: int
) -> tuple[FloatArray, BoolArray]:
    """Windows with upper left `corners` (x, y): P x D x side x side, and P x side x side."""
    channels, valid = described
    views = [(slice(y, y + side), slice(x, x + side)) for x, y in corners]
    return np.stack([channels[:, r, c] for r, c in views]), np.stack([valid[r, c] for r, c in views])
