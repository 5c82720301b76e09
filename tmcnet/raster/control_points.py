"""Match windows around a grid of control points, a strip of the images at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tmcnet.raster import matching
from tmcnet.raster.matching import BoolArray, FloatArray, Matches

MOST_POINTS = 2000
"""Control points beyond this many are thinned out: they cost time and no longer add precision."""
STRIP = 6
"""Rows of control points worked on at a time."""
BATCH = 32
"""Windows compared at a time."""


@dataclass(frozen=True)
class Window:
    """How windows are matched: their side and the largest shift, in pixels."""

    side: int
    reach: int


def control_grid(shape: tuple[int, int], spacing: int) -> npt.NDArray[np.int64]:
    """Control points on a regular grid: N x 2, x and y in whole pixels, sorted by y."""
    height, width = shape
    step = max(spacing, int(np.ceil(np.sqrt(height * width / MOST_POINTS))))
    xs = np.arange((width % step + step) // 2, width, step)
    ys = np.arange((height % step + step) // 2, height, step)
    return np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.int64)


def match(reference: FloatArray, moving: FloatArray, points: npt.NDArray[np.int64], window: Window) -> Matches:
    """Find windows of the reference image around `points` in the moving image.

    Args:
        reference: C x H x W with NaN for no data.
        moving: C x H x W on the same grid.
        points: N x 2, x and y, sorted by y.
        window: Side of the windows and largest shift.
    """
    ranges = matching.value_range(reference), matching.value_range(moving)
    rows = np.unique(points[:, 1])
    parts = []
    for start in range(0, len(rows), STRIP):
        chosen = points[np.isin(points[:, 1], rows[start : start + STRIP])]
        parts.append(_match_strip(reference, moving, ranges, chosen, window))
    return _join(parts)


def _join(parts: list[Matches]) -> Matches:
    names = ("dx", "dy", "peak", "ratio", "still")
    return Matches(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _match_strip(
    reference: FloatArray,
    moving: FloatArray,
    ranges: tuple[FloatArray, FloatArray],
    points: npt.NDArray[np.int64],
    window: Window,
) -> Matches:
    half = window.side // 2
    margin = half + window.reach + matching.REACH
    top = int(points[:, 1].min()) - margin
    height = int(points[:, 1].max()) + margin - top
    width = reference.shape[2] + 2 * margin
    one = matching.describe(matching.cut(reference, top, -margin, height, width), ranges[0])
    two = matching.describe(matching.cut(moving, top, -margin, height, width), ranges[1])
    parts = []
    for start in range(0, len(points), BATCH):
        corners = points[start : start + BATCH] + np.array([margin - half, -top - half], dtype=np.int64)
        small = _gather(one, corners, window.side)
        large = _gather(two, corners - window.reach, window.side + 2 * window.reach)
        parts.append(matching.locate(matching.correlate(*small, *large)))
    return _join(parts)


def _gather(
    described: tuple[FloatArray, BoolArray], corners: npt.NDArray[np.int64], side: int
) -> tuple[FloatArray, BoolArray]:
    """Windows with upper left `corners` (x, y): P x D x side x side, and P x side x side."""
    channels, valid = described
    views = [(slice(y, y + side), slice(x, x + side)) for x, y in corners]
    return np.stack([channels[:, r, c] for r, c in views]), np.stack([valid[r, c] for r, c in views])
