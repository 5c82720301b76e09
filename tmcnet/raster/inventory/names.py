"""Names of rasters: paths, and what GDAL understands beside them; and the local files that a raster depends on.

Light on purpose: the workflow reads names while it is being parsed.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree

from tmcnet.errors import InputError, Problem

Name: TypeAlias = Path | str
"""A file or folder; or text that GDAL understands, such as `NETCDF:f.nc:var` or `/vsizip/a.zip/b.tif`."""

_SUBDATASET = re.compile(r'([A-Za-z][A-Za-z0-9_]+):("?)([^":/][^":]*|/[^/":][^":]*)\2(:.*)?')
_VIRTUAL = re.compile(r"(/vsi(?:zip|tar|gzip|7z)/)(.+)")
_REMOTE = re.compile(
    r"(?:(?:https?|ftp|s3|gs|az|oss|swift|wms|wmts|wcs|stacit)://|/vsi(?:curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)"
    r"|(?:wms|wmts|wcs|stacit|stacta|plmosaic|eeda|eedai|ngw):|<gdal_w)",
    re.IGNORECASE,
)
_OTHER_WORDS = re.compile(r"^(?:img|dim|rpc)_|_rpc$")
"""Parts of names by which a raster and a file beside it differ, as in `IMG_a.TIF` and `RPC_a.XML`."""
_OF_SHAPEFILE = (".cpg", ".dbf", ".prj", ".shx")
_SOURCE_TAGS = ("SourceFilename", "SourceDataset")


def parse_name(text: str, root: Path) -> Name:
    """Read a name from a sample sheet; relative paths in it start at `root`."""
    if _REMOTE.search(text):
        return text
    if match := _VIRTUAL.fullmatch(text):
        return f"{match[1]}{root / match[2]}"
    if not (root / text).exists() and (match := _SUBDATASET.fullmatch(text)):
        return f"{match[1]}:{match[2]}{root / match[3]}{match[2]}{match[4] or ''}"
    return root / text


def is_remote(name: Name) -> bool:
    """Whether a raster needs the network; also a virtual raster with such a source."""
    if isinstance(name, str):
        return bool(_REMOTE.search(name))
    return any(_REMOTE.search(source) for source in _sources(name))


def main_file(name: Name) -> Path | None:
    """The file or folder on disk behind a name; None for a remote one and where there is none."""
    if isinstance(name, Path):
        return name if name.exists() else None
    if _REMOTE.search(name):
        return None
    if match := _VIRTUAL.fullmatch(name):
        inside = Path(match[2])
        return next((path for path in (inside, *inside.parents) if path.is_file()), None)
    match = _SUBDATASET.fullmatch(name)
    return Path(match[3]) if match and Path(match[3]).exists() else None


def local_files(name: Name, within: tuple[Path, ...] = ()) -> list[Path]:
    """Files on disk that a raster depends on: itself, those beside it, all of a folder, sources of a virtual one.

    Args:
        name: The raster.
        within: Virtual rasters that it is a source of.

    Raises:
        InputError: If a virtual raster is a source of itself.
    """
    if isinstance(name, Path) and not name.exists():
        return [name]  # reported where it is opened
    path = main_file(name)
    if path is None:
        return []
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.absolute() in within:
        what = f"is a source of itself, through {' and '.join(map(str, within[within.index(path.absolute()) :]))}"
        raise InputError(Problem(str(path), what, "Write the virtual raster again, from its real files."))
    found = [path, *_sidecars(path, name)]
    for source in _sources(path):
        if not _REMOTE.search(source):
            inner = local_files(parse_name(source, path.parent), (*within, path.absolute()))
            found += [file for file in inner if file not in found]
    return [file for file in found if file.is_file()]


def _sidecars(path: Path, name: Name) -> list[Path]:
    """Files beside a raster that GDAL reads for it by its own list, without overviews; those of a shapefile."""
    key = _OTHER_WORDS.sub("", path.stem.lower())
    names = _names_by_stem(path.parent, path.parent.stat().st_mtime_ns).get(key, [])
    beside = [path.with_name(n) for n in names if n != path.name and not n.lower().endswith(".ovr")]
    if not beside or path.suffix.lower() == ".shp":
        return [file for file in beside if file.suffix.lower() in _OF_SHAPEFILE]
    from tmcnet.raster.io.files import files_of  # late: it takes libraries that load slowly

    listed = {Path(file).absolute() for file in files_of(name)}
    return [file for file in beside if file.absolute() in listed]


@lru_cache
def _names_by_stem(folder: Path, _changed: int) -> dict[str, list[str]]:
    """Names of the files in a folder by what is before each of their dots, in small letters."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - faster than paths
        parts = name.lower().split(".")
        for number in range(1, len(parts)):
            found.setdefault(_OTHER_WORDS.sub("", ".".join(parts[:number])), []).append(name)
    return found


def _sources(path: Path) -> list[str]:
    """Sources of a virtual raster as it names them, relative to its folder where it says so; else nothing."""
    if path.suffix.lower() not in (".vrt", ".xml") or not path.is_file():
        return []
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, RecursionError):
        return []  # the inventory reports that it cannot be read
    if root.tag.startswith("GDAL_W"):
        return [f"<{root.tag}"]
    return [
        element.text if element.get("relativeToVRT") == "1" else str(parse_name(element.text, Path.cwd()))
        for element in root.iter()
        if element.tag in _SOURCE_TAGS and element.text
    ]
