"""Open rasters: GDAL's errors as problems with a remedy, and no access to the network unless the config allows it."""

from __future__ import annotations

import logging
import os
import re
import tarfile
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.env import hasenv, setenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.names import band_sources, raw_ends, require_file

_ONLY_REMOTE_FILE = "CPL_VSIL_CURL_ALLOWED_FILENAME"
_NO_LIST = "GDAL_DISABLE_READDIR_ON_OPEN"
_AS_SET = {_NO_LIST: os.environ.get(_NO_LIST, "FALSE")}
# GDAL may not use the network before a raster of the config does; it reads this setting at every access.
os.environ.setdefault(_ONLY_REMOTE_FILE, "none")
# Broken files are reported as `InputError`; rasterio's log lines would only repeat it.
logging.getLogger("rasterio").setLevel(logging.CRITICAL)
# Tiles without a georeference are ordinary input here; where one is needed, the inventory checks for it.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

_MAX_REUSED = 64  # files of one thread; processes may have 1024 in all
_SOUND: set[tuple[str, str, frozenset[int] | None]] = set()
"""Virtual rasters whose sources were opened in this process: name, content and the bands that are used of it."""
_NO_BAND_SOURCES = re.compile('subClass="VRT(Raw|Warped|Pansharpened|Processed)')
"""Virtual rasters that GDAL opens with their sources, so that it reports a missing one every time."""
_RAW = ("EHdr", "ENVI", "ERS", "GenBin", "ISCE", "LAN", "PAux", "PCRaster")
"""Formats without compression whose missing rows GDAL reads as zeros."""
_AXES = ("projection_x_coordinate", "projection_y_coordinate", "longitude", "latitude")  # of CF conventions
_MAX_UNEVEN_PX = 0.25  # how far the pixels of an axis may be from where an even one has them
_FROM_TABLE = "Make a vector file of it: `ogr2ogr -oo GEOM_POSSIBLE_NAMES=WKT -a_srs EPSG:... OUT.gpkg IN.csv`."
_BROKEN_OFF = "it breaks off before its end"


class _Reused(threading.local):
    """Files that a thread keeps open, and how it opens others."""

    files: dict[tuple[object, ...], DatasetReader] | None = None
    stack: ExitStack
    open: Callable[..., DatasetReader] = staticmethod(rasterio.open)


_REUSED = _Reused()


@contextmanager
def reused_files(*, alone: bool) -> Iterator[None]:
    """A context in which the first files that this thread of a pool opens stay open for the next time.

    If these are files on disk that GDAL reads `alone`, it need not list their folders, nor rasterio look for
    credentials, which takes longer than to open a small file.
    """
    if not hasenv():
        rasterio.Env().__enter__()  # of the thread: one for each scene takes as long as to open a file
    if not alone:
        setenv(**_AS_SET)
    with ExitStack() as stack:
        _REUSED.stack, _REUSED.files = stack, {}
        _REUSED.open = _open_alone if alone else rasterio.open
        try:
            yield
        finally:
            vars(_REUSED).clear()


def _open_alone(name: str, **options: str) -> DatasetReader:
    # "TRUE" means to look for each file that may be beside it; PNG has none whose name begins with other words
    setenv(**{_NO_LIST: "EMPTY_DIR" if name.lower().endswith(".png") else "TRUE"})
    return DatasetReader(name, **options)


@contextmanager
def open_raster(path: Path | str, *, remote: bool = False, **options: str) -> Iterator[DatasetReader]:
    """Open a raster for reading; errors raised while it is open name the file.

    With `remote` GDAL may use the network, from then on for the whole process. `options` are those of its driver.

    Raises:
        InputError: If the file is missing, is no raster, is truncated, or only contains images under other names.
    """
    if remote:
        os.environ.pop(_ONLY_REMOTE_FILE, None)
    reused, key = _REUSED.files, (str(path), *options.items())
    try:
        with ExitStack() as stack:
            dataset = reused.get(key) if reused else None
            if dataset is None:
                require_file(path)
                dataset = stack.enter_context(_REUSED.open(str(path), **options))
                _require_bands(path, dataset)
                _require_sound(dataset)
                if reused is not None and len(reused) < _MAX_REUSED:
                    reused[key] = dataset
                    _REUSED.stack.push(stack.pop_all())
            yield dataset
    except RasterioError as error:
        reason = str(error.__cause__ or error).strip().rstrip(".")  # GDAL's message is in the cause, if there is one
        is_path = Path(path).exists() or (":" not in str(path) and not str(path).startswith("/vsi"))
        what = f"cannot be read ({reason})" if Path(path).exists() or not is_path else "does not exist"
        if Path(path).is_symlink() and not Path(path).exists():
            what = f"is a link to {Path(path).readlink()}, which does not exist"
        remedy = "Check the path, or fetch the file again."
        if inside := _rasters_inside(Path(path)):
            what, remedy = f"{what}; inside are {format_names(inside)}", "Name these in its place, separated by `;`."
        if Path(path).exists() and Path(path).suffix.lower() in (".csv", ".tsv", ".txt", ".xlsx"):
            what, remedy = "is a table, not a raster or vector file", _FROM_TABLE
        raise InputError(Problem(str(path), what, remedy)) from None


def write_part(path: Path, part: str, out: Path) -> None:
    """Write a virtual raster of some bands (`bands=2`) or a window (`srcwin=COLUMN,ROW,WIDTH,HEIGHT`) of a raster.

    GDAL's tools may be older than rasterio's GDAL, and then read 8-bit numbers with a sign as others, for example.
    """
    with open_raster(f"vrt://{path.resolve()}?{part}") as dataset:
        rasterio.shutil.copy(dataset, out, driver="VRT")


def _require_sound(dataset: DatasetReader, used: frozenset[int] | None = None, within: tuple[str, ...] = ()) -> None:
    """Refuse a file that breaks off; and open the sources of a virtual raster, once a process, and their sources.

    Of a virtual raster the `used` bands count (None: all). They are refused without a source, and if a source lacks
    the band that they take: GDAL ends the process where that is a mask. GDAL 3.10 never forgets, once it has read
    nested virtual rasters, that a source could not be opened: it reports that once, or in a call that reports
    nothing, and returns zeros from then on. By themselves they fail each time.
    """
    _require_end(dataset)
    if dataset.driver == "netCDF":
        _require_even_axes(dataset)
    if dataset.driver not in ("VRT", "SENTINEL2"):
        return
    text = dataset.tags(ns="xml:VRT").get("xml:VRT", "")
    for file, end in raw_ends(dataset.name, text, dataset.width, dataset.height):
        if (path := Path(file)).is_file() and path.stat().st_size < end:
            what = f"breaks off: {dataset.name} reads it to byte {end}, but it has {path.stat().st_size}"
            raise InputError(Problem(file, what, "Fetch the file again, or correct the size in the virtual raster."))
    if (dataset.name, text, used) in _SOUND:
        return
    by_itself = not _NO_BAND_SOURCES.search(text)
    taken = _bands_of_sources(dataset, text, used) if by_itself and text else {}
    if dataset.name in (*within, *taken):
        raise RasterioError("it is a source of itself")
    for name in dataset.files if dataset.driver == "VRT" else ():
        beside = name.startswith(dataset.name) and name[len(dataset.name) :] in ("", ".aux.xml", ".msk", ".ovr")
        bands = taken.get(name)
        if not beside and bands != frozenset() and (by_itself or name.lower().endswith(".vrt")):
            with rasterio.open(name) as source:
                if bands and max(bands) > source.count:
                    what = f"takes band {max(bands)} of {name}, which has {source.count}"
                    raise InputError(Problem(dataset.name, what, "Write the virtual raster again."))
                _require_sound(source, bands, (*within, dataset.name))
    _SOUND.add((dataset.name, text, used))


def _bands_of_sources(dataset: DatasetReader, text: str, used: frozenset[int] | None) -> dict[str, frozenset[int]]:
    """Bands that the used bands of a virtual raster take of its sources, by their names; none of others.

    Used bands that GDAL makes of nothing and reads as zeros are refused: products lack files that they may lack.
    """
    taken: dict[str, frozenset[int]] = {}
    sources = band_sources(dataset.name, text)
    for band, file, number, _ in sources:
        is_used = used is None or band in used or band == 0
        taken[file] = taken.get(file, frozenset()) | ({number} if is_used else set())
    bare = {n for n, nodata in zip(dataset.indexes, dataset.nodatavals, strict=True) if nodata is None}
    bare -= {source.band for source in sources}
    empty = [(dataset.descriptions[n - 1] or str(n)).split(",")[0] for n in bare if used is None or n in used]
    if empty:
        what = f"has no file for band{'s' * (len(empty) > 1)} {format_names(empty)}, which would be read as zeros"
        remedy = "Fetch the missing files, or leave these bands out (`gdal_translate -of VRT -b 1 ...`)."
        raise InputError(Problem(dataset.name, what, remedy))
    return taken


def _require_end(dataset: DatasetReader) -> None:
    """Refuse files that break off, of the formats whose missing rows GDAL fills with zeros."""
    if dataset.driver == "PNG":
        name = dataset.name
        if os.path.isfile(name) and not _is_whole_png(name, os.path.getmtime(name)):  # noqa: PTH113, PTH204 - faster
            raise RasterioError(_BROKEN_OFF)
        return
    if dataset.driver not in (*_RAW, "netCDF", "PCIDSK"):
        return
    files = {path: path.stat().st_size for path in map(Path, dataset.files) if path.is_file()}
    if not files:
        return
    path, size = max(files.items(), key=lambda item: item[1])
    with path.open("rb") as file:
        start = file.read(32)
    is_whole = True
    if dataset.driver == "PCIDSK":
        is_whole = size >= 512 * int(start[16:])  # it states its number of blocks
    elif dataset.driver in _RAW:
        about, bits = dataset.tags(ns="ENVI"), 0
        for band, dtype in enumerate(dataset.dtypes, 1):
            bits += int(dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(dtype).itemsize))
        n_bytes = dataset.width * dataset.height * bits // 8 + int(about.get("header_offset", 0))
        is_whole = size >= n_bytes or about.get("file_compression", "0") != "0"
    elif start[:4] in (b"CDF\1", b"CDF\2"):
        from scipy.io import netcdf_file  # takes as long to import as all else that short jobs need

        try:
            netcdf_file(path, mmap=True).close()
        except (ValueError, TypeError):
            is_whole = False
    if not is_whole:
        raise RasterioError(_BROKEN_OFF)


def _require_even_axes(dataset: DatasetReader) -> None:
    """Refuse a netCDF whose columns or rows are not evenly spaced: GDAL takes the mean step, which moves pixels."""
    path = dataset.files[0] if dataset.files else dataset.name
    for tag, meaning in dataset.tags().items():
        axis, _, key = tag.rpartition("#")
        if key != "standard_name" or meaning not in _AXES:
            continue
        try:
            with warnings.catch_warnings(action="ignore"), rasterio.open(f'NETCDF:"{path}":{axis}') as values:
                places = values.read(1).ravel() if 1 in values.shape else np.empty(0)
        except RasterioError:
            continue  # axes inside groups have other names
        if len(places) < 2:
            continue
        if meaning == "longitude":
            places = np.unwrap(places, period=360)  # across the antimeridian
        off = float(np.abs(places - np.linspace(places[0], places[-1], len(places))).max())
        step = abs(float(places[-1] - places[0])) / (len(places) - 1)
        if off > _MAX_UNEVEN_PX * step + float(np.spacing(np.abs(places).max())):  # numbers of 32 bits are rounded
            what = f"its axis {axis} is not evenly spaced: pixels are up to {off:g} from where an even one has them"
            raise InputError(Problem(dataset.name, what, "Interpolate it to an even grid, with no data in gaps."))


@cache
def _is_whole_png(name: str, _changed: float) -> bool:
    """Whether the critical chunks of a PNG agree with their checksums, up to the last one; read once a process."""
    content, at = Path(name).read_bytes(), 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4])
        chunk = content[at + 4 : end]
        if chunk[:1].isupper() and zlib.crc32(chunk) != int.from_bytes(content[end : end + 4]):
            return False
        if chunk[:4] == b"IEND":
            return True
        at = end + 4
    return False


def files_of(path: Path | str) -> list[str]:
    """Files that GDAL reads a raster from, overviews excluded; none if it cannot be opened."""
    try:
        with rasterio.Env(**_AS_SET), rasterio.open(path) as dataset:
            return [file for file in dataset.files if not file.endswith(".ovr")]
    except RasterioError:
        return []


def _require_bands(path: Path | str, dataset: DatasetReader) -> None:
    if not dataset.count:
        what, remedy = "holds no image", "Check the path, or fetch the file again."
        if names := dataset.subdatasets:
            what = f"holds {len(names)} images under names of their own: {format_names(names)}"
            remedy = f"Write these in its place, separated by `;`, such as `{names[0]}`."
        raise InputError(Problem(str(path), what, remedy))


def _rasters_inside(path: Path) -> list[str]:
    """Names of the files in a folder or archive that may be rasters or labels, as GDAL wants them."""
    ends = (".tif", ".tiff", ".jp2", ".img", ".nc", ".h5", ".hdf", ".vrt", ".xml", ".shp", ".gpkg", ".geojson")
    if path.suffix == ".gz" and path.is_file() and not tarfile.is_tarfile(path):
        return [f"/vsigzip/{path}"]
    if path.is_dir():
        return [str(file) for file in sorted(path.rglob("*")) if file.suffix.lower() in ends]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [f"/vsizip/{path}/{name}" for name in archive.namelist() if name.lower().endswith(ends)]
    if path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            return [f"/vsitar/{path}/{name}" for name in archive.getnames() if name.lower().endswith(ends)]
    return []
