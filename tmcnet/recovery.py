"""Repair a results folder: put back small files from copies, and find lost or damaged ones to be made again.

Snakemake repeats everything that depends on a file it makes again, although a lost file comes out as it was. Small
files that all trainings depend on are put back from copies before Snakemake looks at them, and only if their job
would get the same parameters and inputs. Other files of the early stages are made again; `is_unchanged` checks that
nothing else happened, so that training need not follow.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tmcnet.errors import InputError
from tmcnet.hashing import file_digest, json_digest
from tmcnet.readers import read_record, reading

SOURCE_RECORD = "source.json"
"""File beside the tile index: hashes of the settings and raw files behind it, and each scene's number of files."""
_KEPT = "kept"
"""Member of an archive of copies: what the files were made from, and their times."""
_TILE = re.compile(r"(.+)_r\d+_c\d+")


def archive_of(results: Path, name: str) -> Path:
    """File for the copies, below a results folder or that of a fold."""
    return results / ".state" / f"{name}.zip"


def origin_of(params: Mapping[str, object], inputs: Iterable[str | Path]) -> str:
    """Hash of what a job makes its files from: its parameters and the contents of its inputs."""
    return json_digest([dict(params), [file_digest(path) for path in inputs]])


def keep(archive: Path, origin: str, files: Iterable[Path]) -> None:
    """Write copies of files of one folder, of different names, all or none; `origin` is that of `origin_of`."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_name(f".{archive.name}.part")  # the next attempt replaces what a killed one left
    times = {}
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copies:
        for path in files:
            times[path.name] = path.stat().st_mtime_ns
            copies.write(path, path.name)
        copies.writestr(_KEPT, json.dumps({"origin": origin, "times": times}))
    unfinished.replace(archive)


def has_copies(archive: Path, params: Mapping[str, object], inputs: Iterable[str | Path]) -> bool:
    """Whether there are copies of what a job makes from these parameters and inputs."""
    try:
        with zipfile.ZipFile(archive) as copies:
            return bool(json.loads(copies.read(_KEPT))["origin"] == origin_of(params, inputs))
    except Exception:  # no copies, or unusable ones, which can raise anything
        return False


def put_back(archive: Path, folder: Path, params: Mapping[str, object], inputs: Iterable[str | Path]) -> list[Path]:
    """Put back the files of a job that are lost or differ from their copies, with their times, and return them.

    Nothing happens if the job would make them from other parameters or inputs now, or if there are no usable copies.
    """
    try:
        with zipfile.ZipFile(archive) as copies:
            record = json.loads(copies.read(_KEPT))
            # Names are those of files in the folder, wherever the archive comes from.
            members = [copies.getinfo(name) for name in record["times"] if name == Path(name).name]
            lost = [member for member in members if not _is_copy(folder / member.filename, member)]
            if not lost or record["origin"] != origin_of(params, inputs):
                return []
            for member in lost:
                path = folder / member.filename
                unfinished = path.with_name(f".{path.name}.{os.getpid()}")
                folder.mkdir(parents=True, exist_ok=True)
                unfinished.write_bytes(copies.read(member))
                os.utime(unfinished, ns=(record["times"][path.name],) * 2)
                unfinished.replace(path)
    except Exception:  # no copies, or unusable ones, which can raise anything: Snakemake makes the files again
        return []
    return [folder / member.filename for member in lost]


def _is_copy(path: Path, member: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == member.file_size and zlib.crc32(path.read_bytes()) == member.CRC


def write_source_record(
    tables: Sequence[Path], inventories: Sequence[Path], settings: str, modalities: Iterable[str], out: Path
) -> None:
    """Write what the tile index was made from.

    Each scene has a table of rows with a summary (JSON) beside it, and an inventory with the hashes of the raw files;
    ready-made tiles count as one scene. `settings` is the hash of the settings and of the rows of the sample sheet.
    """
    files, raw = {}, {}
    for table, inventory in zip(tables, inventories, strict=True):
        summary, content = table.with_suffix(".json"), read_record(inventory)
        with reading(summary):
            files[table.stem] = read_record(summary)["files"]
        with reading(inventory):
            raw[table.stem] = json_digest([digest for entry in content["entries"] for digest in entry["digests"]])
    content = {"settings": settings, "kinds": [*modalities, "label"], "files": files, "raw": raw}
    out.write_text(json.dumps(content, indent=1) + "\n")


def find_lost(results: Path, inspected: Iterable[str], aligned: Iterable[str]) -> list[Path]:
    """Find files of earlier runs that are missing or damaged; damaged ones are removed.

    A tile is no file that Snakemake knows, so the table of a scene with lost tiles is removed in its place.
    `inspected` are the scenes of the inventory (`tiles` for ready-made tiles), `aligned` those that are aligned.
    """
    made = _record_or_none(results / "tiles" / SOURCE_RECORD)
    if made is None:
        return []
    started = [scene for scene in aligned if scene in made["files"] or (results / "scenes" / scene).is_dir()]
    earlier = {*made["files"], *started}
    records = [results / "inventory.json"]
    records += [results / "inventory" / f"{scene}.json" for scene in inspected if scene in earlier]
    records += [results / "scenes" / scene / "alignment.json" for scene in started]
    lost = [path for path in records if not _is_complete(path, results / "labels")]
    tables = [results / "tiles" / "index" / f"{scene}{end}" for scene in made["files"] for end in (".csv", ".json")]
    lost += [
        path for path in tables if not path.is_file() or (path.suffix == ".json" and _record_or_none(path) is None)
    ]
    with_lost_tiles = _scenes_with_lost_tiles(results / "tiles", made)
    lost += [results / "tiles" / "index" / f"{scene}.csv" for scene in with_lost_tiles]
    for path in lost:
        if path.is_file():
            print(f"{path} is damaged, or tiles of it are lost; it is made again.", file=sys.stderr)
            path.unlink()
    return lost


def _is_complete(path: Path, labels: Path) -> bool:
    """Whether a record can be read, and the rasters of vector labels that an inventory names are there."""
    content = _record_or_none(path)
    if content is None:
        return False
    found = [entry["label"] for entry in content.get("entries", [])]
    files = [file for label in found if isinstance(label, dict) for file in label["files"]]
    named = [Path(name) for file in files for name in file["paths"]]
    return all(raster.is_file() for raster in named if raster.parent == labels)


def _scenes_with_lost_tiles(tiles: Path, made: dict[str, Any]) -> list[str]:
    """Scenes that have fewer files of tiles than when the index was made."""
    short = set()
    for kind in made["kinds"]:
        counts: Counter[str] = Counter()
        for path in (tiles / kind).glob("*.tif"):
            match = _TILE.fullmatch(path.stem)
            counts[match[1] if match and match[1] in made["files"] else "tiles"] += 1
        short |= {scene for scene, count in made["files"].items() if counts[scene] < count}
    return sorted(short)


def is_unchanged(results: Path, settings: str, raw: Mapping[str, Sequence[Path]]) -> bool:
    """Whether the tile index was made from the same settings (a hash) and raw files of the same scenes.

    Raw files are compared by content, but read only where one of the scene is newer than the index.
    """
    path = results / "tiles" / SOURCE_RECORD
    made = _record_or_none(path)
    if made is None or made["settings"] != settings or list(made["files"]) != list(raw):
        return False
    if not (results / "tiles" / "index.csv").is_file():
        return False
    since = path.stat().st_mtime
    return all(_is_same(files, since, made["raw"][scene]) for scene, files in raw.items())


def _is_same(files: Sequence[Path], since: float, digest: str) -> bool:
    if not all(file.is_file() for file in files):
        return False
    return all(file.stat().st_mtime <= since for file in files) or digest == json_digest(
        list(map(file_digest, files))
    )


def _record_or_none(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where it is missing or damaged."""
    try:
        return read_record(path)
    except InputError:
        return None
