"""Names of rasters: paths, and what GDAL understands beside them; and files on disk or on servers behind them.

Stamps say, without reading them, that the contents of remote files have changed. GDAL gives no access to the headers
of an answer, so fsspec asks for them, with the plugin of the storage: s3fs for `s3://`, gcsfs for `gs://`. Light on
purpose: the workflow reads names and dependencies while it is being parsed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
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
_DECLARATION = re.compile(r"<\?xml.*?\?>", re.DOTALL)  # also inside: metadata may be whole documents
_OTHER_WORDS = re.compile(r"^(?:img|dim|rpc)_|_rpc$")
"""Parts of names by which a raster and a file beside it differ, as in `IMG_a.TIF` and `RPC_a.XML`."""
_CHANGES = ("ScaleRatio", "ScaleOffset", "LUT")  # what changes the numbers of a source of a virtual raster
_SOURCE_TAGS = ("SourceFilename", "SourceDataset")
_OF_SHAPEFILE = (".cpg", ".dbf", ".prj", ".shx")
REQUESTS_AT_ONCE = 16
_FILE_ON_SERVER = re.compile(r"(?:/vsicurl/)?(https?|s3|gs)://(.+)|/vsi(s3|gs)/(.+)")
_PLUGINS = {"s3": "s3fs", "gs": "gcsfs"}


def parse_name(text: str, root: Path) -> Name:
    """Read a name from a sample sheet; relative paths in it start at `root`."""
    if _REMOTE.search(text):
        return text
    if match := _VIRTUAL.fullmatch(text):
        return f"{match[1]}{root / match[2]}"
    if (match := _SUBDATASET.fullmatch(text)) and not (root / text).exists():
        return f"{match[1]}:{match[2]}{root / match[3]}{match[2]}{match[4] or ''}"
    return root / text


def is_remote(name: Name) -> bool:
    """Whether a raster needs the network; also a virtual raster with such a source, in another one or not."""
    return any(isinstance(one, str) and _REMOTE.search(one) for one in _with_sources(name, {}))


def _with_sources(name: Name, found: dict[Name, None]) -> Iterable[Name]:
    """Add a raster to those found and, if it is a virtual one, its sources and theirs."""
    found[name] = None
    for source in virtual_sources(name if isinstance(name, Path) else main_file(name)):
        if source not in found:
            _with_sources(source, found)
    return found


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


def virtual_sources(path: Path | None) -> list[Name]:
    """Sources of a virtual raster; nothing for other files."""
    if path is None or path.suffix.lower() not in (".vrt", ".xml") or not path.is_file():
        return []
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, RecursionError):
        return []  # the inventory reports that it cannot be read
    if root.tag.startswith("GDAL_W"):
        return [f"<{root.tag}"]
    return [
        parse_name(element.text, path.parent if element.get("relativeToVRT") == "1" else Path.cwd())
        for element in root.iter()
        if element.tag in _SOURCE_TAGS and element.text
    ]


class Source(NamedTuple):
    """A band of a file that a virtual raster takes."""

    band: int  # the band that it is a part of, from 1; 0 for the mask of the virtual raster
    file: str  # the file; empty for a source of another kind
    number: int  # its band, or the one whose mask is taken
    is_changed: bool  # whether the virtual raster has other numbers


@lru_cache(maxsize=64)
def band_sources(path: str, text: str) -> list[Source]:
    """What the bands of a virtual raster of this content are made of; nothing if that cannot be understood."""
    try:
        root = ElementTree.fromstring(_DECLARATION.sub("", text))
    except ElementTree.ParseError:
        return []
    name = partial(_source_name, path)
    if root.get("subClass") == "VRTWarpedDataset":
        file = name(root.find(".//SourceDataset"))
        pairs = [(int(m.get("dst", 1)), int(m.get("src", 1))) for m in root.iter("BandMapping")]
        return [Source(band, file, number, is_changed=False) for band, number in pairs]
    sources = []
    bands = [*enumerate(root.findall("VRTRasterBand"), 1), *((0, band) for band in root.findall("MaskBand"))]
    for of_band, band in bands:
        is_made = band.find("PixelFunctionType") is not None
        for source in band.iter():
            if source.tag.endswith(("Source", "PixelFunctionType")):
                _, mask, number = (source.findtext("SourceBand") or "1").rpartition("mask")
                is_other = bool(is_made or mask or source not in band)  # one inside is that of the band's mask
                is_changed = is_other or any(source.find(tag) is not None for tag in _CHANGES)
                file = name(source.find("SourceFilename"))
                sources.append(Source(of_band, file, int(number.lstrip(",") or 1), is_changed))
    return sources


def _source_name(path: str, element: ElementTree.Element | None) -> str:
    """The file that an element of a virtual raster names; empty for none."""
    if element is None or not element.text:
        return ""
    folder = path.rpartition("/")[0]
    return f"{folder}/{element.text}" if folder and element.get("relativeToVRT") == "1" else element.text


def raw_ends(path: str, text: str, width: int, height: int) -> Iterator[tuple[str, int]]:
    """Yield the files without header that a virtual raster of this content reads by offsets, and where it ends."""
    bands = ElementTree.fromstring(_DECLARATION.sub("", text)) if "VRTRawRasterBand" in text else ()
    for band in bands:
        if band.get("subClass") == "VRTRawRasterBand":
            first, pixel = int(band.findtext("ImageOffset") or 0), int(band.findtext("PixelOffset") or 1)
            line = int(band.findtext("LineOffset") or pixel * width)
            end = first + max(line, 0) * (height - 1) + max(pixel, 0) * (width - 1) + 1
            yield _source_name(path, band.find("SourceFilename")), end


def require_file(path: Name) -> None:
    """Refuse pipes, devices and sockets: reading from them may never end."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - faster than paths
    except (OSError, ValueError):
        return  # reported where it is opened
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(Problem(str(path), "is a pipe, device or socket, not a file", "Write it to a file."))


def names_beside(path: Path) -> list[str]:
    """Names of the files beside a raster that begin like its own: GDAL may find more about it in them."""
    key = _OTHER_WORDS.sub("", path.stem.lower())
    names = _names_by_stem(path.parent, path.parent.stat().st_mtime_ns).get(key, [])
    return [name for name in names if name != path.name]


@lru_cache
def _names_by_stem(folder: Path, _changed: int) -> dict[str, list[str]]:
    """Names of the files in a folder by what is before each of their dots, in small letters."""
    by_stem: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - faster than paths
        words = name.lower().split(".")
        for number in range(1, len(words)):
            by_stem.setdefault(_OTHER_WORDS.sub("", ".".join(words[:number])), []).append(name)
    return by_stem


def server_address(name: str) -> str:
    """The address of a name of GDAL that is a file on a server; empty for others."""
    match = _FILE_ON_SERVER.fullmatch(name)
    return f"{match[1] or match[3]}://{match[2] or match[4]}" if match else ""


def read_text(name: str) -> str:
    """Content of a file on disk, in an archive or on a server; empty where there is none."""
    file, inside = main_file(parse_name(name, Path())), _VIRTUAL.fullmatch(name)
    address = server_address(name) if file is None else str(file)
    if file and inside:
        address = f"{inside[1][4:-1]}://{Path(inside[2]).relative_to(file)}::{file}"
    return read_address(name, address, file.stat().st_mtime_ns if file else 0) if address else ""


@lru_cache(maxsize=64)
def read_address(name: str, address: str, _changed: int) -> str:
    """Content of a file at an address of fsspec; empty where there is none."""
    with file_system(name, address) as (system, path):
        try:
            return str(system.cat_file(path).decode(errors="replace"))
        except (FileNotFoundError, PermissionError, KeyError):  # storages and archives differ
            return ""


@contextmanager
def file_system(name: str, address: str) -> Iterator[tuple[Any, str]]:
    """The file system of fsspec that has an address, and the path in it."""
    import fsspec  # late: the workflow also reads names without remote files

    scheme = address.split(":")[0]
    try:
        options = _s3_options() if scheme == "s3" else {"skip_instance_cache": "::" in address}  # archives change
        yield fsspec.core.url_to_fs(address, **options)
    except ImportError:
        plugin = _PLUGINS.get(scheme, "fsspec")
        what = f"is read with the Python package {plugin}, which is not installed"
        raise InputError(Problem(name, what, f"Run `pip install {plugin}`.")) from None
    except Exception as error:  # each storage has errors of its own
        what = f"cannot be reached ({type(error).__name__}: {error})"
        remedy = "Check the address, the network, and the credentials in the environment."
        raise InputError(Problem(name, what, remedy)) from None


def _s3_options() -> dict[str, Any]:
    """The options of s3fs that have other names in GDAL; keys and regions have the same ones in both."""
    options: dict[str, Any] = {"anon": os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE")}
    if endpoint := os.environ.get("AWS_S3_ENDPOINT"):
        plain = os.environ.get("AWS_HTTPS", "").upper() in ("NO", "FALSE")
        options["endpoint_url"] = f"{'http' if plain else 'https'}://{endpoint.split('://')[-1]}"
    return options


def local_files(name: Name) -> list[Path]:
    """Files on disk that a raster depends on: itself, those beside it, all of a folder, sources of a virtual one."""
    files = dict.fromkeys(file for one in _with_sources(name, {}) for file in _own_files(one))
    return list(files) or ([name] if isinstance(name, Path) else [])  # reported where it is opened


def _own_files(name: Name) -> list[Path]:
    path = main_file(name)
    if path is None:
        return []
    require_file(path)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    others = [*_sidecars(path, name), *map(Path, _product_metadata(str(path)))]
    return [path, *(file for file in others if file.is_file())]


def _sidecars(path: Path, name: Name) -> list[Path]:
    """Files beside a raster that GDAL reads for it by its own list, without overviews; those of a shapefile."""
    beside = [path.with_name(file) for file in names_beside(path) if not file.lower().endswith(".ovr")]
    if not beside or path.suffix.lower() == ".shp":
        return [file for file in beside if file.suffix.lower() in _OF_SHAPEFILE]
    from tmcnet.raster.io.opening import files_of  # late: it takes libraries that load slowly

    listed = {Path(file).absolute() for file in files_of(name)}
    return [file for file in beside if file.absolute() in listed]


def _product_metadata(name: str) -> list[str]:
    if not name.lower().endswith(".jp2"):
        return []
    from tmcnet.raster.io.products import metadata_file  # late: it takes libraries that load slowly

    return [file for file in [metadata_file(name)] if file]


def remote_stamps(names: Iterable[Name]) -> list[str]:
    """Return the name and stamp of each remote raster that is a file: its ETag, else its size and time.

    Local rasters, and remote ones that are services or virtual rasters with remote sources, have none.
    """
    remote = dict.fromkeys(map(str, filter(is_remote, names)))
    files = [file for name in remote for file in (name, *_product_metadata(name)) if server_address(file)]
    if not files:
        return []
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(stamp, files))


@cache
def stamp(name: str) -> str:
    """What changes with the content of a file on a server: servers are asked once a process."""
    with file_system(name, server_address(name)) as (system, path):
        system.invalidate_cache()
        about = system.info(path)
    tag = about.get("ETag") or about.get("etag")
    version = tag or f"{about.get('size')} {about.get('LastModified') or about.get('Last-Modified') or ''}".strip()
    return f"{name} {version}"
