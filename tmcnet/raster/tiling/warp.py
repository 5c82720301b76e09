"""Bring a raster to another grid in one resampling, no data kept apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from affine import Affine

from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.projection import reproject_points
from tmcnet.raster.io.rasters import FloatArray, Grid
from tmcnet.raster.io.streaming import Draft, write_draft

Method: TypeAlias = Literal["average", "bilinear", "near"]

_FINER = 1.25
"""Averaging begins where a target pixel is wider than this many source pixels; below that it only blurs."""
_TOLERANCE = 0.01
"""Largest error, in target pixels, of interpolating the projection between points where it is worked out."""
_MEMORY = 256
"""Megabytes for the blocks that `gdalwarp` works on, and as many for those of its files."""


def warp(
    draft: Draft,
    grid: Grid,
    path: Path,
    method: Method,
    nodes: npt.NDArray[np.float64] | None = None,
    threads: int = 1,
) -> Draft:
    """Warp a raster with `gdalwarp`, in one resampling.

    Args:
        draft: The raster, on a grid with CRS. Pixels without data hold its no data value, which may be NaN, in each
            band for itself, before and after.
        grid: Where to: a grid with CRS; may be turned or sheared.
        path: Where the result goes.
        method: `near` for labels.
        nodes: Where content lies that the georeference of the source puts in a wrong place: N x 4, x and y of a
            target pixel and the displacement dx, dy of its content, in target pixels. None: no such place.
        threads: How many threads resample.

    Returns:
        The raster on the target grid; the one given where it lies there already.

    Raises:
        InputError: If `gdalwarp` fails, on a full disk, say.
    """
    if draft.grid == grid and nodes is None:
        return draft
    # into a file that exists, for only that can lie on a turned grid
    warped = write_draft(path, grid, draft.form)
    nodata = str(draft.form.nodata)
    empty = ("-srcnodata", nodata, "-dstnodata", nodata, "-wo", "INIT_DEST=NO_DATA", "-wo", "UNIFIED_SRC_NODATA=NO")
    speed = ("-multi", "-wo", f"NUM_THREADS={threads}", "-wm", _MEMORY, "--config", "GDAL_CACHEMAX", _MEMORY)
    by_points = () if nodes is None else ("-tps",)
    given = draft.path if nodes is None else _with_control_points(draft, grid, nodes)
    how = (*speed, *by_points, "-r", method, "-et", _TOLERANCE, *empty)
    run_tool("gdalwarp", *how, given, path, step=path.stem.replace("_", " "))
    return warped


def _with_control_points(draft: Draft, target: Grid, nodes: npt.NDArray[np.float64]) -> Path:
    """The raster with control points in place of its georeference: which of its pixels belong where on the target.

    They hold the way between the two grids as well as the displacement, so thin-plate splines through them serve any
    smooth displacement.
    """
    source = draft.grid
    x, y, dx, dy = nodes.T
    east, north = target.transform @ (x + 0.5, y + 0.5)
    seen_east, seen_north = target.transform @ (x + dx + 0.5, y + dy + 0.5)
    if source.crs != target.crs:
        seen_east, seen_north = reproject_points(target.crs, source.crs, seen_east, seen_north)
    column, row = ~source.transform @ (seen_east, seen_north)
    table = np.column_stack([column, row, east, north])
    points = [part for values in table.tolist() for part in ("-gcp", *values)]
    virtual = draft.path.with_suffix(".vrt")
    run_tool("gdal_translate", "-q", "-of", "VRT", "-a_srs", target.crs, *points, draft.path, virtual)
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
        The values, and the value that means no data in them, as `fitting_nodata` gives it. Valid values that would
        equal it move away by one.
    """
    dtype = exact_dtype(dtype)
    nodata = fitting_nodata(dtype, nodata, lambda: not np.isnan(values).any())
    return cast(values, dtype, nodata), nodata


def exact_dtype(dtype: str) -> str:
    """The type itself, or float32 where single precision cannot hold all its numbers."""
    return dtype if dtype in ("uint8", "int8", "uint16", "int16") else "float32"


def fitting_nodata(dtype: str, nodata: float | None, complete: Callable[[], bool]) -> float | None:
    """The value that can mean no data: NaN for float32, else the one given or, where one is needed, the largest.

    Args:
        dtype: Type of the numbers.
        nodata: Value wanted; None for none, or one that the type does not have.
        complete: Whether no pixel lacks data; asked only where that decides.
    """
    if dtype == "float32":
        return float("nan")
    info = np.iinfo(dtype)
    if nodata is not None and info.min <= nodata <= info.max and nodata == int(nodata):
        return nodata
    return None if complete() else float(info.max)


def cast(values: FloatArray, dtype: str, nodata: float | None) -> npt.NDArray[Any]:
    """Values of one of the types of `exact_dtype`, with the number that means no data in place of NaN."""
    if dtype == "float32":
        return values
    info = np.iinfo(dtype)
    whole = np.clip(np.rint(np.nan_to_num(values)), info.min, info.max).astype(dtype)
    if nodata is None:
        return whole
    valid = ~np.isnan(values)
    clash = (whole == nodata) & valid
    if dtype == "uint8":
        clash &= clash.all(axis=0)  # in 8-bit images only all bands together mean no data
    whole[clash] = int(nodata) - 1 if nodata == info.max else int(nodata) + 1
    whole[~valid] = int(nodata)
    return whole
