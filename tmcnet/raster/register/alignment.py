"""What co-registration found; `alignment.json` holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.register.affine_fit import IDENTITY, Model
from tmcnet.raster.register.deformation import AffineMap, LatticeMap

Status = Literal["aligned", "already_aligned", "rejected", "single_sensor"]


@dataclass(frozen=True)
class Alignment:
    """What was found; `alignment.json` holds this and, as `digests`, the SHA-256 of the rasters beside it.

    Attributes:
        status: `aligned`: use the map. `already_aligned`: nothing to correct. `rejected`: no correction could be
            trusted. `single_sensor`: there is nothing to register. In all but the first the map is the identity.
        model: Kind of the map; `none` is the identity.
        matrix: 2 x 3, from optical pixel (x, y) to SAR pixel on the common grid, pixel centres at whole numbers;
            None of `quadratic` and `thin_plate`, whose map `nodes` hold.
        n_points: Control points that could be matched reliably.
        n_inliers: Those of them that agree with their neighbours.
        rmse_px: Residual of the model at agreeing points in parts of the scene held out of the fit, root mean
            square in pixels; None where there is no model.
        reason: In words, why the status is what it is.
        points: Reliable control points [x, y, dx, dy, inlier], in pixels.
        nodes: The map on a regular lattice over the scene and a little beyond, [x, y, dx, dy] in pixels, row by row;
            smooth in between. Empty where there is a matrix.
    """

    status: Status
    model: Model
    matrix: list[list[float]] | None
    n_points: int
    n_inliers: int
    rmse_px: float | None
    reason: str
    points: list[list[float]] = field(default_factory=list)
    nodes: list[list[float]] = field(default_factory=list)

    @property
    def where(self) -> PointMap:
        """The map: from places on the common grid, N x 2 (x, y), to where their content lies in the SAR image."""
        return LatticeMap(np.array(self.nodes)) if self.matrix is None else AffineMap(np.array(self.matrix))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, coordinates rounded to thousandths of a pixel."""
        record = asdict(self)
        if self.matrix is not None:
            record["matrix"] = [[round(value, 9) for value in row] for row in self.matrix]
        record["points"] = [[*(round(v, 3) for v in p[:4]), int(p[4])] for p in self.points]
        record["nodes"] = [[round(v, 3) for v in node] for node in self.nodes]
        record["rmse_px"] = None if self.rmse_px is None else round(self.rmse_px, 4)
        return record


def unmoved(status: Status, reason: str) -> Alignment:
    """The record of a scene whose georeference is taken as delivered, without any evidence."""
    return Alignment(status, "none", IDENTITY.tolist(), 0, 0, None, reason)
