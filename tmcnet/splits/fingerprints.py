"""Fingerprints of tiles, so that verification can name the tiles that changed and in what."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from tmcnet.splits.lists import format_names

FILE = "tiles.csv"
"""Name of the file beside the manifest."""

_COLUMNS = {
    "place": ("scene", "row", "col", "height", "width"),
    "labels": ("label_share", "share_"),
    "source": ("field_",),
    "pixels": ("digest",),
}
_CHANGES = {
    "place": "moved to another place or scene",
    "labels": "changed class counts",
    "source": "changed field",
    "pixels": "changed pixels",
}


def fingerprints(index: Path) -> pd.DataFrame:
    """Checksums (32 bits) of each tile: its place, its class counts, the fields of its source, and its pixels.

    Splits do not depend on pixels, but what is learnt does. Checksums only serve to find what changed; whether
    anything did is known from the hash of the index.

    Args:
        index: `tiles/index.csv`.
    """
    return pd.DataFrame(_rows(index), columns=["tile", *_COLUMNS]).sort_values("tile", kind="stable")


def _rows(index: Path) -> Iterator[tuple[str | int, ...]]:
    with index.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        tile, role = header.index("tile"), header.index("role")
        chosen = [[i for i, name in enumerate(header) if name.startswith(names)] for names in _COLUMNS.values()]
        for row in rows:
            if row[role] != "predict":
                texts = (",".join([row[i] for i in columns]) for columns in chosen)
                yield row[tile], *(zlib.crc32(text.encode()) for text in texts)


def format_changes(folder: Path, index: Path) -> str:
    """What changed since the fingerprints in a folder were written: tiles added, removed or changed, by name."""
    try:
        then = pd.read_csv(folder / FILE, dtype={"tile": "str"}, keep_default_na=False)[["tile", *_CHANGES]]
    except (OSError, ValueError, KeyError):
        return f"it is not the index that the splits were made from; without {FILE} no more is known"
    both = then.merge(fingerprints(index), on="tile", how="outer", suffixes=("_then", "_now"), indicator="side")
    found = {"added": both["side"] == "right_only", "removed": both["side"] == "left_only"}
    for name, words in _CHANGES.items():
        found[words] = (both["side"] == "both") & (both[f"{name}_then"] != both[f"{name}_now"])
    named = [f"{n.sum()} {words}: {format_names(both['tile'][n])}" for words, n in found.items() if n.any()]
    return "; ".join(named) or "no tile differs in what the splits use, only in other columns or in classes"
