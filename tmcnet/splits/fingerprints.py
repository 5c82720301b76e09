"""Fingerprints of tiles, so that verification can name the tiles that changed and in what."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tmcnet.splits.index import TileIndex
from tmcnet.splits.lists import format_names

FILE = "tiles.csv"
"""Name of the file beside the manifest."""

_CHANGES = {
    "place": "moved to another place or scene",
    "labels": "changed class counts",
    "source": "changed field",
    "pixels": "changed pixels",
}


def fingerprints(index: TileIndex, path: Path) -> pd.DataFrame:
    """Checksums (32 bits) of each tile: its place, its class counts, the fields of its source, and its pixels.

    Splits do not depend on pixels, but what is learnt does. Checksums only serve to find what changed; whether
    anything did is known from the hash of the index.

    Args:
        index: The tiles.
        path: `tiles/index.csv`, for the digests of the pixels.
    """
    windows, counts = np.ascontiguousarray(index.window, "<i8"), np.ascontiguousarray(index.area, "<i4")
    scenes = [name.encode() for name in index.scenes]
    fields = [field for field in (index.field, index.subsets) if field is not None]
    source = (
        ("".join(map(str, row)).encode() for row in zip(*fields, strict=True)) if fields else [b""] * len(windows)
    )
    return pd.DataFrame(
        {
            "tile": index.tiles,
            "place": _checksums(scenes[s] + row.tobytes() for s, row in zip(index.scene, windows, strict=True)),
            "labels": _checksums(row.tobytes() for row in counts),
            "source": _checksums(source),
            "pixels": _pixels(index, path),
        }
    )


def _checksums(rows: Iterable[bytes]) -> npt.NDArray[np.uint32]:
    return np.fromiter(map(zlib.crc32, rows), np.uint32)


def _pixels(index: TileIndex, path: Path) -> npt.NDArray[np.uint32]:
    """The first digits of the digest of each tile; zeros where the index has none."""
    if "digest" not in pd.read_csv(path, nrows=0).columns:
        return np.zeros(len(index.tiles), np.uint32)
    table = pd.read_csv(path, usecols=["tile", "digest"], dtype=str, keep_default_na=False).set_index("tile")
    starts = table["digest"].reindex(index.tiles).str[:8]
    return np.fromiter((int(start, 16) if start else 0 for start in starts), np.uint32, len(starts))


def write_fingerprints(folder: Path, index: TileIndex, path: Path) -> None:
    """Write the fingerprints of the tiles beside the manifest."""
    fingerprints(index, path).to_csv(folder / FILE, index=False, lineterminator="\n")


def format_changes(folder: Path, index: TileIndex, path: Path) -> str:
    """What changed since the fingerprints in a folder were written: tiles added, removed or changed, by name.

    Args:
        folder: Folder of the splits.
        index: The tiles today.
        path: `tiles/index.csv`.
    """
    try:
        then = pd.read_csv(folder / FILE, dtype={"tile": "str"}, keep_default_na=False)[["tile", *_CHANGES]]
    except (OSError, ValueError, KeyError):
        return f"it is not the index that the splits were made from; without {FILE} no more is known"
    both = then.merge(fingerprints(index, path), on="tile", how="outer", suffixes=("_then", "_now"), indicator="side")
    changed = {words: both[f"{name}_then"] != both[f"{name}_now"] for name, words in _CHANGES.items()}
    same = both["side"] == "both"
    found = {"added": both["side"] == "right_only", "removed": both["side"] == "left_only"}
    found |= {words: differs & same for words, differs in changed.items()}
    named = [f"{n.sum()} {words}: {format_names(both['tile'][n])}" for words, n in found.items() if n.any()]
    return "; ".join(named) or "no tile differs in what the splits use, only in other columns or in classes"
