"""The header of safetensors files, without torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

METADATA = "__metadata__"


def read_header(file: BinaryIO) -> dict[str, Any]:
    """Read the header of an open file: names and places of the tensors, and texts under `METADATA`."""
    length = int.from_bytes(file.read(8), "little")
    header: dict[str, Any] = json.loads(file.read(length))
    return header


def write_file(path: Path, header: Mapping[str, Any], tensors: BinaryIO) -> None:
    """Write a file whole or not at all.

    Args:
        path: File to write; its folder is created if needed.
        header: As `read_header` gives it; texts are sorted, so that equal content has equal bytes.
        tensors: All that follows the header, read from its present position.
    """
    ordered = {**header, METADATA: dict(sorted(header.get(METADATA, {}).items()))}
    ordered = {METADATA: ordered.pop(METADATA), **ordered}
    text = json.dumps(ordered, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")  # the next attempt replaces what a killed one left
    try:
        with unfinished.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(tensors, file, 2**24)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
