"""Warp a raster to another grid in one resampling, and bring values back to the type of their file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from affine import Affine

from tmcnet.raster.inventory.records import ImageRecord
from tmcnet.raster.io.files import FloatArray
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.geometry import ControlPoint, Grid, to_pixels
from tmcnet.raster.io.writer import Draft, write_draft

Method: TypeAlias = Literal["average", "bilinear", "near"]

_MIN_AVERAGING_RATIO = 1.25
"""Width of a target pixel in source pixels from which on pixels are averaged; below, averaging only blurs."""
_MAX_TRANSFORM_ERROR_PX = 0.01
"""Largest error, in target pixels, of interpolating the transformation between exact points."""
_MEMORY_MB = 256  # memory of `gdalwarp` for the blocks it warps, and as much again for its file cache


def warp_to_grid(
    draft: Draft,
    grid: Grid,
    path: Path,
    method: Method,
    nodes: npt.NDArray[np.float64] | None = None,
    threads: int = 1,
    control: Sequence[ControlPoint] = (),
) -> Draft:
    """Warp a raster to a grid, which may be rotated or sheared, with `gdalwarp`, in one resampling.

    Bands have no data independently of each other. A raster that is on the grid already is returned as it is. Both
    grids have a CRS. Labels need the method `near`. The correction of the georeference has `nodes` N x 4: x and y of
    a target pixel and the displacement dx, dy of its content, in target pixels. Control points of the raster, in the
    CRS of its grid, replace its transform.
    """
    if draft.grid == grid and nodes is None and not control:
        return draft
    # gdalwarp can write to a rotated grid only in a file that exists
    warped = write_draft(path, grid, draft.profile)
    nodata = str(draft.profile.nodata)
    no_data = ("-srcnodata", nodata, "-dstnodata", nodata, "-wo", "INIT_DEST=NO_DATA", "-wo", "UNIFIED_SRC_NODATA=NO")
    speed = ("-multi", "-wo", f"NUM_THREADS={threads}", "-wm", _MEMORY_MB, "--config", "GDAL_CACHEMAX", _MEMORY_MB)
    source, crs = draft.path, draft.grid.crs
    if nodes is not None:
        control, crs = _control_points(draft, grid, nodes, control), grid.crs
    if control:
        points = [part for values in control for part in ("-gcp", *values)]
        source = draft.path.with_suffix(".vrt")
        run_tool("gdal_translate", "-q", "-of", "VRT", "-a_srs", crs, *points, draft.path, source)
    splines = ("-tps",) if control else ()
    options = (*speed, *splines, "-r", method, "-et", _MAX_TRANSFORM_ERROR_PX, *no_data)
    run_tool("gdalwarp", *options, source, path, step=path.stem.replace("_", " "))
    return warped


def _control_points(
    draft: Draft, target: Grid, nodes: npt.NDArray[np.float64], control: Sequence[ControlPoint]
) -> list[ControlPoint]:
    """Control points, from pixels of the source to places in the CRS of the target, that contain a correction."""
    source = draft.grid
    x, y, dx, dy = nodes.T
    east, north = target.transform @ (x + 0.5, y + 0.5)
    content = target.transform @ (x + dx + 0.5, y + dy + 0.5)
    column, row = to_pixels(source, target.crs, *content, control=control)
    return [tuple(point) for point in np.column_stack([column, row, east, north]).tolist()]


def choose_method(source: Grid, target: Grid) -> Method:
    """Choose `average` where the target is clearly coarser than the source at its centre, else `bilinear`."""
    x, y = target.width / 2, target.height / 2
    east, north = target.transform @ (np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    column, row = to_pixels(source, target.crs, east, north)
    across, down = (column[1] - column[0], row[1] - row[0]), (column[2] - column[0], row[2] - row[0])
    ratio = abs(across[0] * down[1] - across[1] * down[0]) ** 0.5
    return "average" if ratio > _MIN_AVERAGING_RATIO else "bilinear"


def misregistered_grid(grid: Grid, matrix: npt.ArrayLike) -> Grid:
    """The grid on which to sample an image, misregistered by a 2 x 3 matrix, so that its content fits `grid`."""
    (a, b, c), (d, e, f) = np.asarray(matrix, float).tolist()
    half = Affine.translation(0.5, 0.5)
    return Grid(grid.crs, grid.transform @ half @ Affine(a, b, c, d, e, f) @ ~half, grid.width, grid.height)


def rescaled_grid(grid: Grid, resolution: float | None) -> Grid:
    """Return the grid with another pixel size and the same upper left corner, its size rounded to whole pixels."""
    if resolution is None:
        return grid
    t = grid.transform
    across, down = np.hypot(t.a, t.d) / resolution, np.hypot(t.b, t.e) / resolution
    if np.isclose(across, 1, atol=1e-9) and np.isclose(down, 1, atol=1e-9):
        return grid
    width, height = max(round(grid.width * across), 1), max(round(grid.height * down), 1)
    return Grid(grid.crs, t @ Affine.scale(1 / across, 1 / down), width, height)


def to_dtype(values: FloatArray, dtype: str, nodata: float | None) -> tuple[npt.NDArray[Any], float | None]:
    """Bring values, C x H x W, to the type of their file; return the value of no data as well (`choose_nodata`)."""
    dtype = exact_dtype(dtype)
    nodata = choose_nodata(dtype, nodata, lambda: not np.isnan(values).any())
    return cast(values, dtype, nodata), nodata


def exact_dtype(dtype: str) -> str:
    """Return the type, or float32 for types whose numbers single precision cannot represent exactly."""
    return dtype if dtype in ("uint8", "int8", "uint16", "int16") else "float32"


def stored_dtype(name: str, image: ImageRecord) -> str:
    """Type in which an image is stored: that of the files for optical ones, float32 for all others.

    Also float32 where files differ in the value of no data, or 8-bit bands lack data at different places.
    """
    tags = {repr(tag) for file in image.raster.files for tag in file.no_data}
    if name != "optical" or image.scale != "none" or len(tags) > 1:
        return "float32"
    dtype = exact_dtype(image.raster.dtype)
    alike = min(image.valid_shares) == 1 if len(image.raster.files) > 1 else len(set(image.valid_shares)) == 1
    alike &= len(image.raster.layers()) == 1
    return dtype if alike or dtype != "uint8" else "float32"


def choose_nodata(dtype: str, nodata: float | None, complete: Callable[[], bool]) -> float | None:
    """NaN for float32, else `nodata` if the type has it or, where pixels lack data, the largest number."""
    if dtype == "float32":
        return float("nan")
    info = np.iinfo(dtype)
    if nodata is not None and info.min <= nodata <= info.max and nodata == int(nodata):
        return nodata
    return None if complete() else float(info.max)


def cast(values: FloatArray, dtype: str, nodata: float | None) -> npt.NDArray[Any]:
    """Convert to one of the types of `exact_dtype`, with `nodata` in place of NaN."""
    if dtype == "float32":
        return values
    info = np.iinfo(dtype)
    empty = np.isnan(values)
    numbers = np.rint(values)
    np.copyto(numbers, 0, where=empty)
    whole = np.clip(numbers, info.min, info.max, out=numbers).astype(dtype)
    if nodata is None:
        return whole
    clash = (whole == int(nodata)) & ~empty
    if dtype == "uint8":
        clash &= clash.all(axis=0)  # in 8-bit images only all bands together mean no data
    whole[clash] = int(nodata) - 1 if nodata == info.max else int(nodata) + 1
    np.copyto(whole, int(nodata), where=empty)
    return whole
