"""How well the sensors are registered at one place of a scene, by the control points around it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tmcnet.raster.io.rasters import Box
from tmcnet.raster.register.affine_fit import Array
from tmcnet.raster.register.alignment import Alignment

NEAR = 128
"""Control points up to so many pixels outside a window tell about it: two sides of what is matched around one."""
FEWEST = 3
"""Fewer points tell nothing."""


@dataclass(frozen=True)
class Residuals:
    """What is left between the sensors at the control points that agree, once the correction is applied.

    Attributes:
        points: N x 2 places (x, y) on the common grid, in pixels, by ascending y; pixel centres at whole numbers.
        squared: N squared residuals in square pixels.
    """

    points: Array
    squared: Array

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Residuals:
        """The residuals of a scene.

        Args:
            record: What `alignment.json` holds. Where nothing was corrected, the residual is the displacement itself.
        """
        rows = np.array([row for row in record.get("points", []) if row[4]], np.float64).reshape(-1, 5)
        if not len(rows):
            return cls(np.empty((0, 2)), np.empty(0))
        where = Alignment(**{key: value for key, value in record.items() if key != "digests"}).where
        rows = rows[np.argsort(rows[:, 1], kind="stable")]
        points = rows[:, :2]
        off = points + rows[:, 2:4] - where(points)
        return cls(points, (off**2).sum(axis=1))

    def near(self, box: Box) -> float | None:
        """Root mean square residual in pixels within a window and `NEAR` pixels around it.

        Returns:
            The residual; None where fewer than `FEWEST` points are near.
        """
        row, column, height, width = box
        band = slice(*np.searchsorted(self.points[:, 1], [row - 0.5 - NEAR, row + height - 0.5 + NEAR]))
        x = self.points[band, 0]
        chosen = self.squared[band][(x >= column - 0.5 - NEAR) & (x <= column + width - 0.5 + NEAR)]
        return math.sqrt(chosen.mean()) if len(chosen) >= FEWEST else None
