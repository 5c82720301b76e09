"""Fingerprints of tiles, so that verification can say which tiles changed and in what."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tmcnet.splits.index import TileIndex
from tmcnet.splits.lists import format_names

FILE = "tiles.csv"
"""Name of the file beside the manifest."""

_SAID = {
    "place": "moved to another place or scene",
    "labels": "changed class counts",
    "source": "changed field",
    "pixels": "changed pixels",
}


def fingerprints(index: TileIndex, path: Path) -> pd.DataFrame:
    """Checksums (32 bits) of each tile: its place, its class counts, its source's fields, and its pixels.

    Splits do not look at pixels, but what is learnt does. They only serve to find what changed; that nothing
    changed is vouched for by the hash of the index.
    """
    n = len(index.tiles)
    scenes = [zlib.crc32(name.encode()) for name in index.scenes]
    windows = np.ascontiguousarray(index.window, "<i8")
    counts = np.ascontiguousarray(index.area, "<i4")
    place = (zlib.crc32(windows[i].data, scenes[scene]) for i, scene in enumerate(index.scene))
    labels = (zlib.crc32(counts[i].data) for i in range(n))
    source = np.zeros(n, np.uint32)
    for field in (index.field, index.subsets):
        if field is not None:
            source = np.array([zlib.crc32(str(v).encode(), int(s)) for v, s in zip(field, source, strict=True)])
    return pd.DataFrame(
        {
            "tile": index.tiles,
            "place": np.fromiter(place, np.uint32, n),
            "labels": np.fromiter(labels, np.uint32, n),
            "source": source.astype(np.uint32),
            "pixels": _pixels(index, path),
        }
    )


def _pixels(index: TileIndex, path: Path) -> npt.NDArray[np.uint32]:
    """The beginning of the digest of each tile; zeros where the index has none."""
    if "digest" not in pd.read_csv(path, nrows=0).columns:
        return np.zeros(len(index.tiles), np.uint32)
    table = pd.read_csv(path, usecols=["tile", "digest"], dtype=str, keep_default_na=False).set_index("tile")
    starts = table["digest"].reindex(index.tiles).str[:8]
    return np.fromiter((int(start, 16) if start else 0 for start in starts), np.uint32, len(starts))


def write(folder: Path, index: TileIndex, path: Path) -> None:
    """Write the fingerprints of the index at a path beside the manifest."""
    fingerprints(index, path).to_csv(folder / FILE, index=False, lineterminator="\n")


def read(folder: Path) -> pd.DataFrame | None:
    """The fingerprints of the splits in a folder; None for splits without, made by an earlier version or damaged."""
    try:
        frame = pd.read_csv(folder / FILE, dtype={"tile": "str"}, keep_default_na=False)
    except (OSError, ValueError):
        return None
    return frame if {"tile", *_SAID} <= set(frame.columns) else None


def differences(then: pd.DataFrame, index: TileIndex, path: Path) -> str:
    """What changed between the fingerprinted tiles and the index: tiles added, removed, changed; by name."""
    both = then.merge(fingerprints(index, path), on="tile", how="outer", suffixes=("_then", "_now"), indicator="side")
    told = [
        _count("added", both["tile"][both["side"] == "right_only"]),
        _count("removed", both["tile"][both["side"] == "left_only"]),
    ]
    both = both[both["side"] == "both"]
    told += [
        _count(words, both["tile"][both[f"{name}_then"] != both[f"{name}_now"]]) for name, words in _SAID.items()
    ]
    found = "; ".join(text for text in told if text)
    return found or "no tile differs in what the splits look at, only in other columns or in classes"


def _count(words: str, tiles: pd.Series[str]) -> str:
    return f"{len(tiles)} {words}: {format_names(tiles)}" if len(tiles) else ""
