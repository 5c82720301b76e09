"""Keep copies of the small files that all trainings depend on, and put them back when they are lost or damaged.

Snakemake repeats everything that depends on a file it makes again, although a lost file comes out as it was. Copies
are put back before Snakemake looks at the files, and only if their job would get the same parameters and inputs.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from tmcnet.hashing import file_digest, json_digest

_RECORD = "kept"
"""Member of the archive: what the files were made from, and their times."""


def archive_of(results: Path, name: str) -> Path:
    """File for the copies, below a results folder or that of a fold."""
    return results / ".state" / f"{name}.zip"


def origin_of(params: Mapping[str, object], inputs: Iterable[str | Path]) -> str:
    """Hash of what a job makes its files from: its parameters and the contents of its inputs."""
    return json_digest([dict(params), [file_digest(path) for path in inputs]])


def keep(archive: Path, origin: str, files: Iterable[Path]) -> None:
    """Write copies of files of one folder, all or none.

    Args:
        archive: Zip file to write.
        origin: What the files were made from, of `origin_of`.
        files: The files, of different names.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_name(f".{archive.name}.part")  # the next attempt replaces what a killed one left
    times = {}
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copies:
        for path in files:
            times[path.name] = path.stat().st_mtime_ns
            copies.write(path, path.name)
        copies.writestr(_RECORD, json.dumps({"origin": origin, "times": times}))
    unfinished.replace(archive)


def put_back(archive: Path, folder: Path, params: Mapping[str, object], inputs: Iterable[str | Path]) -> list[Path]:
    """Put back the files of a job that are lost or differ from their copies, with their times.

    Nothing happens if the job would make them from something else now, or if there are no usable copies.

    Args:
        archive: Zip file of `keep`.
        folder: Folder of the files.
        params: Parameters that the job would get.
        inputs: Inputs that the job would get.

    Returns:
        The files that were put back.
    """
    try:
        with zipfile.ZipFile(archive) as copies:
            record = json.loads(copies.read(_RECORD))
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
