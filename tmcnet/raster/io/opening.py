"""Open rasters: GDAL's errors as problems with a remedy, and no access to the network unless the config allows it."""

from __future__ import annotations

import logging
import os
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from tmcnet.errors import InputError, Problem, format_names

_ONLY_REMOTE_FILE = "CPL_VSIL_CURL_ALLOWED_FILENAME"
# GDAL may not use the network before a raster of the config does; it reads this setting at every access.
os.environ.setdefault(_ONLY_REMOTE_FILE, "none")
# Broken files are reported as `InputError`; rasterio's log lines would only repeat it.
logging.getLogger("rasterio").setLevel(logging.CRITICAL)
# Tiles without a georeference are ordinary input here; where one is needed, the inventory checks for it.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

_SOUND: set[str] = set()  # sources of virtual rasters that were opened in this process
_NO_BAND_SOURCES = re.compile('subClass="VRT(Raw|Warped|Pansharpened|Processed)')
"""Virtual rasters that GDAL opens with their sources, so that it reports a missing one every time."""
_MASK_BAND = re.compile("<MaskBand>.*?</MaskBand>", re.DOTALL)


@contextmanager
def open_raster(path: Path | str, *, remote: bool = False, **options: str) -> Iterator[DatasetReader]:
    """Open a raster for reading; errors raised while it is open name the file.

    With `remote` GDAL may use the network, from then on for the whole process. `options` are those of its driver.

    Raises:
        InputError: If the file is missing, is no raster, is truncated, or only contains images under other names.
    """
    if remote:
        os.environ.pop(_ONLY_REMOTE_FILE, None)
    try:
        with rasterio.open(path, **options) as dataset:
            if dataset.driver == "PNG":
                _require_png_end(Path(path))
            if not dataset.count:
                raise _without_bands(path, dataset.subdatasets)
            _require_sources(dataset)
            yield dataset
    except RasterioError as error:
        reason = str(error.__cause__ or error).strip().rstrip(".")  # GDAL's message is in the cause, if there is one
        is_path = Path(path).exists() or (":" not in str(path) and not str(path).startswith("/vsi"))
        what = f"cannot be read ({reason})" if Path(path).exists() or not is_path else "does not exist"
        remedy = "Check the path, or fetch the file again."
        if inside := _rasters_inside(Path(path)):
            what, remedy = f"{what}; inside are {format_names(inside)}", "Name these in its place, separated by `;`."
        raise InputError(Problem(str(path), what, remedy)) from None


def write_part(path: Path, part: str, out: Path) -> None:
    """Write a virtual raster of some bands (`bands=2`) or a window (`srcwin=COLUMN,ROW,WIDTH,HEIGHT`) of a raster.

    GDAL's tools may be older than rasterio's GDAL, and then read 8-bit numbers with a sign as others, for example.
    """
    with open_raster(f"vrt://{path.resolve()}?{part}") as dataset:
        rasterio.shutil.copy(dataset, out, driver="VRT")


def _require_sources(dataset: DatasetReader, within: tuple[str, ...] = ()) -> None:
    """Open the sources of a virtual raster, once a process each, also those of virtual rasters among them.

    Bands without a source are refused in all of them. GDAL 3.10 never forgets, once it has read nested virtual
    rasters, that a source could not be opened: it reports that once, or in a call that reports nothing, and returns
    zeros from then on. By themselves they fail each time.
    """
    if dataset.driver not in ("VRT", "SENTINEL2") or dataset.name in within:
        return
    text = dataset.tags(ns="xml:VRT").get("xml:VRT", "")
    by_itself = not _NO_BAND_SOURCES.search(text)
    if by_itself:
        _require_bands(dataset, text)
    for name in dataset.files if dataset.driver == "VRT" else ():
        beside = name.startswith(dataset.name) and name[len(dataset.name) :] in ("", ".aux.xml", ".msk", ".ovr")
        if name not in _SOUND and not beside and (by_itself or name.lower().endswith(".vrt")):
            with rasterio.open(name) as source:
                _require_sources(source, (*within, dataset.name))
            _SOUND.add(name)


def _require_bands(dataset: DatasetReader, text: str) -> None:
    """Refuse bands that GDAL makes of nothing and reads as zeros, such as those of a product that lacks a file."""
    texts = _MASK_BAND.sub("", text).split("<VRTRasterBand ")[1:]
    bands = zip(texts, dataset.descriptions, dataset.nodatavals, strict=False)
    empty = [
        (name or str(number)).split(",")[0]
        for number, (band, name, nodata) in enumerate(bands, 1)
        if nodata is None and "Source>" not in band
    ]
    if empty and "PixelFunctionType" not in text:
        what = f"has no file for band{'s' * (len(empty) > 1)} {format_names(empty)}, which would be read as zeros"
        raise InputError(Problem(dataset.name, what, "Fetch the missing files, or name the files of single bands."))


def files_of(path: Path | str) -> list[str]:
    """Files that GDAL reads a raster from, overviews excluded; none if it cannot be opened."""
    try:
        with rasterio.open(path) as dataset:
            return [file for file in dataset.files if not file.endswith(".ovr")]
    except RasterioError:
        return []


def _without_bands(path: Path | str, subdatasets: Sequence[str]) -> InputError:
    if not subdatasets:
        return InputError(Problem(str(path), "holds no image", "Check the path, or fetch the file again."))
    what = f"holds {len(subdatasets)} images under names of their own: {format_names(subdatasets)}"
    remedy = f"Write these in its place, separated by `;`, such as `{subdatasets[0]}`."
    return InputError(Problem(str(path), what, remedy))


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


def _require_png_end(path: Path) -> None:
    """GDAL silently fills the missing rows of a truncated PNG with zeros."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 64), 2)  # a few stray bytes may follow the last chunk
        if b"IEND" not in file.read():
            raise RasterioError("the PNG breaks off before its end")
