"""The inventory for people: a table with one row a scene or tile."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.raster.inventory.checks import Inspected
from tmcnet.raster.inventory.facts import Facts
from tmcnet.raster.io.labels import LabelCoder

_SENSOR_COLUMNS = (
    *("files", "tiles", "bands", "dtype", "crs", "width", "height", "gsd", "nodata"),
    *("min", "max", "nan", "infinite", "valid_share"),
)
_MOST_CODES = 30


def inventory_table(seen: Sequence[Inspected], sensors: SensorsConfig, coder: LabelCoder | None) -> bytes:
    """The table as CSV.

    Files of a stack are separated by `;`. `tiles` counts the files of mosaics. `nan` and `infinite` count values;
    shares are between 0 and 1: `overlap` of the optical footprint that the SAR image covers, `label_overlap` and
    `<modality>_overlap` of the scene that the label and other modalities cover; `label_share` of the label file
    that has a class. `label_codes` counts pixels by code.

    Args:
        seen: What was read.
        sensors: Section `sensors` of the config.
        coder: The label codes.
    """
    rows = [_row(one, sensors, coder) for one in seen]
    fields = dict.fromkeys(name for row in rows for name in row if name != "warnings")
    text = io.StringIO()
    table = csv.DictWriter(text, [*fields, "warnings"], restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def _row(one: Inspected, sensors: SensorsConfig, coder: LabelCoder | None) -> dict[str, str]:
    row = {"scene": one.entry.scene, "role": one.entry.role}
    row |= _modality_cells(one, "optical", sensors["optical"]) | _modality_cells(one, "sar", sensors["sar"])
    overlap = one.overlaps.get("sar", 1.0) if one.has_both else 0.0
    row |= {"sar_scale": one.scales["sar"], "overlap": f"{overlap:.6f}"}
    row |= _label_cells(one, coder)
    for name, sensor in sensors.others.items():
        row |= _modality_cells(one, name, sensor)
        row |= {f"{name}_scale": one.scales[name], f"{name}_overlap": f"{one.overlaps.get(name, 1.0):.6f}"}
    return row | {f"field_{k}": v for k, v in one.entry.fields.items()} | {"warnings": "; ".join(one.warnings)}


def _modality_cells(one: Inspected, kind: str, sensor: SensorConfig) -> dict[str, str]:
    facts, told = one.images[kind], dict.fromkeys(_SENSOR_COLUMNS, "")
    if facts:
        tiles = sum(len(one.entry.members.get(f.path, ())) for f in facts)
        told = _sensor_cells(facts, one.entry.nodata.get(kind, sensor.nodata), tiles)
    return {f"{kind}_{name}": cell for name, cell in told.items()}


def _label_cells(one: Inspected, coder: LabelCoder | None) -> dict[str, str]:
    names = ("file", "dtype", "crs", "gsd", "overlap", "share", "codes")
    label = one.label
    if label is None or coder is None:
        return {f"label_{name}": "" for name in names}
    cells = (
        str(label.path),
        label.dtype,
        _short_crs(label.grid.crs),
        f"{label.grid.pixel_size:.6g}",
        f"{one.label_overlap:.6f}",
        f"{label.labelled_share:.6f}",
        _codes(label, coder),
    )
    return {f"label_{name}": cell for name, cell in zip(names, cells, strict=True)}


def _codes(label: Facts, coder: LabelCoder) -> str:
    """Codes with their pixels, in order; of many the most frequent."""
    chosen = sorted(label.codes.most_common(_MOST_CODES))
    more = len(label.codes) - len(chosen)
    return "; ".join(f"{coder.format_code(code)}: {count}" for code, count in chosen) + (
        f"; and {more} more" if more else ""
    )


def _sensor_cells(facts: Sequence[Facts], declared: float | None, tiles: int) -> dict[str, str]:
    first = facts[0]
    cells = (
        ";".join(str(f.path) for f in facts),
        str(tiles or ""),
        str(sum(f.bands for f in facts)),
        first.dtype,
        _short_crs(first.grid.crs),
        str(first.grid.width),
        str(first.grid.height),
        f"{first.grid.pixel_size:.6g}",
        _told_nodata(first, declared),
        f"{min(f.low for f in facts):.6g}",
        f"{max(f.high for f in facts):.6g}",
        str(sum(f.nan for f in facts)),
        str(sum(f.infinite for f in facts)),
        f"{min(f.valid_share for f in facts):.6f}",
    )
    return dict(zip(_SENSOR_COLUMNS, cells, strict=True))


def _told_nodata(facts: Facts, declared: float | None) -> str:
    value = facts.nodata if declared is None else declared
    return "" if value is None else f"{value:g}"


def _short_crs(crs: str) -> str:
    """An EPSG code, or the name inside WKT."""
    return crs if crs.startswith("EPSG:") or '"' not in crs else crs.split('"')[1]
