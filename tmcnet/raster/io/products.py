"""What the metadata and the names of satellite products say about the numbers in their files, which have no tags.

The numbers of Sentinel-2 contain an offset since processing baseline 04.00 (January 2022), given by the file
`MTD_MSIL2A.xml` or `MTD_MSIL1C.xml` of the product. Those of Landsat Collection 2 have one scale and offset for all
scenes (USGS, LSDS-1619, table 6-1).
"""

from __future__ import annotations

import re
from functools import lru_cache

import rasterio
from rasterio.io import DatasetReader

from tmcnet.errors import InputError, Problem
from tmcnet.raster.names import band_sources, read_text

_SENTINEL_2 = re.compile(r"(T\d\d[A-Z]{3}_(\d{8})T\d{6})_(B\d[\dA])(_\d0m)?\.\w+$")
"""Names of bands: tile and time, date, band, and the resolution, which only level 2A has."""
_BANDS = [f"B{number:02}" for number in range(1, 13)]
_BANDS.insert(8, "B8A")  # in the order of their numbers in the metadata
_BASELINE = re.compile(r"_N(\d{4})_")
_NO_REFLECTANCE = re.compile(r"_(AOT|WVP|SCL|TCI|PVI|MSK)_?[^/]*$")
_OFFSET_SINCE = "20220125"  # first day of baseline 04.00
_ADDED = re.compile(r'<(?:BOA|RADIO)_ADD_OFFSET band_id="(\d+)">\s*(-?[\d.]+)\s*<')
_LEVEL = re.compile(r"(?:MSI|[_/])L(1C|2A)(?=[_/.:])|L[CEOT]\d\d_L([12])")  # of Sentinel-2 and Landsat
_LEVELS_UP = 6  # from a band to the folder of its product
_NAMED = {
    r"L[CEOT]\d\d_L2S[RP]_\w*SR_B\d": (2.75e-05, -0.2),
    r"L[CEOT]\d\d_L2S[RP]_\w*ST_B\d": (0.00341802, 149.0),
    r"L[CO]0[89]_L1[GT][TPS]_\w*_02_\w\w_B[1-9]\.": (2e-05, -0.1),  # at the top of the atmosphere
    r"HLS\.L30\..*\.B1[01]": (0.01, 0.0),  # degrees Celsius
    r"HLS\.[LS]30\..*\.B\d": (1e-4, 0.0),
}
"""Scale and offset from numbers to reflectance or temperature, by names of files; the first that fits counts."""
WITH_OFFSET, WITHOUT_OFFSET = (1e-4, -0.1), (1e-4, 0.0)  # of Sentinel-2 since baseline 04.00, and before


def meaning_by_name(path: str) -> tuple[float, float] | None:
    """Scale and offset from the numbers of a file of a known product to its values; None for other names."""
    image, baseline = _SENTINEL_2.search(path), _BASELINE.search(path)
    if image or (baseline and not _NO_REFLECTANCE.search(path)):
        new = baseline[1] >= "0400" if baseline else image is not None and image[2] >= _OFFSET_SINCE
        return WITH_OFFSET if new else WITHOUT_OFFSET
    return next((meaning for name, meaning in _NAMED.items() if re.search(name, path)), None)


def level_by_name(path: str) -> str:
    """Where the reflectance of Sentinel-2 or Landsat is that of a file, by its name; empty for other names."""
    named, image = _LEVEL.search(path), _SENTINEL_2.search(path)
    level = named[1] or named[2] if named else ""
    if image and not named and path.lower().endswith(".jp2"):
        level = "2" if image[4] else "1"
    return {"": "", "1": "top of the atmosphere", "2": "surface"}[level[:1]]


def metadata_file(path: str) -> str:
    """The metadata of the Sentinel-2 product that a band as delivered, a JP2 file, belongs to; empty for others."""
    image = _SENTINEL_2.search(path) if path.lower().endswith(".jp2") else None
    if image is None:
        return ""
    name = "MTD_MSIL2A.xml" if image[4] else "MTD_MSIL1C.xml"
    parts = path.split("/")
    above = ("/".join([*parts[:-level], name]) for level in range(1, min(_LEVELS_UP, len(parts)) + 1))
    return next((file for file in above if image[1] in read_text(file)), "")


@lru_cache(maxsize=64)  # windows are read from one open file one after the other
def product_offsets(dataset: DatasetReader, bands: tuple[int, ...]) -> list[float]:
    """Offset that the metadata of a product adds to the numbers of each of these bands.

    GDAL's tags of a subdataset stay with files that are made of it, whose whole numbers are still the same.

    Raises:
        InputError: If it differs between the sources of one band of a virtual raster.
    """
    given = [(band, _tagged_offset(dataset, band)) for band in bands]
    return [_offset(dataset.name, band) if own is None else own for band, own in given]


def _tagged_offset(dataset: DatasetReader, band: int) -> float | None:
    tags = dataset.tags(band) if "int" in dataset.dtypes[band - 1] else {}
    text = tags.get("BOA_ADD_OFFSET", tags.get("RADIO_ADD_OFFSET"))
    return None if text is None else float(text)


def _offset(path: str, band: int) -> float:
    """Offset of a band of a JP2 file or subdataset of a product, or of a virtual raster of these; 0 for others."""
    if path.startswith("SENTINEL2_"):
        with rasterio.open(path) as dataset:
            return _tagged_offset(dataset, band) or 0.0
    if path.lower().endswith((".vrt", ".xml")):
        sources = [source for source in band_sources(path, read_text(path)) if source.band == band]
        added = {_offset(source.file, source.number) for source in sources if not source.is_changed}
        if len(added) > 1:
            what = "is made of Sentinel-2 bands with and without the offset of baseline 04.00"
            raise InputError(Problem(path, what, "Write the JP2 files in the sample sheet in its place."))
        return added.pop() if added else 0.0
    metadata = metadata_file(path)
    image = _SENTINEL_2.search(path) if metadata else None
    if image is None:
        return 0.0
    offsets = {_BANDS[int(number)]: float(offset) for number, offset in _ADDED.findall(read_text(metadata))}
    return offsets.get(image[3], 0.0)
