"""The result of co-registration, as stored in `alignment.json`, and its residuals around a place of the scene."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from tmcnet.raster.io.geometry import Box
from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.register.deformation import IDENTITY, AffineMap, Array, LatticeMap, Model

Status = Literal["aligned", "already_aligned", "rejected", "single_sensor"]

NEIGHBOURHOOD_PX = 128
"""Tie points up to this distance from a window count for it: twice the side of the windows matched."""
MIN_POINTS_NEAR = 3  # with fewer tie points near a window its residual is unknown


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

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Alignment:
        """Read the content of `alignment.json`; other keys are ignored."""
        return cls(**{name.name: record[name.name] for name in fields(cls) if name.name in record})

    @property
    def n_points(self) -> int:
        """Number of reliable tie points."""
        return len(self.points)

    @property
    def n_inliers(self) -> int:
        """Number of inliers among them."""
        return sum(int(point[4]) for point in self.points)

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
            "n_points": self.n_points,
            "n_inliers": self.n_inliers,
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
        residual = points + rows[:, 2:4] - Alignment.from_record(record).where(points)
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
