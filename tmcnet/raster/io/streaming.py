"""Rasters read and written a block at a time, so that memory does not grow with the scene."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from tmcnet.raster.io.atomic import unwritable
from tmcnet.raster.io.form import TILE, Form, describe, profile
from tmcnet.raster.io.opening import open_raster
from tmcnet.raster.io.rasters import Box, FloatArray, Grid, grid_of, read_window

Part: TypeAlias = tuple[Box, npt.NDArray[Any]]
"""A block of a raster: its window, and C x height x width values."""

VALUES = 8_000_000
"""Numbers of a raster that are held at a time, about; each takes some 20 bytes while it is worked on."""
CACHE = 256 * 2**20
"""Bytes of file blocks that GDAL may hold; of its own accord it takes a share of the machine's memory."""


@dataclass(frozen=True)
class Draft:
    """A raster on the way, uncompressed; soon removed.

    Attributes:
        path: The file.
        grid: Its grid, as it was given: a file may tell a CRS in other words.
        form: What it holds.
    """

    path: Path
    grid: Grid
    form: Form


def little_cache() -> rasterio.Env:
    """A context in which GDAL's cache takes memory that does not depend on the machine."""
    return rasterio.Env(GDAL_CACHEMAX=CACHE)


def blocks(height: int, width: int, bands: int) -> list[Box]:
    """Windows that cover a raster, row by row, each a multiple of a file's tiles or cut off by the edge."""
    columns = min(max(VALUES // (bands * TILE * TILE), 1) * TILE, width)
    rows = max(VALUES // (bands * columns * TILE), 1) * TILE
    return [
        (row, column, min(rows, height - row), min(columns, width - column))
        for row in range(0, height, rows)
        for column in range(0, width, columns)
    ]


def float_blocks(path: Path, nodata: float | None = None, rim: int = 0) -> Iterator[tuple[Box, FloatArray]]:
    """Read a raster as `read_float` does, block by block.

    Args:
        path: The file.
        nodata: Value that means no data, in place of what the file says.
        rim: So many pixels more are read on each side of a block; NaN outside the raster.

    Yields:
        The window of the block without its rim, and C x H x W values with it.

    Raises:
        InputError: If the file cannot be read.
    """
    with open_raster(path) as dataset:
        grid = grid_of(dataset)
        for row, column, height, width in blocks(grid.height, grid.width, dataset.count):
            wide = (row - rim, column - rim, height + 2 * rim, width + 2 * rim)
            yield (row, column, height, width), read_window(dataset, wide, nodata)


def write_blocks(path: Path, grid: Grid, form: Form, parts: Iterable[Part], threads: int = 1) -> None:
    """Write a tiled, compressed GeoTIFF, whole or not at all.

    Args:
        path: Where to.
        grid: Where the pixels lie.
        form: Bands, type and no data.
        parts: Blocks in an order that is always the same; what none of them covers is no data.
        threads: How many threads compress.

    Raises:
        InputError: If the file cannot be written (disk full, no permission).
    """
    draft: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        draft = Path(name)
        _write(draft, grid, form, parts, {"num_threads": threads})
        draft.chmod(0o644)
        draft.replace(path)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise _unwritable(path, error) from None
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def write_draft(path: Path, grid: Grid, form: Form, parts: Iterable[Part] = ()) -> Draft:
    """Write an uncompressed GeoTIFF; tiles without data take no room on the disk.

    Raises:
        InputError: If the file cannot be written.
    """
    try:
        _write(path, grid, replace(form, compression="none"), parts, {"sparse_ok": True})
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise _unwritable(path, error) from None
    return Draft(path, grid, form)


def _write(path: Path, grid: Grid, form: Form, parts: Iterable[Part], options: dict[str, Any]) -> None:
    options = profile(form, grid.height, grid.width) | grid.georeference | options
    with rasterio.open(path, "w", **options) as dataset:
        describe(dataset, form)
        for (row, column, height, width), values in parts:
            dataset.write(values, window=Window(column, row, width, height))
    _require_whole(path, sparse="sparse_ok" in options)


def _require_whole(path: Path, sparse: bool) -> None:
    """Look whether all tiles are in the file; where the disk gets full with the last of them, GDAL is silent."""
    size = path.stat().st_size
    with rasterio.open(path) as dataset:
        for band in dataset.indexes:
            for (row, column), _ in dataset.block_windows(band):
                told = [dataset.get_tag_item(f"BLOCK_{k}_{column}_{row}", "TIFF", band) for k in ("OFFSET", "SIZE")]
                if (None in told and not sparse) or (None not in told and sum(map(int, told)) > size):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unwritable(path: Path, error: Exception) -> Exception:
    reason = getattr(error, "strerror", None) or str(error.__cause__ or error)
    return unwritable(path, reason.strip().rstrip("."))


def is_complete(path: Path, nodata: float | None = None) -> bool:
    """Whether every pixel of a raster is valid."""
    return not any(np.isnan(values).any() for _, values in float_blocks(path, nodata))
