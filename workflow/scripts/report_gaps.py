"""Write the report of the finished runs after a failure. Reads {config, data_version} as JSON from standard input.

Snakemake starts no job whose input is missing, so without this script one failed training would leave no report.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
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
    if report.exists() and note.exists() and note.read_text().startswith(before):
        print(f"{report} has not changed since the last failure.", file=sys.stderr)
        return
    if not (results / "tiles" / "index.csv").exists():
        return  # nothing to show yet; the message of the failed job is enough
    note.parent.mkdir(exist_ok=True)
    # First: whatever ends this script, the next run makes tables and report again.
    note.write_text(f"unfinished {time.time_ns()}")
    with TemporaryDirectory(dir=note.parent) as folder:
        _write(job, results, report, Path(folder))
    note.write_text(f"{json_digest([job, *_files(results)])} {time.time_ns()}")


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


def _write(job: dict[str, Any], results: Path, report: Path, made: Path) -> None:
    """Make tables and report in a folder, and put them in place with a time that is older than the note."""
    from _job import full_disk_of
    from _provenance import provenance

    from tmcnet.config import Config
    from tmcnet.errors import InputError
    from tmcnet.evaluate.groups import group_tiles
    from tmcnet.evaluate.summary import GROUP_TABLES, TABLES, outdated_runs, summarise
    from tmcnet.report import build

    config = Config.model_validate(job["config"])
    manifest, index = results / "splits" / "manifest.json", results / "tiles" / "index.csv"
    outdated = outdated_runs(results, config.runs, config.splits.folders.values())
    try:
        classes = [c.name for c in config.labels.classes]
        groups = results / "evaluate" / "groups.json" if config.evaluate.groups else None
        if groups:  # those of an earlier run may be of other settings or tiles
            splits = [results / folder / "splits" for folder in config.splits.folders.values()]
            bands = {name: sensor.bands for name, sensor in config.sensors.items()}
            group_tiles(index.parent, splits, config.evaluate.groups, bands, groups)
        scored = results / "evaluate"
        summarise(scored, config.runs, index, manifest, config.evaluate, made, classes, groups, outdated)
    except (InputError, OSError) as error:
        if full_disk_of(error, results):
            raise
    for table in (*TABLES, *GROUP_TABLES):  # without new ones, those there are of runs that no longer exist
        _replace(results / table, made / table)
    build(results, config, made / report.name, provenance(results, job["data_version"]), outdated)
    _replace(report, made / report.name)
    print(f"{report} shows the finished runs and names the missing ones.", file=sys.stderr)


def _replace(path: Path, new: Path) -> None:
    """Put a new file in the place of an earlier one, with an old time; without a new one, remove the earlier."""
    if new.exists():
        os.utime(new, (_OLD, _OLD))
        new.replace(path)
    else:
        path.unlink(missing_ok=True)


try:
    main()
except Exception as error:  # the failed job has said what matters; this must not hide it
    why = " ".join(str(error).split()) or type(error).__name__
    print(f"No report of the finished runs could be written: {why}", file=sys.stderr)
