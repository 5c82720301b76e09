"""Find files of the early stages that were lost or damaged, so that the workflow makes them again.

Snakemake repeats everything that depends on a file it makes again. A file that was lost comes out as it was, so
training need not follow. `is_unchanged` checks that this is all that happened.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tmcnet.errors import InputError, Problem
from tmcnet.hashing import file_digest, json_digest
from tmcnet.readers import read_record, reading

SOURCE_RECORD = "source.json"
"""File beside the tile index: hashes of the settings and raw files it was made from, and its files by part."""
MAX_AHEAD_SECONDS = 10
"""By how much the clocks of machines that write the user's files may differ."""
_NO_INPUTS = {".state", "mlartifacts", "logs", "benchmarks", "seed"}
"""Folders whose files are no inputs of jobs for Snakemake; nor are tiles, but their tables are."""
_TILE = re.compile(r"(.+)_r\d+_c\d+")


def write_source_record(
    tables: Sequence[Path], inventories: Sequence[Path], settings: str, modalities: Iterable[str], out: Path
) -> None:
    """Write what the tile index was made from.

    Args:
        tables: Rows of the parts, each with a summary (JSON) beside it.
        inventories: Inventories of the parts, with the hashes of the raw files.
        settings: Hash of the settings and of the rows of the sample sheet.
        modalities: Names of the modalities.
        out: File to write.
    """
    parts, raw = {}, {}
    for table, inventory in zip(tables, inventories, strict=True):
        summary, content = table.with_suffix(".json"), read_record(inventory)
        with reading(summary):
            parts[table.stem] = read_record(summary)["files"]
        with reading(inventory):
            raw[table.stem] = json_digest([digest for entry in content["entries"] for digest in entry["digests"]])
    content = {"settings": settings, "kinds": [*modalities, "label"], "files": parts, "raw": raw}
    out.write_text(json.dumps(content, indent=1) + "\n")


def correct_times(made: Iterable[Path], given: Iterable[Path]) -> None:
    """Give made files with a time in the future the present time, and refuse given ones.

    The clock may have been set back. Snakemake fails every job with an input that is newer than its output. A new
    time repeats nothing, because contents decide.

    Args:
        made: Folders of files that the workflow made.
        given: Files of the user.

    Raises:
        InputError: If given files have a time in the future.
    """
    now = time.time()
    for folder, inner, names in (step for root in made for step in os.walk(root)):
        tables_only = Path(folder).name == "tiles"
        inner[:] = [name for name in inner if name not in _NO_INPUTS and (not tables_only or name == "index")]
        for path in (Path(folder, name) for name in names):
            with suppress(OSError):  # not writable, or gone: Snakemake says so where it matters
                if path.stat().st_mtime > now:
                    os.utime(path)
    times = ((path, _modified(path)) for path in given)
    if ahead := [(path, modified) for path, modified in times if modified > now + MAX_AHEAD_SECONDS]:
        path, modified = ahead[0]
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(modified))
        others = f", and {len(ahead) - 1} more files" if len(ahead) > 1 else ""
        what = f"has a time in the future ({when}){others}, with which Snakemake would fail"
        remedy = f"Check the clock, or give the files the present time: touch {shlex.quote(str(path))}."
        raise InputError(Problem(str(path), what, remedy))


def _modified(path: Path) -> float:
    """Time of the last change of a file in seconds; 0 for folders and remote rasters."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return 0.0
    return found.st_mtime if stat.S_ISREG(found.st_mode) else 0.0


def find_lost(results: Path, parts: Iterable[str], scenes: Iterable[str]) -> list[Path]:
    """Find files of earlier runs that are missing or damaged; damaged ones are removed.

    A tile is no file that Snakemake knows, so the table of a scene with lost tiles is removed in its place.

    Args:
        results: The results folder.
        parts: Names of the parts of the inventory.
        scenes: Names of the scenes that are aligned.
    """
    made = _record_or_none(results / "tiles" / SOURCE_RECORD)
    if made is None:
        return []
    aligned = [scene for scene in scenes if (results / "scenes" / scene).is_dir()]
    known = {*made["files"], *aligned}
    records = [results / "inventory.json"]
    records += [results / "inventory" / f"{part}.json" for part in parts if part in known]
    records += [results / "scenes" / scene / "alignment.json" for scene in aligned]
    lost = [path for path in records if not _is_complete(path, results / "labels")]
    tables = [results / "tiles" / "index" / f"{part}{end}" for part in made["files"] for end in (".csv", ".json")]
    lost += [
        path for path in tables if not path.is_file() or (path.suffix == ".json" and _record_or_none(path) is None)
    ]
    lost += [results / "tiles" / "index" / f"{part}.csv" for part in _parts_with_lost_tiles(results / "tiles", made)]
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
    files = [file for entry in content.get("entries", []) for file in entry["label"] or []]
    named = [Path(name) for file in files for name in file["paths"]]
    return all(raster.is_file() for raster in named if raster.parent == labels)


def _parts_with_lost_tiles(tiles: Path, made: dict[str, Any]) -> list[str]:
    """Parts that have fewer files than when the index was made."""
    short = set()
    for kind in made["kinds"]:
        counts: Counter[str] = Counter()
        for path in (tiles / kind).glob("*.tif"):
            match = _TILE.fullmatch(path.stem)
            counts[match[1] if match and match[1] in made["files"] else "tiles"] += 1
        short |= {part for part, count in made["files"].items() if counts[part] < count}
    return sorted(short)


def is_unchanged(results: Path, settings: str, raw: Mapping[str, Sequence[Path]]) -> bool:
    """Whether the tile index was made from the same parts, settings and raw files.

    Raw files are compared by content, but read only where one of the part is newer than the index.

    Args:
        results: The results folder.
        settings: Hash of the settings, as in `write_source_record`.
        raw: The raw files of the parts that tiles are cut from.
    """
    path = results / "tiles" / SOURCE_RECORD
    made = _record_or_none(path)
    if made is None or made["settings"] != settings or list(made["files"]) != list(raw):
        return False
    if not (results / "tiles" / "index.csv").is_file():
        return False
    since = path.stat().st_mtime
    return all(_is_same(files, since, made["raw"][part]) for part, files in raw.items())


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
