"""One raster file, or the tiles of a mosaic: its header, and windows of its values with what is no data in them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.io.geometry import (
    Box,
    ControlPoint,
    Coordinates,
    Grid,
    control_points,
    crs_name,
    fit_affine,
    interpolated,
    to_ground,
    to_pixels,
)
from tmcnet.raster.io.metadata import (
    is_lossy,
    kind_of_colours,
    marked_colour,
    missing_value,
    stated_scaling,
    tiff_tags,
    time_axis,
    wavelength,
)
from tmcnet.raster.io.opening import files_of, open_raster
from tmcnet.raster.io.products import product_offsets

FloatArray: TypeAlias = npt.NDArray[np.float32]
ByteArray: TypeAlias = npt.NDArray[np.uint8]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Header:
    """What a file, or the tiles of a mosaic, say about themselves."""

    grid: Grid  # size and georeference
    georeferenced: bool  # whether there is a transform
    count: int  # number of bands that are measurements
    dtype: str  # type of the numbers
    nodata: tuple[float | None, ...]  # no-data tag of each of these bands; None for none
    scaling: tuple[tuple[float, float], ...]  # scale and offset tag of each of these bands
    alpha: bool  # whether the last band is marked as alpha but counted as a measurement
    block_rows: int  # height of the blocks of the first band
    files: tuple[str, ...]  # the files that GDAL reads it from, without overviews
    # ground control points, in place of a transform: column, row, x and y in the CRS of the grid, which is then only
    # the affine grid that fits them best. Also the places that rational polynomials (RPC) give
    control: tuple[ControlPoint, ...] = ()
    names: tuple[str, ...] = ()  # description of each of these bands; empty for none
    marked: tuple[str, ...] = ()  # colour as which each of these bands is marked, such as `blue`; empty for none
    # `palette` if the values of the first band are indexes of colours; `CMYK` or `CIELAB` if GDAL makes RGB of them;
    # `MINISWHITE` if the smallest number is white
    colours: str = ""
    n_images: int = 0  # number of images in it, of which this is the first; 0 for a single one
    has_geolocation: bool = False  # whether arrays give the place of each pixel
    # offset that the metadata of the product adds to the numbers of each of these bands, part of `scaling`
    product_offsets: tuple[float, ...] = ()
    units: tuple[str, ...] = ()  # unit of the values of each of these bands; empty for none
    wavelengths: tuple[float, ...] = ()  # wavelength of the centre of each of these bands in micrometres; 0 for none
    stated_scaling: str = ""  # scale or offset in metadata of other programs, which GDAL does not take for its tags
    stated_nodata: str = ""  # a value of no data in metadata of netCDF beside the tag, which masks nothing
    times: str = ""  # axis of time and its unit, by whose steps these bands differ, in a netCDF
    is_lossy: bool = False  # whether its compression changed the numbers, or may have
    orientation: str = ""  # how a picture is to be turned (EXIF, TIFF), which GDAL ignores; empty for upright ones

    @property
    def has_scaling(self) -> bool:
        """Whether scale or offset change the values."""
        return any(pair != (1, 0) for pair in self.scaling)

    @property
    def tags(self) -> list[tuple[float, float]]:
        """Scale and offset of each band without the offset that the metadata of the product adds."""
        pairs = zip(self.scaling, self.product_offsets, strict=True)
        return [(scale, offset - scale * added) for (scale, offset), added in pairs]

    @property
    def is_tagged(self) -> bool:
        """Whether a tag for scale or offset, or a declared one, changes the values."""
        return any(pair != (1, 0) for pair in self.tags)


MAX_PIXELS = 10**11  # larger files are refused at once: to read them takes hours
_CODE_ROUNDING = 1e-6  # how far scaled codes of labels may be from whole numbers
MAX_BLOCKS_GIB = 4  # memory for one row of blocks, the least that can be read of a compressed file


@dataclass(frozen=True)
class RasterFile:
    """A file, or the tiles of a mosaic, and what is declared about it in place of what it says."""

    # the file; of a mosaic the tiles, where they overlap the last on top except for its no data
    paths: tuple[str, ...]
    name: str = ""  # its name in messages and tables; empty: the path
    nodata: float | None = None  # value that means no data, in place of the nodata tags. None: as tagged
    # scale and offset, in place of the tags; without offset that of the metadata of the product. None: as tagged
    scaling: tuple[float, float | None] | None = None
    crs: str = ""  # CRS for a file without one
    alpha: bool = False  # whether the last band is a mask: 0 means no data
    remote: bool = False  # whether GDAL may use the network for it
    quality: str = ""  # a raster of codes on any grid; empty for none
    quality_codes: tuple[int, ...] = ()  # codes in it that mean no data here
    quality_bits: tuple[int, ...] = ()  # bits in it that mean no data here where one of them is set

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.name or self.paths[0]

    @property
    def no_data(self) -> tuple[float | None, ...]:
        """The value of each band that means no data: the declared one, else its tag; None for none."""
        tags = self.header.nodata
        return tags if self.nodata is None else (self.nodata,) * len(tags)

    @cached_property
    def header(self) -> Header:
        """What it says about itself."""
        first = self.tiles[0]
        if len(self.tiles) == 1:
            return first
        left, top, right, bottom = (
            pick(side) for pick, side in zip((min, min, max, max), zip(*self.places, strict=True), strict=True)
        )
        place = first.grid.transform @ Affine.translation(left, top)
        grid = Grid(first.grid.crs, place, right - left, bottom - top)
        return replace(first, grid=grid)

    @cached_property
    def tiles(self) -> tuple[Header, ...]:
        """Header of each path."""
        headers = []
        for path in self.paths:
            with open_raster(path, remote=self.remote) as dataset:
                headers.append(self._header(dataset))
        return tuple(headers)

    @cached_property
    def places(self) -> list[tuple[int, int, int, int]]:
        """Left, top, right and bottom of each path in pixels of the first."""
        first = self.tiles[0].grid
        corners = [~first.transform @ (t.grid.transform.c, t.grid.transform.f) for t in self.tiles]
        sizes = [(t.grid.width, t.grid.height) for t in self.tiles]
        return [
            (round(x), round(y), round(x) + width, round(y) + height)
            for (x, y), (width, height) in zip(corners, sizes, strict=True)
        ]

    def _header(self, dataset: DatasetReader) -> Header:
        bands, files, marks = self.bands(dataset), dataset.files, dataset.colorinterp
        self._require_usable(dataset, len(bands), files)
        at = [band - 1 for band in bands]
        scaling, added = self._scaling(dataset, bands)
        tags, structure = dataset.tags(), dataset.tags(ns="IMAGE_STRUCTURE")
        unread = tiff_tags(dataset, files)
        grid = Grid(crs_name(dataset.crs) or self.crs, dataset.transform, dataset.width, dataset.height)
        has_transform = not grid.transform.is_identity
        crs, control = ("", ()) if has_transform else control_points(dataset)
        if control:
            grid = Grid(crs, fit_affine(control), dataset.width, dataset.height)
        return Header(
            grid,
            bool(control) or has_transform,
            len(bands),
            _common_type(dataset, bands),
            tuple(dataset.nodatavals[i] for i in at),
            tuple(scaling),
            len(at) > 1 and marks[at[-1]] is ColorInterp.alpha,
            dataset.block_shapes[0][0],
            tuple(file for file in files if not file.endswith(".ovr")),
            control,
            tuple(dataset.descriptions[i] or "" for i in at),
            tuple(marked_colour(dataset.dtypes[i], marks[i].name) for i in at),
            kind_of_colours(dataset, bands[0], structure),
            len(dataset.subdatasets),
            bool(dataset.tags(ns="GEOLOCATION")),
            tuple(added),
            tuple(dataset.units[i] or unread.units[i] for i in at),
            tuple(wavelength(dataset, band) for band in bands),
            stated_scaling(dataset, bands, tags) or unread.scaling,
            next((text for band in bands if (text := missing_value(dataset, band))), ""),
            time_axis(dataset, bands, tags),
            is_lossy(dataset, structure),
            tags.get("EXIF_Orientation", unread.orientation).strip("01"),
        )

    def _require_usable(self, dataset: DatasetReader, bands: int, files: Sequence[str]) -> None:
        _, a, b, _, d, e = transform = dataset.get_transform()
        size = f"{dataset.width} x {dataset.height} pixels"
        if not all(map(math.isfinite, transform)) or a * e == b * d:
            what = f"has no usable geotransform: {', '.join(f'{value:g}' for value in transform)}"
            raise InputError(Problem(self.label, what, "Give its pixels a size (`gdal_translate -a_ullr ...`)."))
        if dataset.width * dataset.height > MAX_PIXELS:
            what = f"has {size}, more than the limit of {MAX_PIXELS:.0e}"
            raise InputError(Problem(self.label, what, "Cut it into scenes."))
        for scale, offset in zip(dataset.scales, dataset.offsets, strict=True):
            if self.scaling is None and not (math.isfinite(scale * offset) and scale):
                what = f"has tags that turn all numbers into one: scale {scale:g}, offset {offset:g}"
                raise InputError(
                    Problem(self.label, what, "Correct the tags (`gdal_edit.py -scale ... -offset ...`).")
                )
        no_masks = [MaskFlags.all_valid], [MaskFlags.nodata]
        if (mask := f"{dataset.name}.msk") in files and dataset.mask_flag_enums[0] in no_masks:
            what = "is the mask of an image of another size, so that it has no effect"
            raise InputError(Problem(mask, what, "Remove it, or write the mask of this image."))
        is_link = len(files) == 1 and os.path.islink(dataset.name)  # noqa: PTH114 - faster than paths
        if is_link and (beside := files_of(Path(dataset.name).resolve())[1:]):
            what = f"is a link, beside which GDAL does not find {format_names(beside)}"
            raise InputError(Problem(self.label, what, "Link these as well, or name the file that it points to."))
        rows = dataset.block_shapes[0][0]
        gib = rows * dataset.width * bands * numpy_type(dataset.dtypes[0]).itemsize / 2**30
        if gib > MAX_BLOCKS_GIB:
            what = f"has {size} in blocks of {rows} rows, {gib:.0f} GiB at a time; the limit is {MAX_BLOCKS_GIB}"
            remedy = "Write it with smaller blocks: `gdal_translate -co TILED=YES -co BLOCKYSIZE=256 ...`."
            raise InputError(Problem(self.label, what, remedy))

    def bands(self, dataset: DatasetReader) -> list[int]:
        """Numbers of the bands that are measurements.

        The alpha band of a PNG never is one. In a TIFF the alpha mark alone means nothing: GDAL puts it on the fourth
        of any four 8-bit bands.
        """
        if self.alpha:
            return list(dataset.indexes)[:-1]
        if dataset.driver != "PNG":
            return list(dataset.indexes)
        return [i for i, c in zip(dataset.indexes, dataset.colorinterp, strict=True) if c is not ColorInterp.alpha]

    def _scaling(self, dataset: DatasetReader, bands: list[int]) -> tuple[list[tuple[float, float]], list[float]]:
        """Scale and offset of each of these bands, and the part of the offset that follows from the product."""
        added = product_offsets(dataset, tuple(bands))
        declared = [self.scaling] * len(bands) if self.scaling else None
        tags = [(dataset.scales[band - 1], dataset.offsets[band - 1] or None) for band in bands]
        pairs = list(zip(declared or tags, added, strict=True))
        scaling = [(scale, scale * more if offset is None else offset) for (scale, offset), more in pairs]
        return scaling, [more if offset is None else 0.0 for (_, offset), more in pairs]

    def read(self, dataset: DatasetReader, inside: Window) -> FileWindow:
        """Read a window that is inside an open file."""
        bands = self.bands(dataset)
        scaling, _ = self._scaling(dataset, bands)
        if len(set(dataset.dtypes)) == 1:
            values = dataset.read(bands, window=inside)
        else:  # as in virtual rasters
            values = np.stack([dataset.read(band, window=inside) for band in bands])
        flags = dataset.mask_flag_enums
        mask = self._mask(dataset, bands[0], inside)
        if self.quality:
            good = self._good(dataset, inside)
            mask = good if mask is None else mask & good
        tags = [dataset.nodatavals[band - 1] for band in bands]
        own = [not flags[band - 1] for band in bands]  # masks of single bands
        coded = values.dtype == np.uint8 and not any(own)
        if self.nodata is not None:
            valid = ~_equals(values, self.nodata)
        elif all(tag is None for tag in tags) and MaskFlags.nodata not in flags[bands[0] - 1]:
            valid, coded = np.ones(values.shape, bool), False  # a broadcast value is many times slower to use
        elif mask is None and not any(own) and values.dtype.kind != "c" and not never_equal(values.dtype, tags):
            valid = dataset.read_masks(bands, window=inside) > 0
        else:
            # GDAL drops the tags where there is a mask, compares only the real part of complex numbers, and cuts off
            # the fraction of a tag of whole numbers
            valid = np.stack([~_equals(v, t) for v, t in zip(values, tags, strict=True)])
        if values.dtype.kind in "iu" and values.dtype.itemsize > 4:
            self._require_one_value(values, valid)
        if any(own):
            valid = valid & ((dataset.read_masks(bands, window=inside) > 0) | ~np.array(own)[:, None, None])
        return FileWindow(values, valid, mask, scaling, coded)

    def _require_one_value(self, values: npt.NDArray[Any], valid: BoolArray) -> None:
        """Refuse long numbers that are no data by value, but differ: beyond 2^53 they are compared in 53 bits."""
        for band, kept in zip(values, valid, strict=True):
            if (hidden := band[~kept]).size and hidden.min() != hidden.max():
                what = f"holds {hidden.min()} and {hidden.max()}, which its value of no data does not distinguish"
                remedy = "Write smaller numbers (`gdal_translate -ot Int32`), or no data as a mask."
                raise InputError(Problem(self.label, what, remedy))

    @cached_property
    def quality_file(self) -> RasterFile:
        """The quality mask."""
        return RasterFile((self.quality,), crs=self.crs, remote=self.remote)

    def _good(self, dataset: DatasetReader, inside: Window) -> BoolArray:
        """Pixels whose nearest code in the quality mask does not mean no data; outside the mask the code is 0.

        Where the quality mask is masked itself, or NaN, the quality is not known: no data.
        """
        own, mask = self._header(dataset), self.quality_file.header
        if (bool(own.grid.crs), own.georeferenced) != (bool(mask.grid.crs), mask.georeferenced):
            what = f"is the quality mask of {self.label}, but only one of them has a CRS, or a geotransform"
            raise InputError(Problem(self.quality, what, "Assign it (`gdal_edit.py -a_srs ... -a_ullr ...`)."))

        def to_mask(columns: Coordinates, rows: Coordinates) -> tuple[Coordinates, Coordinates]:
            at = to_ground(own.control, columns, rows) if own.control else own.grid.transform @ (columns, rows)
            return to_pixels(mask.grid, own.grid.crs, *at, control=mask.control)

        shape = int(inside.height), int(inside.width)
        places = interpolated(to_mask, inside.row_off, inside.col_off, *shape)
        x, y = (
            np.clip(np.nan_to_num(np.floor(at), nan=-1), -1, side).astype(np.int64)
            for at, side in zip(places, (mask.grid.width, mask.grid.height), strict=True)
        )
        box = int(y.min()), int(x.min()), int(np.ptp(y)) + 1, int(np.ptp(x)) + 1
        window = inner_window(box, mask.grid.height, mask.grid.width)
        with open_raster(self.quality, remote=self.remote) as quality:
            codes = quality.read(None if self.quality_bits else [1], window=window)
            empty = self.is_bad(codes) | np.isnan(codes).any(axis=0)
            if (kept := self.quality_file._mask(quality, 1, window)) is not None:
                empty |= ~kept
        outside = bool(self.is_bad(np.zeros((1, 1, 1), np.uint8)))
        return np.asarray(~pad_to_window(empty, box, outside)[y - box[0], x - box[1]])

    def is_bad(self, mask: npt.NDArray[Any]) -> BoolArray:
        """H x W, where values of the quality mask, C x H x W, mean no data: several bands are bits of one number."""
        bad = np.isin(mask[0], self.quality_codes)
        if self.quality_bits:
            codes = np.nan_to_num(mask[0]).astype(np.int64)
            if len(mask) > 1:
                codes = sum((band != 0).astype(np.int64) << bit for bit, band in enumerate(mask))
            bad |= (codes & sum(1 << bit for bit in set(self.quality_bits))) != 0
        return np.asarray(bad)

    def _mask(self, dataset: DatasetReader, band: int, inside: Window) -> BoolArray | None:
        """Pixels that a mask or an alpha band keeps; None without one."""
        kept: BoolArray | None = dataset.read(dataset.count, window=inside) != 0 if self.alpha else None
        flags = dataset.mask_flag_enums[band - 1]
        if MaskFlags.per_dataset not in flags or MaskFlags.nodata in flags:
            return kept
        if MaskFlags.alpha in flags and dataset.driver != "PNG":
            return kept
        mask = np.asarray(dataset.read_masks(band, window=inside) > 0)
        return mask if kept is None else mask & kept


@dataclass(frozen=True)
class FileWindow:
    """A window of one file."""

    values: npt.NDArray[Any]  # C x H x W in the type of the file
    valid: BoolArray  # C x H x W, false where a value means no data
    mask: BoolArray | None  # H x W, false where a mask or an alpha band says so; None without one
    scaling: Sequence[tuple[float, float]]  # scale and offset of each band
    coded: bool = False  # whether `valid` follows from values of 8 bits

    @property
    def bands_valid(self) -> BoolArray:
        """C x H x W, where there is data."""
        return self.valid if self.mask is None else self.valid & self.mask

    @property
    def codes(self) -> npt.NDArray[Any]:
        """The values of a label; with tags for scale or offset, what they mean."""
        if not self.is_scaled:
            return self.values
        scaled = np.stack([band * np.float64(a) + b for band, (a, b) in zip(self.values, self.scaling, strict=True)])
        whole = np.rint(scaled)
        # a tag such as 0.1 is no exact number, least of all in single precision
        return np.where(np.isclose(scaled, whole, rtol=_CODE_ROUNDING, atol=_CODE_ROUNDING), whole, scaled)

    @property
    def numbers(self) -> FloatArray:
        """C x H x W, what the values mean: scaled, complex ones as power; NaN for no data and what is not finite."""
        result, power = np.empty(self.values.shape, np.float32), self.values.dtype.kind == "c"
        with np.errstate(over="ignore"):  # what single precision cannot hold becomes infinite, which is no data
            for target, band, (scale, offset) in zip(result, self.values, self.scaling, strict=True):
                scaled = band * np.float64(scale) + offset if self.is_scaled else band
                target[...] = scaled.real**2 + scaled.imag**2 if power else scaled
        if self.is_scaled or self.values.dtype.kind not in "iu":
            np.copyto(result, np.nan, where=~np.isfinite(result))
        if not self.valid.all():
            np.copyto(result, np.nan, where=~self.valid)
        if self.mask is not None:
            np.copyto(result, np.nan, where=~self.mask)
        return result

    @cached_property
    def is_scaled(self) -> bool:
        """Whether scale or offset change the values."""
        return any(pair != (1, 0) for pair in self.scaling)


def read_mosaic(file: RasterFile, inside: Window) -> FileWindow:
    """Read a window of a mosaic: tiles one over the other, no data where none of them has any."""
    left, top = (min(place[side] for place in file.places) for side in (0, 1))
    first, shape = file.header, (int(inside.height), int(inside.width))
    dtype = numpy_type(first.dtype)
    values, valid = np.zeros((first.count, *shape), dtype), np.zeros((first.count, *shape), bool)
    mask = np.zeros(shape, bool)
    for path, tile, (x, y, *_) in zip(file.paths, file.tiles, file.places, strict=True):
        row, column = int(inside.row_off) + top - y, int(inside.col_off) + left - x
        window = inner_window((row, column, *shape), tile.grid.height, tile.grid.width)
        if not window.width or not window.height:
            continue
        with open_raster(path, remote=file.remote) as dataset:
            part = file.read(dataset, window)
        covered = np.s_[
            int(window.row_off) - row : int(window.row_off + window.height) - row,
            int(window.col_off) - column : int(window.col_off + window.width) - column,
        ]
        shown = part.bands_valid.any(axis=0) if dtype == np.uint8 else part.bands_valid
        values[:, *covered] = np.where(shown | ~valid[:, *covered], part.values, values[:, *covered])
        valid[:, *covered] |= shown
        mask[covered] |= True if part.mask is None else part.mask
    return FileWindow(values, valid, mask, first.scaling, coded=dtype == np.uint8)


def numpy_type(dtype: str) -> np.dtype[Any]:
    """The type in which rasterio returns values of a type that files have."""
    return np.dtype(dtype.replace("complex_int16", "complex64"))


def _common_type(dataset: DatasetReader, bands: Sequence[int]) -> str:
    """Smallest type that holds the numbers of all of these bands."""
    types = {dataset.dtypes[band - 1] for band in bands}
    return types.pop() if len(types) == 1 else np.result_type(*map(numpy_type, types)).name


def never_equal(dtype: np.dtype[Any], tags: Sequence[float | None]) -> list[float]:
    """Values of no data that no number of a type of whole numbers is equal to; NaN is no value."""
    if dtype.kind not in "iu":
        return []
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    known = (tag for tag in tags if tag is not None and not math.isnan(tag))
    return [tag for tag in known if not low <= tag <= high or tag % 1]


def _equals(values: npt.NDArray[Any], nodata: float | None) -> BoolArray:
    if nodata is None:
        return np.zeros(values.shape, bool)
    if np.isnan(nodata):
        return np.asarray(np.isnan(values))
    if values.dtype.kind in "fc":
        nodata = values.dtype.type(nodata)
    elif values.dtype.itemsize <= 4 and nodata % 1 == 0:
        nodata = int(nodata)  # the same, several times as fast
    return np.asarray(values == nodata)


def joined(parts: Sequence[npt.NDArray[Any]], axis: int = 0) -> npt.NDArray[Any]:
    """Concatenate arrays; a single one is not copied."""
    return np.concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]


def inner_window(box: Box, height: int, width: int) -> Window:
    """The part of a window that is inside a raster of this size."""
    row, col, rows, cols = box
    top, left = min(max(row, 0), height), min(max(col, 0), width)
    bottom, right = max(min(row + rows, height), top), max(min(col + cols, width), left)
    return Window(left, top, right - left, bottom - top)


def pad_to_window(inside: npt.NDArray[Any], box: Box, fill: float) -> npt.NDArray[Any]:
    """Pad the part of a window inside a raster, (C x) h x w, to the whole window `box`, (C x) H x W."""
    row, col, height, width = box
    if inside.shape[-2:] == (height, width):
        return inside
    whole = np.full((*inside.shape[:-2], height, width), fill, inside.dtype)
    top, left = max(-row, 0), max(-col, 0)
    whole[..., top : top + inside.shape[-2], left : left + inside.shape[-1]] = inside
    return whole
