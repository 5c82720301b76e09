"""The writer of rasters: tiled, compressed GeoTIFF, complete or not at all."""

from __future__ import annotations

import csv
import errno
import io
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.windows import Window

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.blocks import TILE_SIDE_PX
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.geometry import Box, GdalError, Grid

Block: TypeAlias = tuple[Box, npt.NDArray[Any]]  # a block of a raster: its window, and C x height x width values

_BIGTIFF_BYTES = 2**31  # uncompressed size from which a file may outgrow the 4 GiB of a classic TIFF
MAX_WHOLE_PX = 1024  # side up to which a raster is usually read as a whole; larger ones are read in windows
SCENE_BLOCK_PX = 64
"""Side of the blocks of larger rasters. Tiles that do not begin at a block are read nearly as fast as others, and the
files are 2 % larger than with 256 (benchmarks/README.md)."""
_ZSTD_LEVEL = 1
"""Level 1 of Zstandard is written several times as fast as deflate, read twice as fast, and as small to a few percent
(benchmarks/README.md); higher levels gain less than they cost."""


@contextmanager
def _whole(path: Path, *, make_folder: bool = False) -> Iterator[Path]:
    """The name of an unfinished file that becomes `path` once it is complete; failures name that."""
    # files of the module `tempfile` would not have the permissions of the umask
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch()
        yield draft
        draft.replace(path)
    except (RasterioError, GdalError, OSError) as error:
        raise _unwritable(path, error) from None
    finally:
        with suppress(OSError):
            draft.unlink()


def write_bytes(path: Path | str, content: bytes | memoryview) -> None:
    """Write a file whole or not at all: to a name beside it, then renamed."""
    with _whole(Path(path), make_folder=True) as draft, os.fdopen(os.open(draft, os.O_WRONLY), "wb") as file:
        file.write(content)


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as CSV, whole or not at all; cells that a row lacks are empty."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_bytes(path, text.getvalue().encode())


@dataclass(frozen=True)
class RasterProfile:
    """Bands, type and metadata of a raster file: all but its pixels and its place."""

    count: int
    dtype: str  # type of the numbers
    nodata: float | None = None  # value that means no data; None for none
    descriptions: Sequence[str] = ()
    classes: ClassTable | None = None  # classes of a label raster: become its colour table and the tags `CLASS_<id>`
    compressed: bool = True  # whether pixels are compressed, without loss

    def creation_options(self, height: int, width: int) -> dict[str, Any]:
        """Creation options of rasterio; the predictor of the compression depends on the type of the numbers."""
        dtype = np.dtype(self.dtype)
        options: dict[str, Any] = {
            "driver": "GTiff",
            "count": self.count,
            "height": height,
            "width": width,
            "dtype": dtype.name,
            "nodata": self.nodata,
            "photometric": "minisblack",
            "alpha": "unspecified",
            "interleave": "band",
        }
        if self.compressed:
            options |= {"compress": "zstd", "zstd_level": _ZSTD_LEVEL, "predictor": 3 if dtype.kind == "f" else 2}
        if min(height, width) > TILE_SIDE_PX:
            side = SCENE_BLOCK_PX if self.compressed and min(height, width) > MAX_WHOLE_PX else TILE_SIDE_PX
            options |= {"tiled": True, "blockxsize": side, "blockysize": side}
        if self.count * height * width * dtype.itemsize > _BIGTIFF_BYTES:
            options["bigtiff"] = "if_safer"
        return options

    def describe(self, dataset: DatasetWriter) -> None:
        """Write band names, colours and tags; before the pixels, so that all metadata is in one place of the file."""
        if self.classes is not None:
            colours = {c.id: (*c.rgb, 255) for c in self.classes.classes}
            dataset.write_colormap(1, colours | {IGNORE: (0, 0, 0, 0)})
            dataset.update_tags(1, **{f"CLASS_{c.id}": c.name for c in self.classes.classes})
        for number, name in enumerate(self.descriptions, start=1):
            dataset.set_band_description(number, name)


@dataclass(frozen=True)
class Draft:
    """An uncompressed raster that is soon removed."""

    path: Path
    grid: Grid  # its grid as given; the file may describe the same CRS in other words
    profile: RasterProfile  # its bands and type


def write_raster(
    path: Path | str,
    array: npt.NDArray[Any],
    grid: Grid | None,
    nodata: float | None = None,
    descriptions: Sequence[str] | None = None,
    classes: ClassTable | None = None,
) -> None:
    """Write an array as a tiled, compressed GeoTIFF, whole or not at all.

    Args:
        path: Where to; folders are made.
        array: C x H x W or H x W.
        grid: Place of the pixels; None for a raster without georeference.
        nodata: Value that means no data.
        descriptions: Names of the bands.
        classes: Classes of a label raster: become its colour table and the tags `CLASS_<id>`.

    Raises:
        InputError: If the file cannot be written (disk full, no permission).

    Example:
        >>> write_raster("label.tif", ids, read_grid("optical.tif"), nodata=255, classes=table)
    """
    bands = array[None] if array.ndim == 2 else array
    profile = RasterProfile(len(bands), bands.dtype.name, nodata, descriptions or (), classes)
    options = profile.creation_options(*bands.shape[1:]) | (grid.georeference if grid else {})
    with MemoryFile() as memory:
        with memory.open(**options) as dataset:
            profile.describe(dataset)
            dataset.write(bands)
        write_bytes(path, memory.getbuffer())


def write_blocks(path: Path, grid: Grid, profile: RasterProfile, parts: Iterable[Block], threads: int = 1) -> None:
    """Write a tiled, compressed GeoTIFF block by block, whole or not at all.

    Blocks come in the same order in every run; pixels that none of them covers are no data.
    """
    with _whole(path) as draft:
        _write(draft, grid, profile, parts, {"num_threads": threads})


def write_draft(path: Path, grid: Grid, profile: RasterProfile, parts: Iterable[Block] = ()) -> Draft:
    """Write an uncompressed GeoTIFF; tiles without data take no room on the disk."""
    try:
        _write(path, grid, replace(profile, compressed=False), parts, {"sparse_ok": True})
    except (RasterioError, GdalError, OSError) as error:
        raise _unwritable(path, error) from None
    return Draft(path, grid, profile)


def write_cog(source: Path, target: Path, *options: str) -> None:
    """Convert a raster to a cloud-optimised GeoTIFF, whole or not at all, with options of `gdal_translate`.

    The source must be in a form that all builds of GDAL's tools read: not the compressed files written here.
    """
    compression = ("-co", "COMPRESS=DEFLATE", "-co", "BIGTIFF=IF_SAFER")  # all programs know deflate
    with TemporaryDirectory(prefix=".cog_", dir=target.parent) as folder:
        draft = Path(folder) / target.name
        run_tool("gdal_translate", "-q", "-of", "COG", *compression, *options, source, draft)
        draft.replace(target)


def _write(path: Path, grid: Grid, profile: RasterProfile, parts: Iterable[Block], options: dict[str, Any]) -> None:
    options = profile.creation_options(grid.height, grid.width) | grid.georeference | options
    with rasterio.open(path, "w", **options) as dataset:
        profile.describe(dataset)
        for (row, column, height, width), values in parts:
            dataset.write(values, window=Window(column, row, width, height))
    _require_whole(path, sparse="sparse_ok" in options)


def _require_whole(path: Path, sparse: bool) -> None:
    """Check that all tiles are in the file: GDAL reports no error if the disk gets full with the last of them."""
    with rasterio.open(path) as dataset:
        blocks = [f"{column}_{row}" for (row, column), _ in dataset.block_windows(1)]
        places = [(at, band) for band in dataset.indexes for at in blocks]
        offsets = [int(dataset.get_tag_item(f"BLOCK_OFFSET_{at}", "TIFF", band) or -1) for at, band in places]
        at, band = places[np.argmax(offsets)]
        end = max(offsets) + int(dataset.get_tag_item(f"BLOCK_SIZE_{at}", "TIFF", band) or 0)
    if (not sparse and -1 in offsets) or end > path.stat().st_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unwritable(path: Path | str, error: Exception) -> InputError:
    reason = str(getattr(error, "strerror", None) or error.__cause__ or error).strip().rstrip(".")
    remedy = "Free some space, or let `results_dir` point to a disk and folder that can be written."
    return InputError(Problem(str(path), f"cannot be written ({reason})", remedy))
