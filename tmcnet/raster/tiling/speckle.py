"""Speckle filters for SAR backscatter in linear power, where speckle multiplies what the ground sends back.

A filter takes the mean of the pixels around a pixel, and adds as much of the pixel's own deviation as the local
variance exceeds the variance that speckle alone would cause.

Lee, J.-S. (1980): Digital image enhancement and noise filtering by use of local statistics. IEEE TPAMI 2, 165-168.
Lee, J.-S. (1981): Refined filtering of image noise using local statistics. Computer Graphics and Image Processing 15,
380-389.
Lee, J.-S., Grunes, M. R. and de Grandi, G. (1999): Polarimetric SAR speckle filtering and its implication for
classification. IEEE TGRS 37, 2363-2373. The weight is theirs, without the linearisation of 1980.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.config import SensorConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster.inventory.records import SceneRecord
from tmcnet.raster.io.blocks import log_line
from tmcnet.raster.io.files import FloatArray
from tmcnet.raster.io.radiometry import to_power

Map: TypeAlias = npt.NDArray[np.float64]  # H x W

BLOCK_SIDE_PX = 192  # side of the squares that one thread filters at a time
SAMPLES_PER_SIDE, SAMPLE_SIDE_PX = 12, 126
"""Number of sample windows along each side of an image, and their side, for the estimate of the number of looks."""
LOOKS_SIDE_PX = 9  # side of the squares whose statistics give one number of looks each


@dataclass(frozen=True)
class SpeckleFilter:
    """A speckle filter and its parameters.

    Attributes:
        filter: `lee`: local statistics of the square window. `refined_lee`: of the half of the window, one of eight,
            on the pixel's side of the strongest edge; keeps edges sharp and smooths less elsewhere.
        window: Side of the window in pixels, odd.
        looks: Equivalent number of looks: squared mean over variance of the power on homogeneous ground.

    Example:
        >>> speckle = SpeckleFilter("lee", window=7, looks=4.4)
        >>> smooth = speckle.apply_to_edges(power)
    """

    filter: Literal["lee", "refined_lee"]
    window: int
    looks: float

    @property
    def rim(self) -> int:
        """Pixels around an image that the filter needs to see."""
        return self.window // 2

    def apply(self, power: FloatArray, threads: int = 1) -> FloatArray:
        """Filter linear power, B x (H + 2 rim) x (W + 2 rim), to B x H x W; NaN where a pixel has no data."""
        rim, side = self.rim, BLOCK_SIDE_PX
        bands, rows, columns = len(power), power.shape[1] - 2 * rim, power.shape[2] - 2 * rim
        result = np.empty((bands, rows, columns), np.float32)

        def filter_block(place: tuple[int, int, int]) -> None:
            band, top, left = place
            block = power[band, top : top + side + 2 * rim, left : left + side + 2 * rim]
            result[band, top : top + side, left : left + side] = self._filtered(block.astype(np.float64))

        with ThreadPoolExecutor(max(threads, 1)) as pool:
            list(pool.map(filter_block, product(range(bands), range(0, rows, side), range(0, columns, side))))
        return result

    def apply_to_edges(self, power: FloatArray) -> FloatArray:
        """Filter an image, B x H x W, with statistics of the part of the window that is inside it at its edges."""
        rim = self.rim
        return self.apply(np.pad(power, ((0, 0), (rim, rim), (rim, rim)), constant_values=np.nan))

    def _filtered(self, power: Map) -> Map:
        rim = self.rim
        centre = power[rim:-rim, rim:-rim]
        statistics = _window_statistics if self.filter == "lee" else _half_window_statistics
        mean, variance = statistics(power, self.window)
        speckle_variance = 1.0 / self.looks
        ground = np.maximum((variance - mean**2 * speckle_variance) / (1.0 + speckle_variance), 0.0)
        weight = np.divide(ground, variance, out=np.zeros_like(ground), where=variance > 0)
        return np.asarray(mean + weight * (centre - mean))


def _window_statistics(power: Map, window: int) -> tuple[Map, Map]:
    valid = np.isfinite(power)
    filled = np.where(valid, power, 0.0)
    count, total, squares = (_window_sums(values, window) for values in (valid.astype(np.float64), filled, filled**2))
    mean = total / np.maximum(count, 1)
    return mean, np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0)


def _window_sums(values: Map, side: int) -> Map:
    """Sums over the squares inside the image. No running sums, so that they do not depend on the block."""
    half, ones = side // 2, np.ones(side)
    rows = ndimage.correlate1d(values, ones, axis=0, mode="constant")
    inner = slice(half, -half or None)
    return np.asarray(ndimage.correlate1d(rows, ones, axis=1, mode="constant")[inner, inner])


def _half_window_statistics(power: Map, window: int) -> tuple[Map, Map]:
    """Mean and variance over the half window on the pixel's side of the strongest edge (Lee, 1981)."""
    chosen = _choose_half_windows(power, window).ravel()
    rim, columns = window // 2, power.shape[1]
    shape = power.shape[0] - 2 * rim, columns - 2 * rim
    rows, cols = np.indices(shape)
    at = ((rows + rim) * columns + cols + rim).ravel()
    mean, variance = np.full(at.size, np.nan), np.full(at.size, np.nan)
    for number, half in enumerate(_half_windows(window)):
        pixels = np.flatnonzero(chosen == number)
        dy, dx = np.nonzero(half)
        near = power.ravel()[at[pixels, None] + (dy - rim) * columns + dx - rim]
        valid = np.isfinite(near)
        count = np.maximum(valid.sum(axis=1), 1)
        mean[pixels] = np.where(valid, near, 0.0).sum(axis=1) / count
        variance[pixels] = np.where(valid, (near - mean[pixels, None]) ** 2, 0.0).sum(axis=1) / count
    return mean.reshape(shape), variance.reshape(shape)


def _half_windows(window: int) -> list[npt.NDArray[np.bool_]]:
    """Halves of the window that hold its centre: right, left, below, above, and the four diagonal ones."""
    y, x = np.mgrid[:window, :window] - window // 2
    return [x >= 0, x <= 0, y >= 0, y <= 0, x - y >= 0, x - y <= 0, x + y >= 0, x + y <= 0]


def _choose_half_windows(power: Map, window: int) -> npt.NDArray[np.int64]:
    """Number of the half window of each pixel, from the means of nine overlapping squares in the window."""
    side = 2 * (window // 5) + 1  # 3 in a window of 7, as published
    valid = np.isfinite(power)
    count = _window_sums(valid.astype(np.float64), side)
    means = _window_sums(np.where(valid, power, 0.0), side) / np.maximum(count, 1)
    step, rows, columns = (window - side) // 2, power.shape[0] - window + 1, power.shape[1] - window + 1

    def square(row: int, column: int) -> Map:
        cut = slice(row * step, row * step + rows), slice(column * step, column * step + columns)
        return np.where(count[cut] > 0, means[cut], means[step : step + rows, step : step + columns])

    nw, n, ne, w, c, e, sw, s, se = (square(row, column) for row in range(3) for column in range(3))
    across = (ne + e + se - nw - w - sw, sw + s + se - nw - n - ne, n + ne + e - w - sw - s, e + se + s - n - nw - w)
    edge = np.abs(across).argmax(axis=0)
    ends = ((e, w), (s, n), (ne, sw), (se, nw))
    second = [np.abs(two - c) < np.abs(one - c) for one, two in ends]
    return np.asarray(2 * edge + np.choose(edge, second))


def estimate_looks(windows: Iterable[FloatArray]) -> float:
    """Estimate the number of looks of windows in linear power, B x H x W, as the mode over small squares.

    Most squares are on homogeneous ground, and texture only lowers their number. Speckle that is correlated from
    pixel to pixel, as after oversampling, seems weaker than it is: set `sensors.sar.looks` then.
    """
    looks = np.sort(np.concatenate([_looks_of_squares(window) for window in windows]))
    if len(looks) < 2:
        return 1.0
    share = max(len(looks) // 4, 1)
    narrowest = int((looks[share:] / looks[:-share]).argmin())
    return max(float(np.median(looks[narrowest : narrowest + share + 1])), 1.0)


def _looks_of_squares(power: FloatArray) -> npt.NDArray[np.float64]:
    """Squared mean over variance in adjacent squares that are valid throughout, of all bands."""
    side = LOOKS_SIDE_PX
    bands, rows, columns = len(power), power.shape[1] // side, power.shape[2] // side
    squares = power[:, : rows * side, : columns * side].reshape(bands, rows, side, columns, side)
    values = squares.transpose(0, 1, 3, 2, 4).reshape(-1, side * side).astype(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    mean, variance = values.mean(axis=1), values.var(axis=1, ddof=1)
    usable = (variance > 0) & (mean > 0)
    return np.asarray(mean[usable] ** 2 / variance[usable])


def make_filter(sensor: SensorConfig, windows: Iterable[FloatArray]) -> SpeckleFilter | None:
    """Make the speckle filter that the config sets for a sensor; None for none. Windows are in linear power."""
    if sensor.speckle == "none":
        return None
    looks = sensor.looks or estimate_looks(windows)
    log_line(f"speckle of {looks:.2f} looks")
    return SpeckleFilter(sensor.speckle, sensor.speckle_window, looks)


def filter_of_tiles(records: Sequence[SceneRecord], sensor: SensorConfig) -> SpeckleFilter | None:
    """Make the speckle filter for the SAR images of ready-made tiles; None for none.

    One number of looks is estimated for all of them: a single tile has too few squares of homogeneous ground.
    """
    for record in records:
        require_backscatter(record, sensor)
    samples = (record.images["sar"] for record in records[:: max(len(records) // SAMPLES_PER_SIDE**2, 1)])
    return make_filter(sensor, (to_power(image.raster.read_all(), image.scale) for image in samples))


def require_backscatter(record: SceneRecord, sensor: SensorConfig) -> None:
    """Refuse a speckle filter for values that are on no scale of backscatter."""
    image = record.images["sar"]
    if sensor.speckle != "none" and image.files and image.scale == "none":
        what = f"is `{sensor.speckle}`, but the values of scene {record.scene} are not on a scale of backscatter"
        remedy = "Set it to `none`, or say in `sensors.sar.scale` what the values are: linear, amplitude or db."
        raise InputError(Problem("config key `sensors.sar.speckle`", what, remedy))
