"""What the metadata of a file say of its bands, beside what GDAL takes from them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

_SCALE_NAME = re.compile(r"(^|[^a-z])(scale_?factor|add_?offset|processing_?baseline)$", re.IGNORECASE)
_NO_CHANGE = re.compile(r"factor = 1(\.0*)?$|offset = -?0(\.0*)?$|baseline = 0[0-3]", re.IGNORECASE)
_ORIENTATION, _OF_SNAP = 274, 65000  # tags of TIFF
_SNAP_BAND = re.compile("<Spectral_Band_Info>.*?</Spectral_Band_Info>", re.DOTALL)
_SNAP_SCALING = re.compile("<(SCALING_FACTOR|SCALING_OFFSET|LOG10_SCALED)>([^<]*)<")
_SNAP_NO_SCALING = ("SCALING_FACTOR = 1.0", "SCALING_OFFSET = 0.0", "LOG10_SCALED = false")


class TiffTags(NamedTuple):
    """What tags of the first image of a TIFF say that GDAL does not report."""

    orientation: str  # how the picture is to be turned, 1 to 8
    units: tuple[str, ...]  # unit of each band that SNAP wrote; empty for none
    scaling: str  # scale, offset or logarithm of these bands, which the numbers still need


def tiff_tags(dataset: DatasetReader, files: Sequence[str]) -> TiffTags:
    """Read the tags of a TIFF on disk, or of the first one behind a virtual raster."""
    names = [file for file in files if dataset.driver == "GTiff" or file.lower().endswith((".tif", ".tiff"))]
    paths = [Path(name) for name in names[:1] if dataset.driver in ("GTiff", "VRT")]
    found = {tag: content for path in paths if path.is_file() for tag, content in _entries(path)}
    bands = _SNAP_BAND.findall(found.get(_OF_SNAP, b"").decode(errors="replace"))
    scaling = dict.fromkeys(" = ".join(pair) for band in bands for pair in _SNAP_SCALING.findall(band))
    units = [unit[1] for band in bands if (unit := re.search("<PHYSICAL_UNIT>([^<]*)<", band))]
    if len(units) != dataset.count:  # a virtual raster may have other bands
        units = [units[0] if len(set(units)) == 1 else ""] * dataset.count
    return TiffTags(
        str(int.from_bytes(found.get(_ORIENTATION, b""))),
        tuple(units),
        ", ".join(text for text in scaling if text not in _SNAP_NO_SCALING),
    )


def _entries(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield orientation, as a big-endian number, and the text of SNAP from the first directory of a TIFF."""
    with path.open("rb") as file:
        start = file.read(16)
        if start[:2] not in (b"II", b"MM"):
            return
        order, is_big = "<" if start[:2] == b"II" else ">", 43 in start[2:4]
        count, entry, at = ("Q", "HHQ8s", 8) if is_big else ("H", "HHI4s", 4)
        offset = order + ("Q" if is_big else "I")
        file.seek(*struct.unpack_from(offset, start, at))
        (n_entries,) = struct.unpack(order + count, file.read(struct.calcsize(order + count)))
        directory = file.read(n_entries * struct.calcsize(order + entry))
        for tag, _, length, value in struct.iter_unpack(order + entry, directory):
            if tag == _ORIENTATION:
                yield tag, value[:2][:: -1 if order == "<" else 1]
            elif tag == _OF_SNAP and length > len(value):
                file.seek(*struct.unpack(offset, value))
                yield tag, file.read(length)


def wavelength(dataset: DatasetReader, band: int) -> float:
    """See `Header.wavelengths`; ENVI gives it with its unit or without, others in the domain `IMAGERY`."""
    tags = dataset.tags(band)
    try:
        if centre := dataset.tags(band, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM"):
            return float(centre)
        number = float(tags.get("wavelength", 0))
    except ValueError:
        return 0.0
    unit = tags.get("wavelength_units", "").casefold()
    in_nanometres = unit.startswith("n") or (not unit.startswith(("mic", "um", "µm")) and number > 100)
    return number / 1000 if in_nanometres else number


def stated_scaling(dataset: DatasetReader, bands: Sequence[int], tags: dict[str, str]) -> str:
    """See `Header.stated_scaling`; what changes nothing is left out."""
    tags = tags | dataset.tags(ns="ENVI") | dataset.tags(bands[0])
    named = [f"{name} = {value}" for name, value in tags.items() if _SCALE_NAME.search(name)]
    return ", ".join(text for text in named if not _NO_CHANGE.search(text))


def missing_value(dataset: DatasetReader, band: int) -> str:
    """See `Header.stated_nodata`."""
    text, tag = dataset.tags(band).get("missing_value", ""), dataset.nodatavals[band - 1]
    try:
        same = tag is None or np.isclose(float(text), tag, rtol=1e-6, equal_nan=True)
    except ValueError:
        same = True  # none, or a text
    return "" if same else f"missing_value = {text}"


def time_axis(dataset: DatasetReader, bands: Sequence[int], tags: dict[str, str]) -> str:
    """See `Header.times`; units of time are such as `days since 2000-01-01`, by the CF conventions."""
    for key, unit in tags.items() if dataset.driver == "netCDF" and len(bands) > 1 else ():
        axis, _, attribute = key.rpartition("#")
        steps = {dataset.tags(band).get(f"NETCDF_DIM_{axis}") for band in bands}
        if attribute == "units" and " since " in unit and len(steps) > 1:
            return f"`{axis}` ({unit})"
    return ""


def is_lossy(dataset: DatasetReader, structure: dict[str, str]) -> bool:
    """See `Header.is_lossy`."""
    is_lerc_lossy = float(structure.get("MAX_Z_ERROR", 0)) >= 0.5  # below, whole numbers are exact
    is_jpeg = dataset.driver == "JPEG" or "JPEG" in structure.get("COMPRESSION", "")
    return is_jpeg or is_lerc_lossy or structure.get("COMPRESSION_REVERSIBILITY") == "LOSSY"


def kind_of_colours(dataset: DatasetReader, band: int, structure: dict[str, str]) -> str:
    """See `Header.colours`; a palette whose colours are greys of the brightness of their indexes is none."""
    if dataset.colorinterp[band - 1] is ColorInterp.palette:
        if structure.get("MINISWHITE") == "YES":
            return "MINISWHITE"
        palette = dataset.colormap(band).items()
        return "" if all(colour[:3] == (index,) * 3 for index, colour in palette) else "palette"
    space = structure.get("SOURCE_COLOR_SPACE", "")
    return space if space in ("CMYK", "CIELAB") else ""


def marked_colour(dtype: str, name: str) -> str:
    """The colour as which a band is marked, such as `blue`; not of 8-bit images: GDAL marks their first bands."""
    return "" if dtype == "uint8" or name in ("undefined", "gray", "palette", "alpha") else name


def category_names(path: str) -> list[str]:
    """Names of the numbers of the first band, from 0 on, as classifications of ENVI and ERDAS have; none without."""
    try:  # rasterio reports no names, but a virtual raster lists them
        with rasterio.open(f"vrt://{path}") as dataset:
            band = ElementTree.fromstring(dataset.tags(ns="xml:VRT")["xml:VRT"]).find("VRTRasterBand")
    except RasterioError:  # paths with a question mark
        return []
    return [] if band is None else [name.text or "" for name in band.iter("Category")]
