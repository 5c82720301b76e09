"""Numbers, charts and tables of the sections on data: inventory, alignment, tiles, splits."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tmcnet.report.figures_data import (
    draw_class_shares,
    draw_footprints,
    draw_splits,
    extent,
    footprints_by_crs,
    short_crs,
)
from tmcnet.report.files import number
from tmcnet.report.imagery import Painter
from tmcnet.report.results import Results

MAX_ROWS = 40
"""Rows of a table on the page; the file has all."""
_MAIN_COLUMNS = (
    "scene",
    "role",
    "optical_bands",
    "optical_width",
    "optical_height",
    "optical_gsd",
    "optical_crs",
    "sar_bands",
    "sar_gsd",
    "sar_crs",
    "overlap",
    "label_share",
    "warnings",
)
_MAX_PICTURES = 8
_MAX_SPLIT_MAPS = 12
_MAX_CRS = 4


def inventory(results: Results) -> dict[str, Any]:
    """The input files."""
    table = results.inventory
    if table.empty:
        return {"rows": 0}
    columns = [c for c in _MAIN_COLUMNS if c in table]
    if len(columns) <= len(_MAIN_COLUMNS) / 2:
        columns = [str(c) for c in table.columns]
    section: dict[str, Any] = {
        "rows": len(table),
        "kind": "scene" if results.config.source.layout in ("demo", "scenes") else "tile",
        "columns": [(c.replace("_", " "), "number" if _is_numeric(table[c]) else None, c) for c in columns],
        "excerpt": table[columns].head(MAX_ROWS).map(_shorten),
        "complete": len(table) <= MAX_ROWS and len(columns) == len(table.columns),
        "tables": {"inventory": table},
        "figures": {},
    }
    if groups := footprints_by_crs(results.entries):
        shown = dict(list(groups.items())[:_MAX_CRS])
        section["figures"]["footprints"] = draw_footprints(shown, "footprints")
        section["footprints"] = [(short_crs(crs), len(found), extent(found)) for crs, found in shown.items()]
        section["crs_count"] = len(groups)
        section["without_coordinates"] = len(results.entries) - sum(map(len, groups.values()))
    if len(table) > MAX_ROWS:
        section["tables"]["inventory_summary"] = _summary(table)
    return section


def _is_numeric(column: pd.Series[Any]) -> bool:
    filled = column[column.astype(str) != ""]
    return len(filled) > 0 and bool(pd.to_numeric(filled, errors="coerce").notna().mean() > 0.5)


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Number of distinct values and the range or the most frequent values of each column."""
    rows = []
    for name in table.columns:
        column = table[name].astype(str)
        values = column.value_counts()
        if _is_numeric(column):
            numbers = pd.to_numeric(column, errors="coerce")
            text = f"{numbers.min():g} to {numbers.max():g}"
        else:
            text = ", ".join(f"{_shorten(v, 30)} ({n})" for v, n in values.head(3).items() if v)
        rows.append({"column": str(name), "distinct": len(values), "values": text})
    return pd.DataFrame(rows)


def _shorten(value: object, most: int = 60) -> str:
    """The end of a long text, which is the file name of a path."""
    text = str(value)
    return text if len(text) <= most else f"…{text[-most:]}"


def alignment(results: Results, painter: Painter) -> dict[str, Any]:
    """Registration of SAR to the optical grid."""
    records = results.alignments
    rows = [
        {
            "scene": scene,
            "status": str(record.get("status") or "unknown"),
            "model": str(record.get("model") or "none"),
            **{key: number(record.get(key)) for key in ("n_points", "n_inliers", "rmse_px")},
            "reason": str(record.get("reason") or ""),
        }
        for scene, record in records.items()
    ]
    table = pd.DataFrame(rows).pipe(_whole_numbers, "n_points", "n_inliers")
    shown = {scene: painter.alignment(scene) for scene in list(records)[:_MAX_PICTURES]}
    pictures = {scene: picture for scene, picture in shown.items() if picture}
    return {
        "tables": {"alignment": table} if rows else {},
        "rejected": [row["scene"] for row in rows if row["status"] == "rejected"],
        "single_sensor": [row["scene"] for row in rows if row["status"] == "single_sensor"],
        "modality_dropout": results.config.finetune.modality_dropout,
        "pictures": pictures,
        "without_picture": len(records) - len(pictures),
    }


def _whole_numbers(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table with some columns as integers, where they are whole or missing."""
    return table.assign(**{column: table[column].convert_dtypes() for column in columns if column in table})


def tiles(results: Results) -> dict[str, Any]:
    """Number of tiles, and how much of them has data and labels."""
    index = results.index
    if index.empty or "scene" not in index:
        return {"count": 0}
    groups = index.groupby("scene")
    table = groups[["valid_share", "label_share"]].mean()
    table.insert(0, "tiles", groups.size())
    return {
        "count": len(index),
        "scenes": len(groups),
        "sizes": [tuple(size) for size in index[["height", "width"]].drop_duplicates().head(3).to_numpy()],
        "valid_share": index["valid_share"].mean(),
        "label_share": index["label_share"].mean(),
        "tables": {"tiles": table.reset_index()} if len(groups) <= MAX_ROWS else {},
    }


def splits(results: Results) -> dict[str, Any]:
    """Parts, label fractions, and how well the parts represent the whole."""
    manifest, config = results.manifest, results.config.splits
    if not manifest:
        return {"found": False}
    dropped = len(manifest.get("dropped", []))
    reasons = {key: manifest.get(f"dropped_{key}", 0) for key in ("unlabelled", "misaligned")}
    scenes, total = _split_scenes(results.index)
    shares = _class_shares(manifest)
    lists = {name: record for name, record in manifest.get("lists", {}).items() if isinstance(record, dict)}
    rows = [{"list": n, "tiles": number(r.get("n")), "sha256": str(r.get("sha256", ""))} for n, r in lists.items()]
    figures = {}
    if scenes:
        figures["splits_map"] = draw_splits(scenes, results.part_of, "splits_map")
    if shares:
        figures["class_shares"] = draw_class_shares(results.classes, shares, "class_shares")
    return {
        "found": True,
        "config": config,
        "block_size": manifest.get("config", {}).get("block_size", config.block_size),
        "dropped": {"total": dropped, **reasons, "guard": dropped - sum(reasons.values())},
        "deviation": number(manifest.get("deviation")),
        "warnings": manifest.get("warnings", []),
        "autocorrelation": manifest.get("autocorrelation", {}),
        "scenes_shown": len(scenes),
        "scenes_total": total,
        "shares": shares,
        "figures": figures,
        "tables": {"splits": pd.DataFrame(rows, columns=["list", "tiles", "sha256"]).pipe(_whole_numbers, "tiles")},
    }


def _split_scenes(index: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], int]:
    """Rows of the first scenes with several tiles, and the number of all scenes; none for ready-made tiles."""
    if index.empty or not {"scene", "row", "col", "height", "width"} <= set(index.columns):
        return {}, 0
    counts = index.groupby("scene").size()
    shown = list(counts[counts > 1].index[:_MAX_SPLIT_MAPS])
    return {str(scene): index[index["scene"] == scene] for scene in shown}, len(counts)


def _class_shares(manifest: dict[str, Any]) -> dict[str, dict[str, float]]:
    shares: dict[str, dict[str, float]] = {}
    for part, record in manifest.get("parts", {}).items():
        known = record.get("class_shares") if isinstance(record, dict) else None
        if isinstance(known, dict) and known:
            shares[str(part)] = {str(name): number(share) for name, share in known.items()}
    return shares
