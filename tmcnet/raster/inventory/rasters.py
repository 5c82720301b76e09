"""From the names of a scene's files to the rasters that are read: mosaics, declared values, CRS and alpha bands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from tmcnet.config import SensorConfig, SourceConfig
from tmcnet.errors import InputError, Problem, collecting
from tmcnet.raster.inventory.descriptions import unit_of
from tmcnet.raster.inventory.sample_sheet import Entry, is_vector
from tmcnet.raster.io.files import BoolArray, Header, RasterFile
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.opening import open_raster
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.names import Name, is_remote

_MAX_GRID_OFFSET_PX = 0.05  # tiles are moved to the pixels of the first; a larger offset is an error
_MAX_OVERLAPS = 20  # overlaps of the tiles of a mosaic that are compared
_MAX_SEAM = 0.2  # largest difference of two medians on the same pixels that light and season explain
_PREVIEW_PX = 1024  # largest side at which a band is read to see which values it has


def scene_size(entry: Entry) -> tuple[int, int] | None:
    """Height and width of the first image of a scene, from the headers of its files; None if it is remote."""
    name = next(path for paths in entry.images.values() for path in paths)
    tiles = entry.members.get(name, (name,))
    if any(is_remote(tile) for tile in tiles):
        return None
    grid = RasterFile(tuple(map(str, tiles))).header.grid
    return grid.height, grid.width


def check_crs(crs: str | None) -> None:
    """Refuse a `source.crs` that is no coordinate reference system."""
    try:
        CRS.from_user_input(crs or "EPSG:4326")
    except CRSError:
        what = f"is `{crs}`, which is no coordinate reference system"
        raise InputError(Problem("config key `source.crs`", what, "Write it like `EPSG:32633`.")) from None


def find_rasters(
    entry: Entry, sensors: Mapping[str, SensorConfig], source: SourceConfig, coder: LabelCoder | None
) -> tuple[dict[str, Raster], Raster | None]:
    """Make the rasters of a scene or tile, images by modality and the label; names all faults together."""
    problems: list[Problem] = []

    def files(paths: Sequence[Name], declared: Mapping[str, Any]) -> tuple[RasterFile, ...]:
        made = []
        for path in paths:
            tiles = tuple(map(str, entry.members.get(path, (path,))))
            name = str(path) if len(tiles) > 1 else ""
            file = RasterFile(tiles, name, crs=source.crs or "", remote=source.remote, **declared)
            with collecting(problems):
                problems.extend(mosaic_problems(file))
            made.append(file)
        return tuple(made)

    stacks = {name: files(entry.images[name], _declared(entry, name, sensor)) for name, sensor in sensors.items()}
    # vector labels become a raster later, on the grid of the images
    labels = files([path for path in entry.label if not is_vector(path)], {})
    if problems:
        raise InputError(problems)
    images = {name: Raster(_completed(stacks[name], sensor)) for name, sensor in sensors.items()}
    if not labels or coder is None:
        return images, Raster(labels) if labels else None
    (label,) = _with_alpha(labels, 3 if coder.encoding == "rgb" else coder.band or 1)
    # a code of a class is that class, even if the file calls it no data
    tagged_class = any(coder.is_class(tag) for tag in label.header.nodata)
    return images, Raster((replace(label, nodata=math.nan) if tagged_class else label,))


def _declared(entry: Entry, name: str, sensor: SensorConfig) -> dict[str, Any]:
    """What config and sample sheet declare about the files of a modality, in place of what these say."""
    sheet: dict[str, Any] = {"nodata": sensor.nodata} | entry.declared.get(name, {})
    scaling = sheet.get("scale_factor", 1.0), sheet.get("add_offset")
    is_scaled = "scale_factor" in sheet or "add_offset" in sheet
    values = {"nodata": sheet["nodata"], "scaling": scaling if is_scaled else None}
    if "mask" not in sheet:
        return values
    quality = str(sheet["mask"])
    own = "mask_codes" in sheet or "mask_bits" in sheet  # these of a scene replace both keys
    keys: dict[str, Sequence[int]] = {} if own else {"mask_codes": sensor.mask_codes, "mask_bits": sensor.mask_bits}
    codes, bits = (tuple((keys | sheet).get(key, ())) for key in ("mask_codes", "mask_bits"))
    if not codes and not bits:
        what = "is a quality mask, but no code or bit in it is known to mean no data"
        remedy = f"List the codes in `sensors.{name}.mask_codes`, or the bits in `sensors.{name}.mask_bits`."
        raise InputError(Problem(quality, what, remedy))
    return values | {"quality": quality, "quality_codes": codes, "quality_bits": bits}


def _completed(files: tuple[RasterFile, ...], sensor: SensorConfig) -> tuple[RasterFile, ...]:
    """Files with masks in extra bands, and scale and offset of the config where nothing else gives them."""
    files = _with_alpha(files, len(sensor.bands))
    if sensor.scaling is None:
        return files
    scaling = sensor.scaling[0], sensor.add_offset
    given = (file.scaling is not None or file.header.is_tagged for file in files)
    return tuple(file if own else replace(file, scaling=scaling) for file, own in zip(files, given, strict=True))


def _with_alpha(files: tuple[RasterFile, ...], expected: int) -> tuple[RasterFile, ...]:
    """Take the last band of files, marked as alpha or with only two values, as a mask where bands are too many."""
    count = sum(file.header.count for file in files)
    if count <= expected:
        return files
    for is_mask in (lambda file: file.header.alpha, last_band_is_binary):
        masked = [file.header.count > 1 and is_mask(file) for file in files]
        if count - sum(masked) == expected:
            return tuple(replace(file, alpha=alpha) for file, alpha in zip(files, masked, strict=True))
    return files


def last_band_is_binary(file: RasterFile) -> bool:
    """Whether the last band has only the values 0 and one other, or only the largest number of its type."""
    values: set[float] = set()
    for path in file.paths:
        (band,), _ = preview(path, slice(-1, None), remote=file.remote)
        values.update(np.unique(band).tolist())
    opaque = {np.iinfo(band.dtype).max} if band.dtype.kind in "iu" else None
    return values == opaque or (len(values) == 2 and 0 in values)


def preview(path: str, which: slice, *, remote: bool) -> tuple[npt.NDArray[Any], BoolArray]:
    """Every n-th pixel of some bands as stored, C x h x w, and where the mask of the first of them keeps it."""
    with open_raster(path, remote=remote, OVERVIEW_LEVEL="NONE") as dataset:  # overviews hold means
        step = max(dataset.shape) // _PREVIEW_PX + 1
        shape, bands = (-(-dataset.height // step), -(-dataset.width // step)), dataset.indexes[which]
        values = dataset.read(bands, out_shape=(len(bands), *shape))
        return values, np.asarray(dataset.read_masks(bands[0], out_shape=shape) > 0)


def mosaic_problems(mosaic: RasterFile) -> Iterator[Problem]:
    """Yield tiles that differ from the first in CRS, bands, type of numbers, pixel grid, no data or scale."""
    first = mosaic.tiles[0]
    for path, tile in zip(mosaic.paths[1:], mosaic.tiles[1:], strict=True):
        if other := _differences(tile, first, mosaic.nodata is not None):
            what = f"is mosaicked with {mosaic.paths[0].rsplit('/', 1)[-1]} but has another {' and '.join(other)}"
            remedy = f"Bring the tiles of `{mosaic.label.rsplit('/', 1)[-1]}` to one, or narrow the pattern."
            yield Problem(path, what, remedy)


def seams(mosaic: RasterFile) -> Iterator[str]:
    """Describe overlapping tiles whose medians differ on the same pixels: the later one hides the earlier one."""
    pairs = itertools.combinations(zip(mosaic.paths, mosaic.places, strict=True), 2)
    shared = ((pair, *map(max, *(p[:2] for _, p in pair)), *map(min, *(p[2:] for _, p in pair))) for pair in pairs)
    overlaps = (one for one in shared if one[1] < one[3] and one[2] < one[4])
    for pair, left, top, right, bottom in itertools.islice(overlaps, _MAX_OVERLAPS):
        values = []
        for path, (x, y, *_) in pair:
            box = left - x, top - y, min(right - left, _PREVIEW_PX), min(bottom - top, _PREVIEW_PX)
            with open_raster(path, remote=mosaic.remote) as dataset:
                values.append(mosaic.read(dataset, Window(*box)).numbers)
        both = np.isfinite(values).all(axis=(0, 1))
        if both.any():
            one, other = (float(np.median(part[:, both])) for part in values)
            if abs(one - other) > _MAX_SEAM * max(abs(one), abs(other)):
                first, last = (path.rsplit("/", 1)[-1] for path, _ in pair)
                what = f"{first} and {last} overlap with medians of {one:.4g} and {other:.4g}"
                yield f"{what}; the latter is on top"


def _differences(tile: Header, first: Header, declared: bool) -> list[str]:
    own, base = tile.grid.transform, first.grid.transform
    sides, first_sides = ((abs(t.determinant), math.hypot(t.a, t.d)) for t in (own, base))
    units = ([unit_of(text) for text in header.units] for header in (tile, first))
    turned = not np.allclose([own.a, own.b, own.d, own.e], [base.a, base.b, base.d, base.e], rtol=1e-6)
    same = {
        "CRS": tile.grid.crs == first.grid.crs,
        f"number of bands ({tile.count}, not {first.count})": tile.count == first.count,
        f"type of numbers ({tile.dtype}, not {first.dtype})": tile.dtype == first.dtype,
        "pixel size": np.allclose(sides, first_sides, rtol=1e-6, atol=0),
        "value of no data": declared or repr(tile.nodata) == repr(first.nodata),
        "scale or offset": tile.scaling == first.scaling,
        "unit": all(one == other or not one or not other for one, other in zip(*units, strict=False)),
        "order of bands": tile.names == first.names or sorted(tile.names) != sorted(first.names),
    }
    other = [name for name, equal in same.items() if not equal]
    if not other and turned:
        other = ["direction of rows and columns: one of them is turned or upside down"]
    corner = ~base @ (own.c, own.f)
    if not other and max(abs(side - round(side)) for side in corner) > _MAX_GRID_OFFSET_PX:
        other = ["pixel grid: it is between its pixels"]
    return other
