"""Sections on the data: what was found, how it was aligned, cut and divided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tmcnet.report.blocks import (
    DASH,
    Block,
    Facts,
    Figure,
    Gallery,
    Note,
    Section,
    Table,
    Text,
    number_text,
    plural,
)
from tmcnet.report.figures_footprints import footprints
from tmcnet.report.figures_splits import class_shares, split_maps
from tmcnet.report.files import number
from tmcnet.report.imagery import Painter
from tmcnet.report.results import Results

_MOST_ROWS = 40
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
_MOST_PICTURES = 8


def inventory(results: Results) -> Section:
    """What was found in the input."""
    section = Section("data", "Data")
    table = results.inventory
    if table.empty:
        section.blocks.append(Note("The inventory (inventory.csv) is missing: run the stage “inventory”."))
        return section
    section.blocks.append(Text(f"The inventory has {plural(len(table), 'row')}, as found in the files themselves."))
    if (chart := footprints(results, "footprints")) is not None:
        section.blocks.append(chart)
    if len(table) > _MOST_ROWS:
        section.blocks.append(_summary(table))
    section.blocks.append(_inventory_table(table))
    return section


def _inventory_table(table: pd.DataFrame) -> Table:
    """The columns that matter most, and the first rows; the file has all."""
    known = [c for c in _MAIN_COLUMNS if c in table]
    columns = known if len(known) > len(_MAIN_COLUMNS) / 2 else [str(c) for c in table.columns]
    shown = table[columns].head(_MOST_ROWS)
    numeric = frozenset(i for i, c in enumerate(columns) if _looks_numeric(table[c]))
    rows = [[_short(str(v)) for v in row] for row in shown.itertuples(index=False)]
    caption = "What was found"
    if len(table) > len(shown):
        caption += f", the first {len(shown)} of {len(table)} rows"
    caption += "; tables/inventory.csv has all of it." if shown.shape != table.shape else "."
    return Table("inventory", caption, [c.replace("_", " ") for c in columns], rows, numeric, frame=table)


def _looks_numeric(column: pd.Series[Any]) -> bool:
    filled = column[column.astype(str) != ""]
    return len(filled) > 0 and bool(pd.to_numeric(filled, errors="coerce").notna().mean() > 0.5)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"…{text[-most:]}"


def _summary(table: pd.DataFrame) -> Table:
    """Distinct values and ranges of each column, for inventories too long to read."""
    rows = []
    for name in table.columns:
        column = table[name].astype(str)
        values = column.value_counts()
        if _looks_numeric(column):
            numbers = pd.to_numeric(column, errors="coerce")
            text = f"{numbers.min():g} to {numbers.max():g}"
        else:
            text = ", ".join(f"{_short(str(v), 30)} ({n})" for v, n in values.head(3).items() if v)
        rows.append([str(name), str(len(values)), text])
    return Table(
        "inventory_summary", "The inventory in brief.", ["Column", "Distinct values", "Values"], rows, frozenset({1})
    )


def alignment(results: Results, painter: Painter) -> Section:
    """How well the second sensor fits the optical grid."""
    section = Section("alignment", "Alignment")
    records = results.alignments
    if not records:
        section.blocks.append(Note("No scene has an alignment.json: ready-made tiles are taken as they come."))
        return section
    rows = []
    for scene, r in records.items():
        points, inliers = number(r.get("n_points")), number(r.get("n_inliers"))
        cells = [number_text(points, 0), number_text(inliers, 0), number_text(number(r.get("rmse_px")), 2)]
        rows.append(
            [scene, str(r.get("status", DASH)), str(r.get("model") or DASH), *cells, str(r.get("reason") or "")]
        )
    columns = ["Scene", "Status", "Model", "Points", "Inliers", "RMSE (px)", "Reason"]
    rejected = [s for s, r in records.items() if r.get("status") == "rejected"]
    section.blocks.append(Table("alignment", "Co-registration per scene.", columns, rows, frozenset({3, 4, 5})))
    section.blocks.append(
        Text("The RMSE is what is left at agreeing control points held out of the fit; it is no ground truth.")
    )
    if rejected:
        text = f"Rejected, so the delivered georeference was kept: {', '.join(rejected)}."
        section.blocks.append(Note(text, "caution"))
    single = [s for s, r in records.items() if r.get("status") == "single_sensor"]
    if single:
        section.blocks.append(_single_sensor_note(results, single))
    section.blocks += _alignment_pictures(results, painter)
    return section


def _single_sensor_note(results: Results, scenes: list[str]) -> Block:
    text = f"One sensor only, so nothing had to be registered: {', '.join(scenes)}."
    if results.config.finetune.modality_dropout > 0:
        return Text(text)
    doubt = "No network of both sensors has learnt to do without one: finetune.modality_dropout is 0."
    return Note(f"{text} {doubt} Do not rely on its maps of these scenes.", "caution")


def _alignment_pictures(results: Results, painter: Painter) -> list[Block]:
    pictures: list[Block] = []
    for scene, record in list(results.alignments.items())[:_MOST_PICTURES]:
        title, alt, caption = _picture_texts(str(record.get("status")))
        if (picture := painter.alignment(scene, title, f"{alt}, scene {scene}")) is not None:
            pictures.append(Gallery(f"Scene {scene}: {caption}.", [picture], True))
    absent = len(results.alignments) - len(pictures)
    if absent:
        pictures.append(Text(f"{plural(absent, 'scene')} without a picture here; see scenes/*/alignment.png."))
    return pictures


def _picture_texts(status: str) -> tuple[str, str, str]:
    """Title, text for those who cannot see it, and caption of a picture of an alignment."""
    if status == "single_sensor":
        return "one sensor", "Image of the only sensor", "the image of the only sensor"
    alt = "Checkerboard of optical and second sensor before and after, displacement vectors and residuals"
    return "before and after", alt, "both sensors in a checkerboard, the displacements and what is left of them"


def tiles(results: Results) -> Section:
    """How many tiles there are and how much of them is usable."""
    section = Section("tiles", "Tiles")
    index = results.index
    if index.empty or "scene" not in index:
        section.blocks.append(Note("The tile index (tiles/index.csv) is missing: run the stage “tiles”."))
        return section
    sizes = ", ".join(
        f"{h:g} by {w:g}" for h, w in index[["height", "width"]].drop_duplicates().head(3).itertuples(index=False)
    )
    pairs = [
        ("Tiles", f"{len(index)} of {sizes} pixels, from {plural(index['scene'].nunique(), 'scene')}"),
        ("Valid in both sensors", f"{100 * index['valid_share'].mean():.1f} % of the pixels"),
        ("Labelled", f"{100 * index['label_share'].mean():.1f} % of the pixels"),
    ]
    section.blocks.append(Facts(pairs))
    groups = index.groupby("scene")
    if len(groups) > _MOST_ROWS:
        return section
    rows = [
        [str(s), str(len(g)), f"{100 * g['valid_share'].mean():.1f}", f"{100 * g['label_share'].mean():.1f}"]
        for s, g in groups
    ]
    columns = ["Scene", "Tiles", "Valid (%)", "Labelled (%)"]
    section.blocks.append(Table("tiles", "Tiles per scene.", columns, rows, frozenset({1, 2, 3})))
    return section


def splits(results: Results) -> Section:
    """How the tiles are divided, and what that costs."""
    section = Section("splits", "Splits")
    manifest = results.manifest
    if not manifest:
        section.blocks.append(Note("The split manifest (splits/manifest.json) is missing: run the stage “splits”."))
        return section
    section.blocks.append(Text(_method_text(results)))
    for warning in manifest.get("warnings", []):
        section.blocks.append(Note(str(warning), "caution"))
    section.blocks += _range(manifest.get("autocorrelation", {}))
    chart = split_maps(results, "splits_map")
    if chart is not None:
        section.blocks.append(chart)
    else:
        section.blocks.append(Text("The tiles have no common scene, so there is no map of the parts."))
    section.blocks += _shares(results)
    section.blocks.append(_lists(manifest))
    return section


def _method_text(results: Results) -> str:
    splits, manifest = results.config.splits, results.manifest
    block_size = manifest.get("config", {}).get("block_size", splits.block_size)
    how = {
        "blocks": f"Blocks of {block_size} pixels belong to one part each; guard: {splits.guard} pixels.",
        "scenes": "Whole scenes go to one part each.",
        "column": f"All tiles with the same “{splits.column}” go to one part.",
        "given": "The parts are the ones that the source comes with.",
    }[splits.method]
    dropped = len(manifest.get("dropped", []))
    unlabelled, misaligned = manifest.get("dropped_unlabelled", 0), manifest.get("dropped_misaligned", 0)
    why = f"{plural(dropped - unlabelled - misaligned, 'tile')} for the guard or for overlap" + (
        f", {unlabelled} without labels" if unlabelled else ""
    )
    why += f", {misaligned} for their registration" if misaligned else ""
    lost = f" Left out: {why}." if dropped else ""
    deviation = number(manifest.get("deviation"))
    gap = (
        f" Class shares of a part differ from those of the whole by at most {100 * deviation:.1f} percentage points."
    )
    return f"{how}{_folds_text(results)}{lost}{gap if deviation == deviation else ''}"


def _folds_text(results: Results) -> str:
    splits = results.config.splits
    if splits.folds is None:
        return ""
    return (
        f" They are divided into {splits.folds} folds, each of which is tested once, by networks trained without it; "
        f"this section shows the division in which fold {splits.fold} is tested."
    )


def _range(found: Mapping[str, Any]) -> list[Text]:
    """How far labels are alike, which blocks must not fall short of."""
    if found.get("range_pixels") is None:
        return []
    metres = "" if found.get("range_metres") is None else f" ({found['range_metres']} m)"
    reach = f"Labels are alike over {found['relation']} {found['range_pixels']} pixels{metres}"
    return [Text(f"{reach}; the side of a block is {found['block_size']} pixels.")]


def _shares(results: Results) -> list[Figure]:
    shares: dict[str, dict[str, float]] = {}
    for part, record in results.manifest.get("parts", {}).items():
        known = record.get("class_shares") if isinstance(record, dict) else None
        if isinstance(known, dict) and known:
            shares[str(part)] = {str(name): number(share) for name, share in known.items()}
    return [class_shares(results, shares, "class_shares")] if shares else []


def _lists(manifest: dict[str, Any]) -> Table:
    rows = [
        [str(name), str(record.get("n", DASH)), str(record.get("sha256", ""))[:12]]
        for name, record in manifest.get("lists", {}).items()
        if isinstance(record, dict)
    ]
    caption = (
        "Lists of tiles: the parts and the nested label fractions (trainR5 is 5 %, trainP10 ten points of each "
        "class, _s2 the second draw)."
    )
    return Table("splits", caption, ["List", "Tiles", "SHA-256 (start)"], rows, frozenset({1}))
