"""What a raster depends on: local files, and stamps of remote ones.

Stamps say, without reading them, that contents have changed. GDAL gives no access to the headers of an answer, so
fsspec asks for them, with the plugin of the storage: s3fs for `s3://`, gcsfs for `gs://`. Light on purpose: the
workflow lists dependencies while it is being parsed.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tmcnet.errors import InputError, Problem
from tmcnet.raster.names import (
    Name,
    file_system,
    is_remote,
    main_file,
    names_beside,
    require_file,
    server_address,
    virtual_sources,
)

_OF_SHAPEFILE = (".cpg", ".dbf", ".prj", ".shx")
REQUESTS_AT_ONCE = 16


def local_files(name: Name, within: tuple[Path, ...] = ()) -> list[Path]:
    """Files on disk that a raster depends on: itself, those beside it, all of a folder, sources of a virtual one."""
    if isinstance(name, Path) and not name.exists():
        return [name]  # reported where it is opened
    if isinstance(name, Path):
        require_file(name)
    path = main_file(name)
    if path is None:
        return []
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.absolute() in within:
        what = f"is a source of itself, through {' and '.join(map(str, within[within.index(path.absolute()) :]))}"
        raise InputError(Problem(str(path), what, "Write the virtual raster again, from its real files."))
    files = [path, *_sidecars(path, name), *map(Path, _product_metadata(str(path)))]
    for source in virtual_sources(path):
        inner = local_files(source, (*within, path.absolute()))
        files += [file for file in inner if file not in files]
    return [file for file in files if file.is_file()]


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
