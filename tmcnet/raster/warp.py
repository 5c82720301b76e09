"""Bring a raster to another grid in one resampling, no data kept apart."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from affine import Affine

from tmcnet.raster.gdal_tools import run_tool
from tmcnet.raster.io import FloatArray, Grid, write_raster
from tmcnet.raster.opening import open_raster
from tmcnet.raster.projection import reproject_points

Method: TypeAlias = Literal["average", "bilinear", "near"]

_FINER = 1.25
"""Averaging begins where a target pixel is wider than this many source pixels; below that it only blurs."""
_TOLERANCE = 0.01
"""Largest error, in target pixels, of interpolating the projection between points where it is worked out."""


def warp_array(
    array: npt.NDArray[Any],
    source: Grid,
    target: Grid,
    method: Method,
    nodata: float,
    folder: Path,
    nodes: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[Any]:
    """Warp an array with `gdalwarp`, in one resampling.

    Args:
        array: C x H x W on the source grid.
        source: Grid with CRS.
        target: Grid with CRS; may be turned or sheared.
        method: `near` for labels.
        nodata: Value of pixels without data, in each band for itself, in and out; may be NaN.
        folder: Where temporary files may lie, as large as the arrays.
        nodes: Where content lies that the georeference of the source puts in a wrong place: N x 4, x and y of a
            target pixel and the displacement dx, dy of its content, in target pixels. None: no such place.

    Returns:
        C x h x w on the target grid, in the same type.
    """
    if source == target and nodes is None:
        return array
    with tempfile.TemporaryDirectory(prefix=".warp-", dir=folder) as work:
        before, after = Path(work) / "before.tif", Path(work) / "after.tif"
        write_raster(before, array, source, nodata)
        # into a file that exists, for only that can lie on a turned grid
        write_raster(after, np.full((len(array), target.height, target.width), nodata, array.dtype), target, nodata)
        empty = ("-srcnodata", nodata, "-dstnodata", nodata)
        options = ("-wo", "INIT_DEST=NO_DATA", "-wo", "UNIFIED_SRC_NODATA=NO")
        by_points = () if nodes is None else ("-tps",)
        given = before if nodes is None else _with_control_points(before, source, target, nodes)
        run_tool("gdalwarp", "-q", *by_points, "-r", method, "-et", _TOLERANCE, *empty, *options, given, after)
        with open_raster(after) as dataset:
            warped: npt.NDArray[Any] = dataset.read()
    return warped


def _with_control_points(path: Path, source: Grid, target: Grid, nodes: npt.NDArray[np.float64]) -> Path:
    """The raster with control points in place of its georeference: which of its pixels belong where on the target.

    They hold the way between the two grids as well as the displacement, so thin-plate splines through them serve any
    smooth displacement.
    """
    x, y, dx, dy = nodes.T
    east, north = target.transform @ (x + 0.5, y + 0.5)
    seen_east, seen_north = target.transform @ (x + dx + 0.5, y + dy + 0.5)
    if source.crs != target.crs:
        seen_east, seen_north = reproject_points(target.crs, source.crs, seen_east, seen_north)
    column, row = ~source.transform @ (seen_east, seen_north)
    table = np.column_stack([column, row, east, north])
    points = [part for values in table.tolist() for part in ("-gcp", *values)]
    virtual = path.with_suffix(".vrt")
    run_tool("gdal_translate", "-q", "-of", "VRT", "-a_srs", target.crs, *points, path, virtual)
    return virtual


def image_method(source: Grid, target: Grid) -> Method:
    """`average` where the target is clearly coarser than the source, else `bilinear`."""
    return "average" if _pixel_ratio(source, target) > _FINER else "bilinear"


def _pixel_ratio(source: Grid, target: Grid) -> float:
    """Width of a target pixel in source pixels, at the centre of the target."""
    x, y = target.width / 2, target.height / 2
    east, north = target.transform @ (np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    if source.crs != target.crs:
        east, north = reproject_points(target.crs, source.crs, east, north)
    column, row = ~source.transform @ (east, north)
    across, down = (column[1] - column[0], row[1] - row[0]), (column[2] - column[0], row[2] - row[0])
    return float(abs(across[0] * down[1] - across[1] * down[0]) ** 0.5)


def shifted_grid(grid: Grid, matrix: npt.ArrayLike) -> Grid:
    """The grid on which a misregistered image must be sampled to fall into place.

    Args:
        grid: The grid that the image shall come to lie on.
        matrix: 2 x 3, from a pixel (x, y) of the grid to where its content now is on the same grid, in pixels with
            centres at whole numbers.
    """
    (a, b, c), (d, e, f) = np.asarray(matrix, float).tolist()
    half = Affine.translation(0.5, 0.5)
    return Grid(grid.crs, grid.transform @ half @ Affine(a, b, c, d, e, f) @ ~half, grid.width, grid.height)


def coarser_grid(grid: Grid, resolution: float | None) -> Grid:
    """The grid with another pixel size and the same upper left corner; the size is rounded to whole pixels."""
    if resolution is None:
        return grid
    t = grid.transform
    across, down = np.hypot(t.a, t.d) / resolution, np.hypot(t.b, t.e) / resolution
    if np.isclose(across, 1, atol=1e-9) and np.isclose(down, 1, atol=1e-9):
        return grid
    width, height = max(round(grid.width * across), 1), max(round(grid.height * down), 1)
    return Grid(grid.crs, t @ Affine.scale(1 / across, 1 / down), width, height)


def to_dtype(values: FloatArray, dtype: str, nodata: float | None) -> tuple[npt.NDArray[Any], float | None]:
    """Bring values with NaN for no data back to the type of the file they came from.

    Args:
        values: C x H x W.
        dtype: Type wanted. Types that single precision cannot hold exactly become float32.
        nodata: Value that means no data there; None for none.

    Returns:
        The values, and the value that means no data in them: NaN for float32, else the one given or, where one is
        needed and none is given, the largest of the type. Valid values that would equal it move away by one.
    """
    if dtype not in ("uint8", "int8", "uint16", "int16"):
        return values, float("nan")
    info = np.iinfo(dtype)
    valid = ~np.isnan(values)
    fits = nodata is not None and info.min <= nodata <= info.max and nodata == int(nodata)
    if not fits:
        nodata = None if valid.all() else float(info.max)
    whole = np.clip(np.rint(np.nan_to_num(values)), info.min, info.max).astype(dtype)
    if nodata is None:
        return whole, None
    clash = (whole == nodata) & valid
    if dtype == "uint8":
        clash &= clash.all(axis=0)  # in 8-bit images only all bands together mean no data
    whole[clash] = int(nodata) - 1 if nodata == info.max else int(nodata) + 1
    whole[~valid] = int(nodata)
    return whole, nodata
