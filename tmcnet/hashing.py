"""Hashes of files and pixels: where data changed, what is made from them must not be taken for fresh.

Snakemake compares files by content, and only the inputs that a rule names. The tables and records between the stages
are small and would often come out the same from other pixels; so they hold the hashes of what they stand for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tmcnet.errors import InputError, Problem

KINDS = ("optical", "sar", "label")
"""Rasters of an aligned scene, and of a tile; those of further modalities stand beside them."""
RECORD = "alignment.json"
"""Name of the record beside the rasters of a scene."""


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixel_digest(*arrays: npt.NDArray[Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of arrays: type, shape and values.

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


def scene_digests(folder: Path, further: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of the rasters of an aligned scene: optical, sar, label, and those of further modalities by name."""
    return {kind: file_digest(folder / f"{kind}.tif") for kind in (*KINDS, *further)}


def require_scenes(folders: Iterable[Path], kinds: Sequence[str] = KINDS, threads: int = 1) -> None:
    """Make sure that the rasters of aligned scenes are those which their records speak of.

    Snakemake watches the records only, since it would hash large rasters once for every file that is made of them.

    Args:
        folders: Folders of aligned scenes, `alignment.json` in each.
        kinds: The rasters that are needed.
        threads: How many rasters are read at a time.

    Raises:
        InputError: If rasters are missing or were changed; names all of them.
    """
    recorded = [
        (folder / f"{kind}.tif", digests.get(kind))
        for folder in folders
        for digests in [json.loads((folder / RECORD).read_text()).get("digests", {})]
        for kind in kinds
    ]
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda raster: _lost(*raster), recorded)
        problems = [problem for problem in found if problem is not None]
    if problems:
        raise InputError(problems)


def _lost(path: Path, digest: str | None) -> Problem | None:
    again = "run `snakemake alignment`: it makes missing rasters anew, and nothing else is repeated."
    if not path.exists():
        return Problem(str(path), "does not exist", f"Please {again}")
    if file_digest(path) != digest:
        return Problem(str(path), f"was changed after {RECORD} was written", f"Remove it and {again}")
    return None
