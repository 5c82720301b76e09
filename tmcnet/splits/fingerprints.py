"""Fingerprints of tiles, so that verification can name the tiles that changed and in what."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pandas.util import hash_pandas_object

from tmcnet.errors import format_names

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
_CHUNK_ROWS = 2**16


def fingerprints(index: Path) -> pd.DataFrame:
    """Checksums (32 bits) of each tile: its place, its class counts, the fields of its source, and its pixels.

    Splits do not depend on pixels, but what is learnt does. Checksums only serve to find what changed; whether
    anything did is known from the hash of the index.

    Args:
        index: `tiles/index.csv`.
    """
    header = pd.read_csv(index, nrows=0).columns
    chosen = {aspect: [c for c in header if c.startswith(names)] for aspect, names in _COLUMNS.items()}
    wanted = ["tile", "role", *(column for columns in chosen.values() for column in columns)]
    parts = []
    for rows in pd.read_csv(index, usecols=wanted, dtype="str", keep_default_na=False, chunksize=_CHUNK_ROWS):
        sums = {aspect: hash_pandas_object(rows[columns], index=False) for aspect, columns in chosen.items()}
        parts.append(
            rows[["tile"]].assign(**{aspect: s % 2**32 for aspect, s in sums.items()})[rows["role"] != "predict"]
        )
    return pd.concat(parts).sort_values("tile", kind="stable")


def format_changes(folder: Path, index: Path) -> str:
    """What changed since the fingerprints in a folder were written: tiles added, removed or changed, by name."""
    try:
        then = pd.read_csv(folder / FILE, dtype={"tile": "str"}, keep_default_na=False)[["tile", *_CHANGES]]
    except (OSError, ValueError, KeyError):
        return f"it is not the index that the splits were made from; without {FILE} no more is known"
    both = then.merge(fingerprints(index), on="tile", how="outer", suffixes=("_then", "_now"), indicator="side")
    found = {"added": both["side"] == "right_only", "removed": both["side"] == "left_only"}
    for aspect, words in _CHANGES.items():
        found[words] = (both["side"] == "both") & (both[f"{aspect}_then"] != both[f"{aspect}_now"])
    named = [f"{n.sum()} {words}: {format_names(both['tile'][n])}" for words, n in found.items() if n.any()]
    return "; ".join(named) or "no tile differs in what the splits use, only in other columns or in classes"
