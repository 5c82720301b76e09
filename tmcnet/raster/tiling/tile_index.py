"""The index of the tiles: one row a tile."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE
from tmcnet.hashing import pixel_digest
from tmcnet.raster.inventory.records import Record
from tmcnet.raster.io.ground import GROUND, ground_columns
from tmcnet.raster.tiling.cutting import Tile
from tmcnet.store import RASTERS


def tile_row(tile: Tile, valid_share: float, classes: ClassTable, rasters: str) -> dict[str, str]:
    """One row of the index.

    Args:
        tile: The tile.
        valid_share: Share of its pixels that are valid in all modalities.
        classes: The classes.
        rasters: Folder of the rasters of its scene, relative to that of the index, where it is virtual; else empty.
    """
    row, column, height, width = tile.box
    counts = np.bincount(tile.label.ravel(), minlength=IGNORE + 1)[:IGNORE]
    labelled = int(counts.sum())
    shares = {f"share_{c.name}": f"{counts[c.id] / max(labelled, 1):.6f}" for c in classes.classes}
    return {
        "tile": tile.name,
        "scene": tile.record.scene,
        "role": tile.record.role,
        "row": str(row),
        "col": str(column),
        "height": str(height),
        "width": str(width),
        "crs": tile.grid.crs,
        **ground_columns(tile.grid),
        "valid_share": f"{valid_share:.6f}",
        "label_share": f"{labelled / tile.label.size:.6f}",
        **shares,
        "alignment": tile.alignment,
        "alignment_px": "" if tile.alignment_px is None else f"{tile.alignment_px:.3f}",
        "digest": pixel_digest(tile.optical.values, tile.sar, tile.label, *tile.further.values()),
        RASTERS: rasters,
        **{f"field_{name}": value for name, value in tile.record.fields.items()},
    }


def index_table(rows: Sequence[dict[str, str]], classes: ClassTable, records: Sequence[Record]) -> bytes:
    """The index as CSV.

    Args:
        rows: Rows as `tile_row` gives them.
        classes: The classes.
        records: The scenes or tiles; tell which fields there are.
    """
    fields = dict.fromkeys(f"field_{name}" for record in records for name in record.fields)
    first = ("tile", "scene", "role", "row", "col", "height", "width", "crs", *GROUND)
    shares = ("valid_share", "label_share", *(f"share_{name}" for name in classes.names))
    columns = [*first, *shares, "alignment", "alignment_px", "digest", RASTERS, *fields]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()
