"""Numbers, charts and tables of the sections on data: inventory, alignment, tiles, splits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Patch, Rectangle

from tmcnet.classes import ClassTable
from tmcnet.errors import InputError
from tmcnet.evaluate.summary import renamed
from tmcnet.raster.inventory.cautions import cautions
from tmcnet.readers import number
from tmcnet.report.charts import GREY, OKABE_ITO, PART_COLOURS, Chart, add_legend, canvas, plain, render
from tmcnet.report.names import modality_titles, network_label, series_order
from tmcnet.report.pictures import Painter
from tmcnet.report.results import Results
from tmcnet.splits.files import verified_manifest

MAX_ROWS = 40
"""Rows of a table on the page; the file has all."""
_MAIN_COLUMNS = [
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
]
_SIDES = ["left", "bottom", "right", "top"]
_MAX_PICTURES = 8
_MAX_SPLIT_MAPS = 12
_MAX_CRS = 4
_MAX_NAMES = 24
"""Scenes with a name beside their footprint; more names overlap."""
_MAX_DEGREES = 360
_MIN_VISIBLE = 0.02
"""Share of the map below which a footprint is marked by a dot."""
_NAME_WIDTH, _NAME_HEIGHT = 0.3, 0.06
"""Shares of the map that a name covers: names that are closer go to different sides of their scenes."""
_MAX_READINGS = 2000
"""Number of tiles with tooltips; more of them are too small to point at."""


def data(results: Results) -> dict[str, Any]:
    """What the data set and the study consist of, and the input files."""
    table, runs = results.inventory, sorted(results.config.runs, key=series_order)
    networks = list(dict.fromkeys(network_label(run.network, run.variant) for run in runs))
    facts = {"results": results, "networks": networks, "sensors": modality_titles(results.config.sensors)}
    if table.empty:
        return {"rows": 0, **facts}
    columns = [c for c in _MAIN_COLUMNS if c in table]
    if len(columns) <= len(_MAIN_COLUMNS) / 2:
        columns = [str(c) for c in table.columns]
    section: dict[str, Any] = {
        **facts,
        "rows": len(table),
        "cautions": cautions(results.entries, results.config),
        "kind": "scene" if results.config.source.layout in ("demo", "scenes") else "tile",
        "columns": [(c.replace("_", " "), "number" if _is_numeric(table[c]) else None, c) for c in columns],
        "excerpt": table[columns].head(MAX_ROWS).map(_shorten),
        "complete": len(table) <= MAX_ROWS and len(columns) == len(table.columns),
        "tables": {"inventory": table},
        "figures": {},
    }
    if groups := _footprints(results.entries):
        shown = dict(list(groups.items())[:_MAX_CRS])
        section["figures"]["footprints"] = _draw_footprints(shown)
        section["footprints"] = [(_short_crs(crs), len(found), _extent(found)) for crs, found in shown.items()]
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


def _footprints(entries: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Scene, role and bounds of the entries with coordinates, by coordinate reference system, most frequent first."""
    rows = [
        (str(entry["crs"]), str(entry.get("scene")), str(entry.get("role")), *map(number, entry["bounds"]))
        for entry in entries
        if entry.get("crs") and isinstance(entry.get("bounds"), list) and len(entry["bounds"]) == 4
    ]
    table = pd.DataFrame(rows, columns=["crs", "scene", "role", *_SIDES])
    groups = table[np.isfinite(table[_SIDES].astype(float)).all(axis=1)].groupby("crs")
    order = groups.size().sort_values(ascending=False, kind="stable").index
    return {str(crs): table.loc[groups.groups[crs]] for crs in order}


def _extent(found: pd.DataFrame) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of all footprints together."""
    return found["left"].min(), found["bottom"].min(), found["right"].max(), found["top"].max()


def _short_crs(crs: str) -> str:
    """The start of a long WKT."""
    return crs if len(crs) <= 40 else f"{crs[:40]}…"


def _draw_footprints(groups: Mapping[str, pd.DataFrame]) -> Markup:
    """Outlines of the optical images, one panel a coordinate reference system."""
    roles = sorted({role for found in groups.values() for role in found["role"]})
    colors = dict(zip(roles, [*OKABE_ITO, *[GREY] * len(roles)], strict=False))
    across = min(2, len(groups))
    down = math.ceil(len(groups) / across)
    with canvas(7.6, 3.4 * down + 0.4, down, across) as figure:
        for ax, (crs, found) in zip(figure.axes, groups.items(), strict=False):
            _draw_outlines(figure, ax, found, colors)
            ax.set_title(plain(_short_crs(crs)), loc="left")
        for ax in figure.axes[len(groups) :]:
            ax.set_axis_off()
        handles = [Patch(facecolor=colors[role], alpha=0.5, label=plain(role)) for role in roles]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return render(figure, "footprints")


def _draw_outlines(figure: Chart, ax: Axes, found: pd.DataFrame, colors: Mapping[str, str]) -> None:
    unit, sign = (1, "°") if max(map(abs, _extent(found))) <= _MAX_DEGREES else (1000, "km")
    found = found.assign(**{side: found[side] / unit for side in _SIDES})
    left, bottom, right, top = _extent(found)
    reach = max(right - left, top - bottom)
    named: list[tuple[float, float]] = []
    for one in found.to_dict("records"):
        left, bottom, right, top = (one[side] for side in _SIDES)
        color, middle = colors[one["role"]], ((left + right) / 2, (bottom + top) / 2)
        shape: dict[str, Any] = {"facecolor": color, "alpha": 0.5, "edgecolor": "#333333"}
        ax.add_patch(Rectangle((left, bottom), right - left, top - bottom, **shape))
        if right - left < _MIN_VISIBLE * reach:
            ax.plot(*middle, "o", color=color)
        place = f"{left:.6g} to {right:.6g} {sign} east, {bottom:.6g} to {top:.6g} {sign} north"
        figure.read(ax, *middle, f"{one['scene']}, {one['role']}: {place}")
        if len(found) <= _MAX_NAMES:
            near = (abs(left - x) < _NAME_WIDTH * reach and abs(top - y) < _NAME_HEIGHT * reach for x, y in named)
            text: dict[str, Any] = {"xytext": (-5, -15), "ha": "right"} if any(near) else {"xytext": (5, 5)}
            ax.annotate(one["scene"], (left, top), textcoords="offset points", fontsize=8.5, **text)
            named.append((left, top))
    ax.autoscale_view()
    ax.margins(0.08)
    ax.set_aspect("equal", adjustable="datalim")
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.locator_params(nbins=5)
    ax.set(xlabel=f"east ({sign})", ylabel=f"north ({sign})")


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
    rmse = [value for record in records.values() if (value := number(record.get("rmse_px"))) == value]
    return {
        "tables": {"alignment": table} if rows else {},
        "scene_count": len(rows),
        "statuses": dict(Counter(row["status"] for row in rows)),
        "rmse": (min(rmse), max(rmse)) if rmse else None,
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
    shares = {
        part: renamed({k: number(share) for k, share in record["class_shares"].items()}, results.classes.names)
        for part, record in manifest.get("parts", {}).items()
        if record.get("class_shares")
    }
    rows = [{"list": n, "tiles": r["n"], "sha256": r["sha256"]} for n, r in manifest.get("lists", {}).items()]
    figures = {}
    if scenes:
        part_of = {tile: part for part, tiles in results.parts.items() for tile in tiles}
        figures["splits_map"] = _draw_splits(scenes, part_of)
    if shares:
        figures["class_shares"] = _draw_class_shares(results.classes, shares)
    return {
        "found": True,
        **_verification(results.root / "splits"),
        "results": results,
        "block_size": manifest.get("config", {}).get("block_size", config.block_size),
        "dropped": {"total": dropped, **reasons, "guard": dropped - sum(reasons.values())},
        "deviation": number(manifest.get("deviation")),
        "scenes_shown": len(scenes),
        "scenes_total": total,
        "shares": shares,
        "figures": figures,
        "tables": {"splits": pd.DataFrame(rows, columns=["list", "tiles", "sha256"])},
    }


def _verification(folder: Path) -> dict[str, Any]:
    """Hash of the manifest if all lists agree with it, else what is wrong."""
    try:
        return {"verified": verified_manifest(folder), "problems": []}
    except InputError as error:
        return {"verified": None, "problems": [str(problem) for problem in error.problems]}


def _split_scenes(index: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], int]:
    """Rows of the first scenes with several tiles, and the number of all scenes; none for ready-made tiles."""
    if index.empty or not {"scene", "row", "col", "height", "width"} <= set(index.columns):
        return {}, 0
    counts = index.groupby("scene").size()
    shown = list(counts[counts > 1].index[:_MAX_SPLIT_MAPS])
    return {str(scene): index[index["scene"] == scene] for scene in shown}, len(counts)


def _draw_splits(scenes: Mapping[str, pd.DataFrame], part_of: Mapping[str, str]) -> Markup:
    """Windows of the tiles of each scene, coloured by part; tiles without a part count as dropped."""
    across = min(4, len(scenes))
    down = math.ceil(len(scenes) / across)
    used = set()
    with canvas(min(8.4, 2.6 * across + 0.4), 2.5 * down + 0.5, down, across) as figure:
        for ax, (scene, tiles) in zip(figure.axes, scenes.items(), strict=False):
            parted = tiles.assign(part=[part_of.get(tile, "dropped") for tile in tiles["tile"]])
            used |= set(parted["part"])
            _draw_tiles(ax, parted)
            ax.set_title(plain(scene), loc="left")
            for t in parted.to_dict("records") if sum(map(len, scenes.values())) <= _MAX_READINGS else ():
                figure.read(ax, t["col"] + t["width"] / 2, t["row"] + t["height"] / 2, f"{t['tile']}: {t['part']}")
        for ax in figure.axes:
            ax.set_axis_off()
        handles = [Patch(color=color, label=part) for part, color in PART_COLOURS.items() if part in used]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return render(figure, "splits_map")


def _draw_tiles(ax: Axes, tiles: pd.DataFrame) -> None:
    rows = tiles.to_dict("records")
    boxes = [Rectangle((t["col"], t["row"]), t["width"], t["height"]) for t in rows]
    colors = [PART_COLOURS[t["part"]] for t in rows]
    ax.add_collection(PatchCollection(boxes, facecolors=colors, edgecolor="white", linewidth=0.6))
    ax.set_xlim(tiles["col"].min(), (tiles["col"] + tiles["width"]).max())
    ax.set_ylim((tiles["row"] + tiles["height"]).max(), tiles["row"].min())
    ax.set_aspect("equal")


def _draw_class_shares(classes: ClassTable, shares: Mapping[str, Mapping[str, float]]) -> Markup:
    """Class shares of each part as stacked bars."""
    with canvas(7.5, 1.2 + 0.45 * len(shares) + 0.22 * math.ceil(len(classes) / 3)) as figure:
        ax = figure.axes[0]
        parts, left = list(shares), np.zeros(len(shares))
        for one in classes.classes:
            values = np.array([shares[part].get(one.name, 0.0) for part in parts])
            ax.barh(parts, values, left=left, color=one.color, edgecolor="white", label=plain(one.name))
            for row, value in enumerate(values):
                if value > 0:
                    figure.read(ax, left[row] + value / 2, row, f"{parts[row]}: {one.name} {100 * value:.1f} %")
            left = left + values
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        ax.invert_yaxis()
        ax.set_xlabel("share of the labelled pixels")
        ax.grid(axis="y", visible=False)
        add_legend(figure, 3)
        return render(figure, "class_shares")
