"""Maps from the common grid to where content lies in a displaced image: affine, or smooth on a lattice of nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.register import affine_fit
from tmcnet.raster.register.affine_fit import Array

NODES = 21
"""Nodes along the longer side of a scene: close enough for what the thin-plate splines here can bend."""
RIM = 8
"""Nodes added on each side of a lattice before splines are laid through it."""


@dataclass(frozen=True)
class AffineMap:
    """The map of a 2 x 3 matrix."""

    matrix: Array

    def __call__(self, points: Array) -> Array:
        """Where the content of N x 2 places (x, y) lies."""
        return affine_fit.apply(self.matrix, points)


class LatticeMap:
    """A smooth map known at the nodes of a regular lattice, with cubic splines in between."""

    def __init__(self, nodes: Array) -> None:
        """Prepare the splines.

        Args:
            nodes: N x 4: x, y of a node and the displacement dx, dy of its content, in pixels; row by row.
        """
        xs, ys = np.unique(nodes[:, 0]), np.unique(nodes[:, 1])
        table = nodes[:, 2:].reshape(len(ys), len(xs), 2)
        # more nodes on each side, the slope carried on: splines would bend at the rim otherwise
        padded = [np.pad(table[..., i], RIM, "reflect", reflect_type="odd") for i in (0, 1)]
        self._splines = [ndimage.spline_filter(values) for values in padded]
        self._corner = np.array([xs[0], ys[0]])
        self._step = np.array([xs[1] - xs[0], ys[1] - ys[0]])

    def __call__(self, points: Array) -> Array:
        """Where the content of N x 2 places (x, y) lies; the displacement stays the same beyond the lattice."""
        column, row = (np.asarray(points, dtype=np.float64) - self._corner).T / self._step[:, None] + RIM
        moves = [ndimage.map_coordinates(s, [row, column], prefilter=False, mode="nearest") for s in self._splines]
        return np.asarray(points + np.stack(moves, axis=1))


def lattice(shape: tuple[int, int]) -> Array:
    """Nodes over a scene of height x width and one step beyond its edges: N x 2, x and y, row by row."""
    height, width = shape
    step = max(max(height, width) / (NODES - 1), 1.0)
    xs, ys = (step * np.arange(-1, np.ceil((side - 1) / step) + 2) for side in (width, height))
    return np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)


def on_lattice(where: PointMap, shape: tuple[int, int]) -> Array:
    """A map as nodes, N x 4: x, y, dx, dy in pixels."""
    places = lattice(shape)
    return np.column_stack([places, where(places) - places])


def largest_displacement(where: PointMap, shape: tuple[int, int]) -> float:
    """The longest way in pixels between a place of a scene of height x width and where its content lies."""
    xs, ys = (np.linspace(0.0, side - 1.0, NODES) for side in (shape[1], shape[0]))
    places = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    return float(np.hypot(*(where(places) - places).T).max())
