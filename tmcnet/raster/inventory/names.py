"""Names of rasters: paths, and what GDAL understands beside them; and the local files that a raster depends on.

Light on purpose: the workflow reads names while it is being parsed.
"""

from __future__ import annotations

import re
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
_NAMED_AFTER_FILE = (".aux.xml", ".msk", ".hdr", ".aux")
_NAMED_AFTER_STEM = (
    *(".hdr", ".aux", ".prj", ".ige", ".rpb", ".RPB", "_RPC.TXT", "_rpc.txt"),
    *(".cpg", ".dbf", ".shx"),  # of a shapefile
    *(".wld", ".tfw", ".tifw", ".pgw", ".jgw", ".j2w", ".bpw", ".gfw"),
)
"""Files beside a raster that GDAL reads its place, masks and no-data values from; overviews are not among them."""
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
    found = [path, *_sidecars(path)]
    for source in _sources(path):
        if not _REMOTE.search(source):
            inner = local_files(parse_name(source, path.parent), (*within, path.absolute()))
            found += [file for file in inner if file not in found]
    return [file for file in found if file.is_file()]


def _sidecars(path: Path) -> list[Path]:
    names = [path.name + end for end in _NAMED_AFTER_FILE] + [path.stem + end for end in _NAMED_AFTER_STEM]
    return [path.with_name(name) for name in names if path.with_name(name).is_file() and name != path.name]


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
