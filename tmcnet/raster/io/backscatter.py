"""Backscatter scales: told from the values, and converted to linear power and to decibels."""

from __future__ import annotations

import numpy as np

from tmcnet.raster.io.rasters import FloatArray

_LOWEST_DB, _HIGHEST_DB = -100.0, 60.0
_LINEAR_MEDIAN = 2.0
"""Sigma nought is a share of the incoming power: half the pixels of a scene above this are no power ratio."""


def detect_scale(dtype: str, low: float, high: float, median: float) -> str | None:
    """Tell the scale of backscatter values.

    Args:
        dtype: Type of the numbers in the file.
        low: Smallest valid value.
        high: Largest valid value.
        median: Median of the valid values, about.

    Returns:
        `none` for 8-bit pictures, `db`, `linear` or `amplitude`; None where the values fit nothing.
    """
    if dtype == "uint8":
        return "none"
    if low < 0:
        return "db" if low >= _LOWEST_DB and high <= _HIGHEST_DB else None
    if np.dtype(dtype).kind in "iu":
        return "amplitude"
    return "linear" if median < _LINEAR_MEDIAN else "amplitude"


def to_power(values: FloatArray, scale: str) -> FloatArray:
    """Bring values to linear power, in which neighbouring pixels may be averaged; `none` stays as it is."""
    if scale == "db":
        power: FloatArray = np.power(np.float32(10), values / np.float32(10))
        return power
    return values * values if scale == "amplitude" else values


def power_to_db(power: FloatArray, scale: str, clip_db: tuple[float, float]) -> FloatArray:
    """Bring linear power to dB, clipped; `none` stays as it is. No data (NaN) stays no data.

    No return at all (zero) becomes the lower end of the clipping range.
    """
    if scale == "none":
        return power
    tiny = np.float32(10 ** (clip_db[0] / 10))
    # np.maximum and np.clip hand NaN on
    decibels: FloatArray = np.clip(10 * np.log10(np.maximum(power, tiny)), *clip_db).astype(np.float32)
    return decibels


def to_db(values: FloatArray, scale: str, clip_db: tuple[float, float]) -> FloatArray:
    """Bring values of any scale to clipped dB; `none` stays as it is."""
    return np.clip(values, *clip_db) if scale == "db" else power_to_db(to_power(values, scale), scale, clip_db)
