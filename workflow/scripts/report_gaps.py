"""Write the report of the finished runs after a failure. Reads {config, data_version} as JSON from standard input.

Snakemake starts no job whose input is missing, so without this script one failed training would leave no report.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tmcnet.hashing import file_digest, json_digest

_NOT_SHOWN = {".state", "tiles", "report", "benchmarks", "mlartifacts"}
"""Folders of the results that are large, or change with every attempt, and do not change the report."""
_OLD = 946_684_800
"""1 January 2000: older than any result. Snakemake takes a time of 0 for none, and ZIP files begin with 1980."""


def main() -> None:
    """Write the report, unless it was written after the last failure and nothing has changed since."""
    job = json.load(sys.stdin)
    results = Path(job["config"]["results_dir"])
    report, note = results / "report.html", results / ".state" / "gaps.txt"
    before = json_digest([job, *_files(results)])
    if report.exists() and note.exists() and note.read_text() == before:
        print(f"{report} has not changed since the last failure.", file=sys.stderr)
        return
    _write(job, results, report)
    if report.exists():
        note.parent.mkdir(exist_ok=True)
        note.write_text(json_digest([job, *_files(results)]))


def _files(results: Path) -> Iterator[tuple[str, object]]:
    """What the report depends on: files by time and size, logs by content because every attempt writes them again."""
    for folder, inner, names in os.walk(results):
        inner[:] = sorted(name for name in inner if name not in _NOT_SHOWN)
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix == ".log":
                yield str(path), file_digest(path)
            elif name != "report.html":
                found = path.stat()
                yield str(path), [found.st_mtime_ns, found.st_size]


def _write(job: dict[str, Any], results: Path, report: Path) -> None:
    from _job import full_disk_of
    from _provenance import provenance

    from tmcnet.config import Config
    from tmcnet.errors import InputError
    from tmcnet.evaluate.groups import group_tiles
    from tmcnet.evaluate.summary import GROUP_TABLES, TABLES, forget_outdated, summarise
    from tmcnet.report import build

    config = Config.model_validate(job["config"])
    tables = [results / name for name in (*TABLES, *GROUP_TABLES)]
    manifest, index = results / "splits" / "manifest.json", results / "tiles" / "index.csv"
    forget_outdated(results, config.runs, config.splits.folders.values())
    try:
        classes = [c.name for c in config.labels.classes]
        groups = results / "evaluate" / "groups.json" if config.evaluate.groups else None
        if groups:  # those of an earlier run may be of other settings or tiles
            splits = [results / folder / "splits" for folder in config.splits.folders.values()]
            bands = {name: sensor.bands for name, sensor in config.sensors.items()}
            group_tiles(index.parent, splits, config.evaluate.groups, bands, groups)
        summarise(results / "evaluate", config.runs, index, manifest, config.evaluate, results, classes, groups)
    except (InputError, OSError) as error:
        if not index.exists():
            return  # nothing to show yet; the message of the failed job is enough
        if full_disk_of(error, results):
            raise
        for table in tables:
            table.unlink(missing_ok=True)  # it is of runs that no longer exist
    build(results, config, report, provenance(results, job["data_version"]))
    for path in filter(Path.exists, (report, *tables)):
        os.utime(path, (_OLD, _OLD))  # older than the note, so the next run makes them again
    print(f"{report} shows the finished runs and names the missing ones.", file=sys.stderr)


try:
    main()
except Exception as error:  # the failed job has said what matters; this must not hide it
    why = " ".join(str(error).split()) or type(error).__name__
    print(f"No report of the finished runs could be written: {why}", file=sys.stderr)
