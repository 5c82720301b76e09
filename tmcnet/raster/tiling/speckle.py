"""Filters against speckle, on backscatter in linear power, where speckle multiplies what the ground sends back.

A filter takes the mean of the pixels around, and adds as much of the pixel's own deviation as the local variance
exceeds what speckle alone would cause.

Lee, J.-S. (1980): Digital image enhancement and noise filtering by use of local statistics. IEEE TPAMI 2, 165-168.
Lee, J.-S. (1981): Refined filtering of image noise using local statistics. Computer Graphics and Image Processing 15,
380-389.
Lee, J.-S., Grunes, M. R. and de Grandi, G. (1999): Polarimetric SAR speckle filtering and its implication for
classification. IEEE TGRS 37, 2363-2373. The weight is theirs, without the linearisation of 1980.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.raster.io.rasters import FloatArray
from tmcnet.raster.io.windowed import Image

Maps: TypeAlias = npt.NDArray[np.float64]
"""H x W."""
Filter: TypeAlias = Literal["lee", "refined_lee"]

PIECE = 192
"""Side in pixels of the squares that a thread works on at a time."""
SAMPLES, SAMPLE_SIDE = 12, 126
"""So many windows along each side of an image, each so many pixels wide, tell its number of looks."""
LOOKS_SIDE = 9
"""Side in pixels of the squares whose statistics give a number of looks each."""


@dataclass(frozen=True)
class Speckle:
    """A filter and what it needs to know.

    Attributes:
        filter: `lee`: means over the square window. `refined_lee`: means over the half of it, of eight, that lies on
            the pixel's side of the strongest edge; keeps edges sharp, and smooths less elsewhere.
        window: Side of the window in pixels, odd.
        looks: Number of looks: squared mean over variance of the power where the ground is homogeneous.
    """

    filter: Filter
    window: int
    looks: float

    @property
    def rim(self) -> int:
        """Pixels around an image that the filter must see."""
        return self.window // 2

    def apply(self, power: FloatArray, threads: int = 1) -> FloatArray:
        """Filter an image, each band for itself.

        Args:
            power: B x (H + 2 rim) x (W + 2 rim), linear power; NaN is no data, and no part of any mean.
            threads: How many threads work.

        Returns:
            B x H x W; NaN where the pixel itself has no data.
        """
        rim = self.rim
        bands, rows, columns = len(power), power.shape[1] - 2 * rim, power.shape[2] - 2 * rim
        result = np.empty((bands, rows, columns), np.float32)

        def work(place: tuple[int, int, int]) -> None:
            band, top, left = place
            piece = power[band, top : top + PIECE + 2 * rim, left : left + PIECE + 2 * rim]
            result[band, top : top + PIECE, left : left + PIECE] = self._filtered(piece.astype(np.float64))

        with ThreadPoolExecutor(max(threads, 1)) as pool:
            list(pool.map(work, product(range(bands), range(0, rows, PIECE), range(0, columns, PIECE))))
        return result

    def _filtered(self, power: Maps) -> Maps:
        rim = self.rim
        centre = power[rim:-rim, rim:-rim]
        local = _square_statistics if self.filter == "lee" else _edge_statistics
        mean, variance = local(power, self.window)
        noise = 1.0 / self.looks
        ground = np.maximum((variance - mean**2 * noise) / (1.0 + noise), 0.0)
        weight = np.divide(ground, variance, out=np.zeros_like(ground), where=variance > 0)
        return np.asarray(mean + weight * (centre - mean))


def _square_statistics(power: Maps, window: int) -> tuple[Maps, Maps]:
    """Mean and variance of the valid pixels of the window around each pixel that has all of it."""
    valid = np.isfinite(power)
    known = np.where(valid, power, 0.0)
    count, total, squares = (_sums(values, window) for values in (valid.astype(np.float64), known, known**2))
    mean = total / np.maximum(count, 1)
    return mean, np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0)


def _sums(values: Maps, side: int) -> Maps:
    """Sums over squares that lie wholly inside; worked out anew for each, so that they are the same in any block."""
    half, ones = side // 2, np.ones(side)
    rows = ndimage.correlate1d(values, ones, axis=0, mode="constant")
    inner = slice(half, -half or None)
    return np.asarray(ndimage.correlate1d(rows, ones, axis=1, mode="constant")[inner, inner])


def _edge_statistics(power: Maps, window: int) -> tuple[Maps, Maps]:
    """Mean and variance over the half window on the pixel's side of the strongest edge (Lee, 1981)."""
    side_of = _sides(power, window).ravel()
    rim, columns = window // 2, power.shape[1]
    shape = power.shape[0] - 2 * rim, columns - 2 * rim
    rows, cols = np.indices(shape)
    at = ((rows + rim) * columns + cols + rim).ravel()
    mean, variance = np.full(at.size, np.nan), np.full(at.size, np.nan)
    for number, half in enumerate(_halves(window)):
        here = np.flatnonzero(side_of == number)
        dy, dx = np.nonzero(half)
        near = power.ravel()[at[here, None] + (dy - rim) * columns + dx - rim]
        valid = np.isfinite(near)
        count = np.maximum(valid.sum(axis=1), 1)
        mean[here] = np.where(valid, near, 0.0).sum(axis=1) / count
        variance[here] = np.where(valid, (near - mean[here, None]) ** 2, 0.0).sum(axis=1) / count
    return mean.reshape(shape), variance.reshape(shape)


def _halves(window: int) -> list[npt.NDArray[np.bool_]]:
    """The halves of the window in which the pixel may lie: right, left, below, above, and the four diagonal ones."""
    y, x = np.mgrid[:window, :window] - window // 2
    return [x >= 0, x <= 0, y >= 0, y <= 0, x - y >= 0, x - y <= 0, x + y >= 0, x + y <= 0]


def _sides(power: Maps, window: int) -> npt.NDArray[np.int64]:
    """Number of the half window of each pixel, after means over nine overlapping squares in the window."""
    side = 2 * (window // 5) + 1  # 3 in a window of 7, as published
    valid = np.isfinite(power)
    count = _sums(valid.astype(np.float64), side)
    means = _sums(np.where(valid, power, 0.0), side) / np.maximum(count, 1)
    step, rows, columns = (window - side) // 2, power.shape[0] - window + 1, power.shape[1] - window + 1

    def square(row: int, column: int) -> Maps:
        cut = slice(row * step, row * step + rows), slice(column * step, column * step + columns)
        return np.where(count[cut] > 0, means[cut], means[step : step + rows, step : step + columns])

    nw, n, ne, w, c, e, sw, s, se = (square(row, column) for row in range(3) for column in range(3))
    across = (ne + e + se - nw - w - sw, sw + s + se - nw - n - ne, n + ne + e - w - sw - s, e + se + s - n - nw - w)
    edge = np.abs(across).argmax(axis=0)
    ends = ((e, w), (s, n), (ne, sw), (se, nw))
    second = [np.abs(two - c) < np.abs(one - c) for one, two in ends]
    return np.asarray(2 * edge + np.choose(edge, second))


def estimate_looks(image: Image, to_power: Callable[[FloatArray], FloatArray]) -> float:
    """The number of looks of an image, of windows all over it.

    Args:
        image: Backscatter on any scale.
        to_power: Brings it to linear power.

    Returns:
        As `looks_of`.
    """
    _, height, width = image.shape
    sides = min(SAMPLE_SIDE, height), min(SAMPLE_SIDE, width)
    rows, columns = (
        np.unique(np.linspace(0, size - side, SAMPLES).astype(int))
        for size, side in zip((height, width), sides, strict=True)
    )
    return looks_of(to_power(image.read(int(r), int(c), *sides)) for r in rows for c in columns)


def looks_of(windows: Iterable[FloatArray]) -> float:
    """The number of looks of speckle: the commonest of those that small squares show.

    Most squares lie on homogeneous ground, and texture only ever lowers what they show. Speckle that is correlated
    from pixel to pixel, as after oversampling, seems weaker than it is: give the number of looks then.

    Args:
        windows: B x H x W each, linear power; NaN is no data.

    Returns:
        At least 1; 1 where nothing can be told.
    """
    found = np.sort(np.concatenate([_looks_of_squares(window) for window in windows]))
    if len(found) < 2:
        return 1.0
    share = max(len(found) // 4, 1)
    narrowest = int((found[share:] / found[:-share]).argmin())
    return max(float(np.median(found[narrowest : narrowest + share + 1])), 1.0)


def _looks_of_squares(power: FloatArray) -> npt.NDArray[np.float64]:
    """Squared mean over variance in squares side by side that are valid throughout, of all bands."""
    side = LOOKS_SIDE
    bands, rows, columns = len(power), power.shape[1] // side, power.shape[2] // side
    squares = power[:, : rows * side, : columns * side].reshape(bands, rows, side, columns, side)
    values = squares.transpose(0, 1, 3, 2, 4).reshape(-1, side * side).astype(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    mean, variance = values.mean(axis=1), values.var(axis=1, ddof=1)
    told = (variance > 0) & (mean > 0)
    return np.asarray(mean[told] ** 2 / variance[told])
