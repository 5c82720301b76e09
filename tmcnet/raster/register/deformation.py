"""Maps from the common grid to another image on it: affine, or a smooth displacement known at lattice nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.raster.io.windowed import PointMap

Array = npt.NDArray[np.float64]
Model = Literal["none", "shift", "affine", "quadratic", "thin_plate"]
"""Kinds of maps, from stiff to flexible; `none` is the identity."""

IDENTITY: Array = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
LATTICE_NODES = 21  # nodes along the longer side of a scene: close enough for the splines fitted here
PADDING_NODES = 8  # nodes added on each side of a lattice before cubic interpolation


@dataclass(frozen=True)
class AffineMap:
    """Affine map by a 2 x 3 matrix."""

    matrix: Array

    def __call__(self, points: Array) -> Array:
        """Map N x 2 points (x, y)."""
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2])


class LatticeMap:
    """Smooth map known at the nodes of a regular lattice, with cubic splines in between."""

    def __init__(self, nodes: Array) -> None:
        """Prepare the splines; nodes are N x 4, x, y, dx, dy in pixels, row by row."""
        xs, ys = np.unique(nodes[:, 0]), np.unique(nodes[:, 1])
        table = nodes[:, 2:].reshape(len(ys), len(xs), 2)
        # extrapolated nodes on each side: the splines would bend at the edges otherwise
        padded = [np.pad(table[..., i], PADDING_NODES, "reflect", reflect_type="odd") for i in (0, 1)]
        self._splines = [ndimage.spline_filter(values) for values in padded]
        self._corner = np.array([xs[0], ys[0]])
        self._step = np.array([xs[1] - xs[0], ys[1] - ys[0]])

    def __call__(self, points: Array) -> Array:
        """Map N x 2 points (x, y); beyond the lattice the displacement is constant."""
        place = (np.asarray(points, dtype=np.float64) - self._corner).T / self._step[:, None] + PADDING_NODES
        moves = [ndimage.map_coordinates(s, place[::-1], prefilter=False, mode="nearest") for s in self._splines]
        return np.asarray(points + np.stack(moves, axis=1))


def on_lattice(where: PointMap, shape: tuple[int, int]) -> Array:
    """Sample a map over a scene of height x width and one step beyond: N x 4, x, y, dx, dy in pixels, row by row."""
    height, width = shape
    step = max(max(height, width) / (LATTICE_NODES - 1), 1.0)
    xs, ys = (step * np.arange(-1, np.ceil((side - 1) / step) + 2) for side in (width, height))
    nodes = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    return np.column_stack([nodes, where(nodes) - nodes])


def displacements(where: PointMap, shape: tuple[int, int]) -> Array:
    """Displacements in pixels, N x 2, by a map at places all over a scene of height x width."""
    xs, ys = (np.linspace(0.0, side - 1.0, LATTICE_NODES) for side in (shape[1], shape[0]))
    places = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    return np.asarray(where(places) - places)


def distortion(matrix: Array) -> float:
    """Largest relative change of length by the linear part of a 2 x 3 matrix."""
    return float(np.linalg.norm(matrix[:, :2] - np.eye(2), 2))


def rotation_and_scale(degrees: float, scale: float, height: int, width: int) -> Array:
    """2 x 3 matrix of a rotation and a scaling about the centre of an image."""
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([width - 1, height - 1]) / 2.0
    return np.column_stack([linear, centre - linear @ centre])


def at_scale(where: PointMap, scale: int) -> PointMap:
    """The map between images reduced by block means over `scale` x `scale` pixels."""
    offset = (scale - 1) / 2.0
    return lambda points: (where(points * scale + offset) - offset) / scale


def at_full_scale(matrix: Array, scale: int) -> Array:
    """The inverse of `at_scale` for a 2 x 3 matrix."""
    offset = (scale - 1) / 2.0
    linear = matrix[:, :2]
    return np.column_stack([linear, scale * matrix[:, 2] + offset - linear @ np.full(2, offset)])
