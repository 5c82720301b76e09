"""Maps from the common grid to the SAR image: affine, or a smooth displacement known at lattice nodes.

And the result of co-registration, as stored in `alignment.json`, with its residuals around a place of the scene.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.raster.io.geometry import Box
from tmcnet.raster.io.windowed import PointMap

Array = npt.NDArray[np.float64]
Model = Literal["none", "shift", "affine", "quadratic", "thin_plate"]
"""Kinds of maps, from stiff to flexible; `none` is the identity."""

IDENTITY: Array = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
LATTICE_NODES = 21  # nodes along the longer side of a scene: close enough for the splines fitted here
PADDING_NODES = 8  # nodes added on each side of a lattice before cubic interpolation

Status = Literal["aligned", "already_aligned", "rejected", "single_sensor"]
NEIGHBOURHOOD_PX = 128
"""Tie points up to this distance from a window count for it: twice the side of the windows matched."""
MIN_POINTS_NEAR = 3  # with fewer tie points near a window its residual is unknown


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


@dataclass(frozen=True)
class Alignment:
    """Result of co-registration.

    Attributes:
        status: `aligned`: apply the map. `already_aligned`: the images match as delivered, and no correction is
            clearly better. `rejected`: they could not be matched. `single_sensor`: nothing to register. The map is
            the identity unless `aligned`.
        reason: The reason for the status, in words.
        points: Reliable tie points [x, y, dx, dy, inlier], in pixels.
        rmse_px: Held-out RMSE of the model at inliers in pixels; None without a model.
        model: Kind of the map; `none` is the identity.
        matrix: 2 x 3, from optical to SAR pixels (x, y) on the common grid, pixel centres at whole numbers; None for
            `quadratic` and `thin_plate`, which are stored in `nodes`.
        nodes: The map on a regular lattice over the scene and one step beyond, [x, y, dx, dy] in pixels, row by row.
            Empty where there is a matrix.
    """

    status: Status
    reason: str
    points: list[list[float]] = field(default_factory=list)
    rmse_px: float | None = None
    model: Model = "none"
    matrix: list[list[float]] | None = field(default_factory=IDENTITY.tolist)
    nodes: list[list[float]] = field(default_factory=list)

    @property
    def where(self) -> PointMap:
        """The map from points on the common grid, N x 2 (x, y), to the points of the SAR image with their content."""
        return LatticeMap(np.array(self.nodes)) if self.matrix is None else AffineMap(np.array(self.matrix))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; coordinates are rounded to a thousandth of a pixel."""
        return {
            "status": self.status,
            "model": self.model,
            "matrix": self.matrix and [[round(value, 9) for value in row] for row in self.matrix],
            "n_points": len(self.points),
            "n_inliers": sum(int(point[4]) for point in self.points),
            "rmse_px": None if self.rmse_px is None else round(self.rmse_px, 4),
            "reason": self.reason,
            "points": [[*(round(v, 3) for v in p[:4]), int(p[4])] for p in self.points],
            "nodes": [[round(v, 3) for v in node] for node in self.nodes],
        }


@dataclass(frozen=True)
class Residuals:
    """Residuals of the inliers of a scene after the correction."""

    points: Array  # N x 2 points (x, y) on the common grid, in pixels, sorted by y
    squared: Array  # N squared residuals in square pixels

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Residuals:
        """Compute the residuals from the content of `alignment.json`; without a correction, the displacements."""
        rows = np.array([row for row in record.get("points", []) if row[4]], np.float64).reshape(-1, 5)
        if not len(rows):
            return cls(np.empty((0, 2)), np.empty(0))
        rows = rows[np.argsort(rows[:, 1], kind="stable")]
        points = rows[:, :2]
        alignment = Alignment(**{key.name: record[key.name] for key in fields(Alignment) if key.name in record})
        residual = points + rows[:, 2:4] - alignment.where(points)
        return cls(points, (residual**2).sum(axis=1))

    def near(self, box: Box) -> float | None:
        """RMSE in pixels within a window and `NEIGHBOURHOOD_PX` around it; None with too few points."""
        row, column, height, width = box
        rows = row - 0.5 - NEIGHBOURHOOD_PX, row + height - 0.5 + NEIGHBOURHOOD_PX
        band = slice(*np.searchsorted(self.points[:, 1], rows))
        x = self.points[band, 0]
        inside = (x >= column - 0.5 - NEIGHBOURHOOD_PX) & (x <= column + width - 0.5 + NEIGHBOURHOOD_PX)
        chosen = self.squared[band][inside]
        return math.sqrt(chosen.mean()) if len(chosen) >= MIN_POINTS_NEAR else None
