"""The one reader of rasters: files, mosaics and stacks, as numbers with NaN for no data or as class ids.

What a file says about no data counts per file and per band: nodata tags, masks inside the file or beside it, alpha
bands, and a declared value in place of the tags. In 8-bit images a value such as 0 is also an ordinary measurement,
so there a pixel has no data by its value only where all bands do. Tags for scale and offset are applied, and complex
numbers become power.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from rasterio.io import DatasetReader

from tmcnet.config import IGNORE
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.blocks import block_windows
from tmcnet.raster.io.files import (
    ByteArray,
    FileWindow,
    FloatArray,
    RasterFile,
    inner_window,
    joined,
    numpy_type,
    pad_to_window,
    read_mosaic,
)
from tmcnet.raster.io.geometry import Box, ControlPoint, Grid, finest
from tmcnet.raster.io.opening import open_raster


@dataclass(frozen=True)
class Raster:
    """An image or label in files: one, or several that are stacked as bands.

    Example:
        >>> raster = Raster.of("b02.tif", "b03.tif", nodata=0)
        >>> raster.read(0, 0, 256, 256).shape
        (2, 256, 256)
    """

    files: tuple[RasterFile, ...]

    @classmethod
    def of(cls, *paths: Path | str, nodata: float | None = None) -> Raster:
        """A stack of files with a declared value of no data, or None for what they say."""
        return cls(tuple(RasterFile((str(path),), nodata=nodata) for path in paths))

    @cached_property
    def grid(self) -> Grid:
        """Grid of the file with the smallest pixels."""
        return finest([file.header.grid for file in self.files])

    @property
    def shape(self) -> tuple[int, int, int]:
        """C x H x W."""
        return sum(file.header.count for file in self.files), self.grid.height, self.grid.width

    @property
    def dtype(self) -> str:
        """Smallest type that holds the numbers of all files without loss."""
        if any(file.header.has_scaling for file in self.files):
            return "float64"
        return np.result_type(*(numpy_type(file.header.dtype) for file in self.files)).name

    @property
    def control(self) -> tuple[ControlPoint, ...]:
        """Control points of the first file, where they are its georeference."""
        return self.files[0].header.control

    def layers(self) -> list[Raster]:
        """The files in groups of one grid, which can be read as one; their order is kept."""
        groups = itertools.groupby(self.files, key=lambda file: (file.header.grid, file.header.control))
        return [Raster(tuple(files)) for _, files in groups]

    @contextmanager
    def open(self) -> Iterator[OpenRaster]:
        """Open the files to read several windows; files to be stacked must have one size."""
        with ExitStack() as stack:
            datasets = [
                stack.enter_context(open_raster(file.paths[0], remote=file.remote)) if len(file.paths) == 1 else None
                for file in self.files
            ]
            opened = OpenRaster(self, datasets)
            if len(set(opened.sizes)) > 1:
                pairs = zip(self.files, opened.sizes, strict=True)
                sizes = ", ".join(f"{file.label}: {width} x {height}" for file, (height, width) in pairs)
                what = f"files to be stacked differ in size ({sizes})"
                raise InputError(Problem(self.files[0].label, what, "Warp them alike."))
            yield opened

    def read(self, row: int, col: int, height: int, width: int) -> FloatArray:
        """Read a window as C x height x width numbers; NaN for no data, also outside the raster."""
        with self.open() as opened:
            return opened.read((row, col, height, width))

    def read_all(self) -> FloatArray:
        """Read everything as C x H x W numbers."""
        with self.open() as opened:
            return opened.read()

    def blocks(self, rim: int = 0) -> Iterator[tuple[Box, FloatArray]]:
        """Read the raster block by block: the window of the block, and C x H x W values with a rim on each side.

        The rim is NaN outside the raster.
        """
        with self.open() as opened:
            height, width = opened.sizes[0]
            for box in block_windows(height, width, sum(file.header.count for file in self.files)):
                row, column, rows, columns = box
                yield box, opened.read((row - rim, column - rim, rows + 2 * rim, columns + 2 * rim))


def place_of_tile(files: Sequence[RasterFile]) -> Grid:
    """Grid of the first of the files of a ready-made tile with CRS and transform; else of the first, without CRS."""
    headers = (file.header for file in files)
    placed = next((header.grid for header in headers if header.grid.crs and header.georeferenced), None)
    return placed or replace(files[0].header.grid, crs="")


class OpenRaster:
    """A raster whose files are open; the tiles of a mosaic are opened as they are needed."""

    def __init__(self, raster: Raster, datasets: Sequence[DatasetReader | None]) -> None:
        self._raster, self._datasets = raster, datasets
        self.sizes = [
            (file.header.grid.height, file.header.grid.width) if dataset is None else dataset.shape
            for file, dataset in zip(raster.files, datasets, strict=True)
        ]

    def parts(self, box: Box) -> list[FileWindow]:
        """Read the part of a window that is inside the raster, file by file, in the types of the files."""
        inside = inner_window(box, *self.sizes[0])
        pairs = zip(self._raster.files, self._datasets, strict=True)
        windows = [read_mosaic(file, inside) if data is None else file.read(data, inside) for file, data in pairs]
        coded = [part.valid.any(axis=0) for part in windows if part.coded]
        anywhere = np.logical_or.reduce(coded) if coded else None
        return [
            part
            if anywhere is None or not part.coded
            else replace(part, valid=np.broadcast_to(anywhere, part.valid.shape))
            for part in windows
        ]

    def read(self, box: Box | None = None) -> FloatArray:
        """Read a window, or everything, as numbers; see `Raster.read`."""
        box = box or (0, 0, *self.sizes[0])
        return pad_to_window(joined([part.numbers for part in self.parts(box)]), box, np.nan)


def read_grid(path: Path | str) -> Grid:
    """Read size and georeference of a raster."""
    return Raster.of(path).grid


def read_float(path: Path | str, window: Box | None = None) -> FloatArray:
    """Read all bands of a file, or a window (row, col, height, width) of it; see `Raster.read`.

    Example:
        >>> read_float("optical.tif", window=(0, 0, 256, 256)).shape
        (4, 256, 256)
    """
    with Raster.of(path).open() as opened:
        return opened.read(window)


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
    with Raster.of(path).open() as opened:
        return _read_ids(path, opened, window or (0, 0, *opened.sizes[0]))


def label_blocks(path: Path | str, band: int = 0) -> Iterator[tuple[Box, ByteArray]]:
    """Read a band, counted from 0, of a label raster block by block: windows and ids; see `read_labels`."""
    with Raster.of(path).open() as opened:
        height, width = opened.sizes[0]
        for box in block_windows(height, width, 1):
            yield box, _read_ids(path, opened, box, band)


def _read_ids(path: Path | str, opened: OpenRaster, box: Box, number: int = 0) -> ByteArray:
    (part,) = opened.parts(box)
    band, valid = part.values[number], part.bands_valid[number]
    if band.dtype != np.uint8 and not np.isin(np.unique(band[valid]), np.arange(256)).all():
        raise InputError(
            Problem(str(path), "holds values that are no class ids (0..254, 255 for void)", "Decode it first.")
        )
    return pad_to_window(np.where(valid, band, IGNORE).astype(np.uint8), box, IGNORE)
