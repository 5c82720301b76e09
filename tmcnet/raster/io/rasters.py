"""Read and write rasters: one meaning of no data, one way to say that a file is broken, and no half-written files.

No data is told per band (the file's nodata value or mask, or the declared override). In 8-bit images of several
bands a value such as 0 is also an ordinary measurement, so there a pixel is no data only where every band is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.atomic import write_bytes
from tmcnet.raster.io.form import Compression, Form, describe, profile
from tmcnet.raster.io.opening import open_raster

FloatArray: TypeAlias = npt.NDArray[np.float32]
ByteArray: TypeAlias = npt.NDArray[np.uint8]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[int, int, int, int]
"""A window as (row, col, height, width) in pixels; it may reach past the edges."""


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie.

    Attributes:
        crs: `EPSG:...` or WKT; empty for none.
        transform: From (column, row) of pixel corners to map coordinates.
        width: Columns.
        height: Rows.
    """

    crs: str
    transform: Affine
    width: int
    height: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest upright rectangle around the raster: left, bottom, right, top."""
        corners = [self.transform @ (x, y) for x in (0, self.width) for y in (0, self.height)]
        xs, ys = [c[0] for c in corners], [c[1] for c in corners]
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def pixel_size(self) -> float:
        """Square root of the area of a pixel, in units of the CRS."""
        return float(abs(self.transform.determinant) ** 0.5)

    @property
    def georeference(self) -> dict[str, Any]:
        """What a new file on this grid is told of its place."""
        return {"crs": self.crs or None, "transform": self.transform}

    def window(self, box: Box) -> Grid:
        """The grid of a window of this raster."""
        row, col, height, width = box
        return Grid(self.crs, self.transform @ Affine.translation(col, row), width, height)


def data_bands(dataset: DatasetReader) -> list[int]:
    """Numbers of the bands that are measurements: all but the alpha band of a PNG.

    In a TIFF the alpha mark means nothing: GDAL puts it on the fourth of any four 8-bit bands.
    """
    if dataset.driver != "PNG":
        return list(dataset.indexes)
    return [i for i, c in zip(dataset.indexes, dataset.colorinterp, strict=True) if c.name != "alpha"]


def read_float(
    path: Path | str | Sequence[Path | str], window: Box | None = None, nodata: float | None = None
) -> FloatArray:
    """Read all bands of a raster, or of several that are stacked, as numbers with NaN for no data.

    Args:
        path: One file, or several of the same size.
        window: (row, col, height, width) in pixels; may reach past the edges. None: everything.
        nodata: Value that means no data, in place of what the file says. None: what the file says.

    Returns:
        C x H x W float32; NaN where there is no data, where values are not finite, and outside the file.

    Raises:
        InputError: If a file cannot be read, or files to be stacked differ in size.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    parts = [_read_masked(p, window, nodata) for p in paths]
    if len({values.shape[1:] for values, _ in parts}) > 1:
        sizes = ", ".join(f"{p}: {v.shape[2]} x {v.shape[1]}" for p, (v, _) in zip(paths, parts, strict=True))
        raise InputError(Problem(str(paths[0]), f"files to be stacked differ in size ({sizes})", "Warp them alike."))
    result = _joined(parts)
    return place(result, window, np.nan) if window else result


def read_window(dataset: DatasetReader, window: Box, nodata: float | None = None) -> FloatArray:
    """A window of an open raster, as `read_float` gives it."""
    inside = inner_window(window, dataset.height, dataset.width)
    return place(_joined([values_and_mask(dataset, inside, nodata)]), window, np.nan)


def _joined(parts: Sequence[tuple[npt.NDArray[Any], BoolArray]]) -> FloatArray:
    """Values and masks of files that are stacked, as numbers with NaN for no data."""
    valid = np.concatenate([mask for _, mask in parts])
    if all(values.dtype == np.uint8 for values, _ in parts):
        valid = unify_masks(valid)
    result = np.concatenate([values for values, _ in parts], dtype=np.float32, casting="unsafe")
    result[~valid | ~np.isfinite(result)] = np.nan
    return result


def unify_masks(valid: BoolArray) -> BoolArray:
    """Masks of an 8-bit image, C x H x W: a pixel is no data only where all bands are."""
    return np.broadcast_to(valid.any(axis=0), valid.shape)


def values_and_mask(
    dataset: DatasetReader, inside: Window, nodata: float | None
) -> tuple[npt.NDArray[Any], BoolArray]:
    """Read a window that lies inside an open raster.

    Returns:
        Values C x H x W in the type of the file, and where each band is valid.
    """
    bands = data_bands(dataset)
    values = dataset.read(bands, window=inside)
    if nodata is not None:
        invalid = np.isnan(values) if np.isnan(nodata) else values == nodata
        return values, ~invalid
    flags = dataset.mask_flag_enums[0]
    if MaskFlags.all_valid in flags or (MaskFlags.alpha in flags and dataset.driver != "PNG"):
        return values, np.ones(values.shape, bool)
    return values, dataset.read_masks(bands, window=inside) > 0


def _read_masked(path: Path | str, box: Box | None, nodata: float | None) -> tuple[npt.NDArray[Any], BoolArray]:
    with open_raster(path) as dataset:
        return values_and_mask(dataset, inner_window(box, dataset.height, dataset.width), nodata)


def inner_window(box: Box | None, height: int, width: int) -> Window:
    """The part of a window that lies inside a raster of this size."""
    if box is None:
        return Window(0, 0, width, height)
    row, col, rows, cols = box
    top, left = min(max(row, 0), height), min(max(col, 0), width)
    bottom, right = max(min(row + rows, height), top), max(min(col + cols, width), left)
    return Window(left, top, right - left, bottom - top)


def place(inside: npt.NDArray[Any], box: Box, fill: float) -> npt.NDArray[Any]:
    """Put what was read of a window, (C x) h x w, where it belongs in the whole window, (C x) H x W.

    Args:
        inside: The part that lay inside the raster.
        box: The whole window, given relative to the raster.
        fill: Value of the pixels outside.
    """
    row, col, height, width = box
    if inside.shape[-2:] == (height, width):
        return inside
    whole = np.full((*inside.shape[:-2], height, width), fill, inside.dtype)
    top, left = max(-row, 0), max(-col, 0)
    whole[..., top : top + inside.shape[-2], left : left + inside.shape[-1]] = inside
    return whole


def read_labels(path: Path | str, window: Box | None = None) -> ByteArray:
    """Read a label raster of class ids.

    Args:
        path: A file with one band of ids 0..254.
        window: (row, col, height, width) in pixels; may reach past the edges. None: everything.

    Returns:
        H x W uint8, 255 where there is no label and outside the file.

    Raises:
        InputError: If the file cannot be read or holds numbers that are no class ids.
    """
    values, valid = _read_masked(path, window, None)
    band = values[0]
    if band.dtype != np.uint8 and not np.isin(np.unique(band[valid[0]]), np.arange(256)).all():
        raise InputError(
            Problem(str(path), "holds values that are no class ids (0..254, 255 for void)", "Decode it first.")
        )
    ids = np.where(valid[0], band, IGNORE).astype(np.uint8)
    return place(ids, window, IGNORE) if window else ids


def read_grid(path: Path | str) -> Grid:
    """Read where the pixels of a raster lie.

    Raises:
        InputError: If the file cannot be read.
    """
    with open_raster(path) as dataset:
        return grid_of(dataset)


def grid_of(dataset: DatasetReader) -> Grid:
    """The grid of an open raster."""
    return Grid(crs_name(dataset.crs), dataset.transform, dataset.width, dataset.height)


def crs_name(crs: CRS | None) -> str:
    """Short name of a rasterio CRS: `EPSG:...` where that says all of it, else WKT, empty for none."""
    if not crs:
        return ""
    name: str = crs.to_string()
    return name if name.startswith("EPSG:") else crs.to_wkt()


def write_raster(
    path: Path | str,
    array: npt.NDArray[Any],
    grid: Grid | None,
    nodata: float | None = None,
    descriptions: Sequence[str] | None = None,
    classes: ClassTable | None = None,
    compression: Compression = "zstd",
) -> None:
    """Write a tiled, compressed GeoTIFF, whole or not at all.

    Args:
        path: Where to; folders are made.
        array: C x H x W or H x W.
        grid: Where the pixels lie; None for a raster without georeference.
        nodata: Value that means no data.
        descriptions: Names of the bands.
        classes: Classes of a label raster: become its colour table and the tags `CLASS_<id>`.
        compression: How the pixels are compressed.

    Raises:
        InputError: If the file cannot be written (disk full, no permission).
    """
    bands = array[None] if array.ndim == 2 else array
    form = Form(len(bands), bands.dtype.name, nodata, descriptions or (), classes, compression)
    height, width = bands.shape[1:]
    with MemoryFile() as memory:
        with memory.open(**profile(form, height, width), **(grid.georeference if grid else {})) as dataset:
            describe(dataset, form)
            dataset.write(bands)
        write_bytes(path, memory.getbuffer())
