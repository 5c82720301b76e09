"""Smooth random fields, the base of terrain, woods, clouds and texture, and distances to lines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatMap = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> FloatMap:
    """A random field with features about `scale` pixels wide and a standard deviation of about 0.65.

    It interpolates normal deviates on a lattice of `scale` pixels by cubic splines.
    """
    rows, cols = (int(np.ceil(side / scale)) + 4 for side in shape)
    lattice = rng.standard_normal((rows, cols))
    offset = rng.uniform(0.0, 1.0, 2)
    y = np.arange(shape[0]) / scale + 1.0 + offset[0]
    x = np.arange(shape[1]) / scale + 1.0 + offset[1]
    return np.asarray(_spline_weights(y, rows) @ lattice @ _spline_weights(x, cols).T, dtype=np.float32)


def _spline_weights(positions: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """Weights of `n` lattice points in a cubic spline interpolation, one row for each position."""
    at = [np.repeat(positions, n), np.tile(np.arange(n), len(positions))]
    return np.asarray(ndimage.map_coordinates(np.eye(n), at, order=3).reshape(len(positions), n))


def fractal(
    rng: np.random.Generator, shape: tuple[int, int], scale: float, octaves: int, gain: float = 0.5
) -> FloatMap:
    """Noise on several scales, each half as wide and `gain` times as strong as the last; mean 0, deviation 1."""
    field = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        field += np.float32(gain**octave) * smooth_noise(rng, shape, max(scale / 2**octave, 1.0))
    return standardise(field)


def standardise(field: FloatMap) -> FloatMap:
    """Scale a field to mean 0 and standard deviation 1."""
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), dtype=np.float32)


def distance_to(points: Points, shape: tuple[int, int]) -> FloatMap:
    """Distance of every pixel to a line of points N x 2 (x, y), at most a pixel apart; those outside are ignored."""
    mask = np.zeros(shape, dtype=bool)
    cols, rows = np.rint(points).astype(int).T
    inside = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
    if not inside.any():
        return np.full(shape, np.inf, dtype=np.float32)
    mask[rows[inside], cols[inside]] = True
    return np.asarray(ndimage.distance_transform_edt(~mask), dtype=np.float32)


def densify(points: Points) -> Points:
    """Points at most half a pixel apart along a line given by its corners (N x 2)."""
    lengths = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    samples = np.linspace(0.0, along[-1], max(int(along[-1] / 0.5), 1) + 1)
    return np.column_stack([np.interp(samples, along, points[:, axis]) for axis in (0, 1)])
