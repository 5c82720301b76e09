"""Scales of pixel values: backscatter in linear power and decibels, and the range shown in pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tmcnet.raster.io.files import FloatArray

_MIN_DB, _MAX_DB = -100.0, 60.0
_MIN_MEDIAN_DB = -60.0
"""No sensor measures weaker backscatter than this; tenths or hundredths of decibels are mostly below."""
_MAX_NOISE = 0.1
"""Linear power down to minus this is what products have where more noise was subtracted than was measured."""
_MAX_LINEAR_MEDIAN = 1.0
"""Sigma nought is a share of the incoming power: if half the pixels of a scene exceed this, it is no power ratio."""


def detect_scale(dtype: str, low: float, high: float, median: float) -> str | None:
    """Detect the scale of backscatter: `none` (8-bit pictures), `db`, `linear`, `amplitude`; None where none fits."""
    if dtype == "uint8":
        return "none"
    if low < 0:
        if median > 0 and low >= -_MAX_NOISE and np.dtype(dtype).kind == "f":
            return "linear"
        return "db" if low >= _MIN_DB and high <= _MAX_DB and median >= _MIN_MEDIAN_DB else None
    if np.dtype(dtype).kind in "iu":
        return "amplitude"
    return "linear" if median < _MAX_LINEAR_MEDIAN else "amplitude"


def looks_linear(dtype: str, low: float, high: float, median: float) -> bool:
    """Whether numbers have the range of linear power or amplitude, which pictures and rescaled decibels lack."""
    detected = detect_scale(dtype, low, high, median) == "linear"
    return detected and median < _MAX_LINEAR_MEDIAN / 2 and high > 2 * _MAX_LINEAR_MEDIAN


def contradiction(scale: str, low: float, high: float) -> str:
    """Say why values from `low` to `high` cannot be on a declared scale of backscatter; empty where they can."""
    if low < (-_MAX_NOISE if scale == "linear" else 0) and scale in ("linear", "amplitude"):
        return f"the smallest value is {low:g}"
    if scale == "db" and not (low >= _MIN_DB and high <= _MAX_DB):
        return f"the values are from {low:g} to {high:g}"
    if scale == "db" and low > 0:
        return f"the smallest value is {low:g}, and most backscatter is below 0 dB"
    return ""


def to_power(values: FloatArray, scale: str) -> FloatArray:
    """Convert values to linear power, in which neighbouring pixels may be averaged; `none` is unchanged."""
    if scale == "db":
        power: FloatArray = np.power(np.float32(10), values / np.float32(10))
        return power
    return values * values if scale == "amplitude" else values


def power_to_db(power: FloatArray, scale: str, clip_db: tuple[float, float]) -> FloatArray:
    """Convert linear power to dB, clipped; `none` is unchanged. No data (NaN) remains no data.

    No return at all (zero) becomes the lower end of the clipping range.
    """
    if scale == "none":
        return power
    tiny = np.float32(10 ** (clip_db[0] / 10))
    # np.maximum and np.clip propagate NaN
    decibels: FloatArray = np.clip(10 * np.log10(np.maximum(power, tiny)), *clip_db).astype(np.float32)
    return decibels


def to_db(values: FloatArray, scale: str, clip_db: tuple[float, float]) -> FloatArray:
    """Convert values of any scale to clipped dB; `none` is unchanged."""
    return np.clip(values, *clip_db) if scale == "db" else power_to_db(to_power(values, scale), scale, clip_db)


def display_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """The values of a band, without NaN, that are shown black and white.

    Black is the 2nd percentile. White is the 98th, unless a bright minority such as cloud is far above the rest: then
    it is one and a half times the interquartile range above the upper quartile, so that the land stays visible.
    """
    low, lower, upper, high = np.percentile(values, [2, 25, 75, 98])
    high = min(high, upper + 1.5 * (upper - lower)) if upper > lower else high
    return float(low), float(high) if high > low else float(low) + 1.0
