"""Georeference by ground control points or rational polynomials (RPC), as Sentinel-1 GRD and satellite video come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.io import DatasetReader
from rasterio.transform import GCPTransformer, RPCTransformer

from tmcnet.raster.io.geometry import Coordinates, crs_name

ControlPoint: TypeAlias = tuple[float, float, float, float]
"""Column and row, counted from the outer corner of the first pixel, and the place x, y in a CRS."""

_MIN_POINTS = 3
_RPC_POINTS_PER_SIDE = 21


def control_points(dataset: DatasetReader) -> tuple[str, tuple[ControlPoint, ...]]:
    """Find the control points of a file without transform.

    Rational polynomials are evaluated on a lattice at their mean height: relief displaces pixels from there.

    Returns:
        The CRS of the points, and the points; no points where there is a transform, or nothing else either.
    """
    if not dataset.transform.is_identity:
        return "", ()
    points, crs = dataset.gcps
    if crs and len(points) >= _MIN_POINTS:
        return crs_name(crs), tuple((p.col, p.row, p.x, p.y) for p in points)
    if dataset.rpcs is None:
        return "", ()
    columns, rows = (
        side.ravel() for side in np.meshgrid(*(np.linspace(0, n, _RPC_POINTS_PER_SIDE) for n in dataset.shape[::-1]))
    )
    with RPCTransformer(dataset.rpcs, rpc_height=dataset.rpcs.height_off) as transformer:
        x, y = transformer.xy(rows, columns, offset="ul")
    return "EPSG:4326", tuple(zip(columns.tolist(), rows.tolist(), map(float, x), map(float, y), strict=True))


def fit_affine(control: Sequence[ControlPoint]) -> Affine:
    """The affine transform from pixels to places that fits control points best."""
    column, row, x, y = np.array(control).T
    design = np.stack([column, row, np.ones_like(row)], axis=1)
    (a, d), (b, e), (c, f) = np.linalg.lstsq(design, np.stack([x, y], axis=1), rcond=None)[0].tolist()
    return Affine(a, b, c, d, e, f)


def to_control_pixels(
    control: Sequence[ControlPoint], x: Coordinates, y: Coordinates, *, splines: bool = True
) -> tuple[Coordinates, Coordinates]:
    """Find the pixels (column, row) at places, by thin-plate splines through the points or a polynomial."""
    points = [GroundControlPoint(row, column, east, north) for column, row, east, north in control]
    with GCPTransformer(points, tps=splines) as transformer:
        rows, columns = transformer.rowcol(x, y, op=np.float64)
    return np.asarray(columns, np.float64), np.asarray(rows, np.float64)


def to_ground(
    control: Sequence[ControlPoint], columns: Coordinates, rows: Coordinates
) -> tuple[Coordinates, Coordinates]:
    """Find the places of pixels, by thin-plate splines through the points; the reverse of `to_control_pixels`."""
    points = [GroundControlPoint(row, column, east, north) for column, row, east, north in control]
    with GCPTransformer(points, tps=True) as transformer:
        x, y = transformer.xy(rows, columns, offset="ul")
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def residual_px(control: Sequence[ControlPoint]) -> float:
    """RMSE in pixels of a polynomial through control points: how well they agree with each other."""
    column, row, x, y = np.array(control).T
    columns, rows = to_control_pixels(control, x, y, splines=False)
    return float(np.sqrt(np.mean((columns - column) ** 2 + (rows - row) ** 2)))
