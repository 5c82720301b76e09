"""Hashes of files, pixels, tables and records: the one place where the package computes them.

Snakemake compares files by content, but only the inputs that a rule names. Tables and records between the stages are
small and often come out the same from other pixels, so they hold the hashes of the data behind them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def bytes_digest(content: bytes | str) -> str:
    """SHA-256 of bytes, or of a text in UTF-8, in hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def json_digest(content: object) -> str:
    """SHA-256 of plain values as JSON with sorted keys; the order of keys in a mapping does not count."""
    return bytes_digest(json.dumps(content, sort_keys=True))


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:  # noqa: PTH123 - faster than by a path
        return hashlib.file_digest(file, "sha256").hexdigest()


def table_digest(path: Path) -> str:
    """SHA-256 of a CSV file with its rows sorted as bytes, so that their order does not count."""
    with path.open("rb") as file:  # a table that is sorted already is hashed without being held in memory
        digest = hashlib.sha256(file.readline())
        last = b""
        for line in file:
            if line < last:
                break
            digest.update(line)
            last = line
        else:
            return digest.hexdigest()
    header, *rows = path.read_bytes().splitlines(keepends=True)
    end = b"\r\n" if header.endswith(b"\r\n") else b"\n"
    return bytes_digest(header + b"".join(sorted(row if row.endswith(b"\n") else row + end for row in rows)))


def pixel_digest(*arrays: npt.NDArray[Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of arrays: type, shape and values.

    Unlike the hash of a file it does not depend on how pixels are compressed. All NaN count as one.
    """
    digest = hashlib.sha256()
    for array in arrays:
        values = array
        if array.dtype.kind == "f" and (missing := np.isnan(array)).any():
            values = np.where(missing, array.dtype.type(np.nan), array)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).data)
    return digest.hexdigest()[:16]
