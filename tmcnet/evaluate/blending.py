"""Windows that cover a scene, and the weights with which their predictions are blended."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def starts(length: int, window: int, overlap: int) -> list[int]:
    """First pixels of windows that cover 0..length-1 along one axis.

    Neighbours overlap by at least `overlap`; the last window is moved inwards so that it ends with the scene. A scene
    that is shorter than `window` has one window of its own length (see `extent`).
    """
    if not 0 <= overlap < window:
        raise ValueError(f"overlap {overlap} must be at least 0 and below the window {window}")
    if length <= window:
        return [0]
    inner = list(range(0, length - window, window - overlap))
    return [*inner, length - window]


def extent(length: int, window: int) -> int:
    """Length of the windows along an axis of `length` pixels."""
    return min(length, window)


def taper(size: int, overlap: int) -> NDArray[np.float32]:
    """Weight of a window's pixels along one axis, of shape `size`: 1 inside, falling to both ends as a Hann window.

    Two ramps that meet over `overlap` pixels add up to 1. No weight is 0, so that pixels at the scene's edge, which
    have one window only, can be divided by the sum of their weights.
    """
    ramp = min(overlap, size // 2)
    weights = np.ones(size, dtype=np.float32)
    if ramp == 0:
        return weights
    rise = np.sin(0.5 * np.pi * (np.arange(ramp) + 0.5) / ramp) ** 2
    weights[:ramp] = rise
    weights[size - ramp :] = rise[::-1]
    return weights


def total(length: int, window: int, overlap: int) -> NDArray[np.float32]:
    """Sum of the windows' weights along an axis of `length` pixels, by which blended values are divided."""
    size = extent(length, window)
    weights = np.zeros(length, dtype=np.float32)
    for start in starts(length, window, overlap):
        weights[start : start + size] += taper(size, overlap)
    return weights
