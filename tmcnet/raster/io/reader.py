"""The one reader of rasters: pixel values as numbers with NaN for no data, or labels as class ids.

No data becomes NaN in `fill_no_data`. It is decided per band, by the file's nodata value or mask or by a declared
value in its place. In 8-bit images of several bands a value such as 0 is also an ordinary measurement, so there a
pixel is no data only where all bands are.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tmcnet.config import IGNORE
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.blocks import block_windows
from tmcnet.raster.io.geometry import Box, Grid, crs_name

FloatArray: TypeAlias = npt.NDArray[np.float32]
ByteArray: TypeAlias = npt.NDArray[np.uint8]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

# Broken files are reported as `InputError`; rasterio's log lines would only repeat it.
logging.getLogger("rasterio").setLevel(logging.CRITICAL)
# Tiles without a georeference are ordinary input here; where one is needed, the inventory checks for it.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@contextmanager
def open_raster(path: Path | str) -> Iterator[DatasetReader]:
    """Open a raster for reading; errors raised while it is open name the file.

    Raises:
        InputError: If the file is missing, is no raster, or is truncated.
    """
    try:
        with rasterio.open(path) as dataset:
            if dataset.driver == "PNG":
                _require_png_end(Path(path))
            yield dataset
    except RasterioError as error:
        reason = str(error.__cause__ or error).strip().rstrip(".")  # GDAL's message is in the cause, if there is one
        what = "does not exist" if not Path(path).exists() else f"cannot be read ({reason})"
        raise InputError(Problem(str(path), what, "Check the path, or fetch the file again.")) from None


def _require_png_end(path: Path) -> None:
    """GDAL silently fills the missing rows of a truncated PNG with zeros."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 64), 2)  # a few stray bytes may follow the last chunk
        if b"IEND" not in file.read():
            raise RasterioError("the PNG breaks off before its end")


def read_grid(path: Path | str) -> Grid:
    """Read size and georeference of a raster.

    Raises:
        InputError: If the file cannot be read.
    """
    with open_raster(path) as dataset:
        return grid_of(dataset)


def grid_of(dataset: DatasetReader) -> Grid:
    """The grid of an open raster."""
    return Grid(crs_name(dataset.crs), dataset.transform, dataset.width, dataset.height)


def data_bands(dataset: DatasetReader) -> list[int]:
    """Numbers of the bands that are measurements: all but the alpha band of a PNG.

    In a TIFF the alpha mark is ignored: GDAL puts it on the fourth of any four 8-bit bands.
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

    Example:
        >>> read_float("optical.tif", window=(0, 0, 256, 256)).shape
        (4, 256, 256)
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    parts = [_read_masked(p, window, nodata) for p in paths]
    if len({values.shape[1:] for values, _ in parts}) > 1:
        sizes = ", ".join(f"{p}: {v.shape[2]} x {v.shape[1]}" for p, (v, _) in zip(paths, parts, strict=True))
        raise InputError(Problem(str(paths[0]), f"files to be stacked differ in size ({sizes})", "Warp them alike."))
    result = fill_no_data(parts)
    return pad_to_window(result, window, np.nan) if window else result


def float_blocks(path: Path, nodata: float | None = None, rim: int = 0) -> Iterator[tuple[Box, FloatArray]]:
    """Read a raster as `read_float` does, block by block.

    Args:
        path: The file.
        nodata: Value that means no data, in place of what the file says.
        rim: Pixels read in addition on each side of a block; NaN outside the raster.

    Yields:
        The window of the block without its rim, and C x H x W values with it.

    Raises:
        InputError: If the file cannot be read.
    """
    with open_raster(path) as dataset:
        height, width = dataset.shape
        for box in block_windows(height, width, dataset.count):
            row, column, rows, columns = box
            wide = (row - rim, column - rim, rows + 2 * rim, columns + 2 * rim)
            values = fill_no_data([values_and_mask(dataset, inner_window(wide, height, width), nodata)])
            yield box, pad_to_window(values, wide, np.nan)


def is_complete(path: Path, nodata: float | None = None) -> bool:
    """Whether every pixel of a raster is valid."""
    return not any(np.isnan(values).any() for _, values in float_blocks(path, nodata))


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
    return pad_to_window(ids, window, IGNORE) if window else ids


def fill_no_data(parts: Sequence[tuple[npt.NDArray[Any], BoolArray]]) -> FloatArray:
    """Stack values and masks of files as numbers, with NaN where there is no data or a value is not finite."""
    valid = np.concatenate([mask for _, mask in parts])
    if all(values.dtype == np.uint8 for values, _ in parts):
        valid = unify_masks(valid)
    result = np.concatenate([values for values, _ in parts], dtype=np.float32, casting="unsafe")
    result[~valid | ~np.isfinite(result)] = np.nan
    return result


def unify_masks(valid: BoolArray) -> BoolArray:
    """Masks of an 8-bit image, C x H x W: a pixel is no data only where all bands are."""
    return np.broadcast_to(valid.any(axis=0), valid.shape)


def _read_masked(path: Path | str, box: Box | None, nodata: float | None) -> tuple[npt.NDArray[Any], BoolArray]:
    with open_raster(path) as dataset:
        return values_and_mask(dataset, inner_window(box, dataset.height, dataset.width), nodata)


def values_and_mask(
    dataset: DatasetReader, inside: Window, nodata: float | None
) -> tuple[npt.NDArray[Any], BoolArray]:
    """Read a window that is inside an open raster.

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


def inner_window(box: Box | None, height: int, width: int) -> Window:
    """The part of a window that is inside a raster of this size."""
    if box is None:
        return Window(0, 0, width, height)
    row, col, rows, cols = box
    top, left = min(max(row, 0), height), min(max(col, 0), width)
    bottom, right = max(min(row + rows, height), top), max(min(col + cols, width), left)
    return Window(left, top, right - left, bottom - top)


def pad_to_window(inside: npt.NDArray[Any], box: Box, fill: float) -> npt.NDArray[Any]:
    """Pad the part of a window that is inside a raster, (C x) h x w, to the whole window, (C x) H x W.

    Args:
        inside: The part inside the raster.
        box: The whole window, relative to the raster.
        fill: Value of the pixels outside.
    """
    row, col, height, width = box
    if inside.shape[-2:] == (height, width):
        return inside
    whole = np.full((*inside.shape[:-2], height, width), fill, inside.dtype)
    top, left = max(-row, 0), max(-col, 0)
    whole[..., top : top + inside.shape[-2], left : left + inside.shape[-1]] = inside
    return whole
