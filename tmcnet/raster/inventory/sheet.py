"""The sample sheet: a CSV with one scene a row."""

from __future__ import annotations

import csv
import glob
from collections.abc import Sequence
from pathlib import Path

from tmcnet.errors import InputError, Problem
from tmcnet.raster.inventory.entry import PREDICT, TRAIN, Entry

_OVERRIDES = ("optical_nodata", "sar_nodata", "sar_scale")
"""Columns that take the place of keys of the config section `sensors`, for one scene."""
_SCALES = ("auto", "none", "linear", "amplitude", "db")


def read_sheet(path: Path, data_root: Path, modalities: Sequence[str]) -> list[Entry]:
    """Read the scenes of a sample sheet.

    Args:
        path: CSV with the column scene, one for each modality and, if wanted, label, role, optical_nodata, sar_nodata
            and sar_scale; other columns become fields. Several files in one cell are separated by `;`, and each may
            be a pattern with `*`, `?` or `[...]` whose files are the tiles of one mosaic. Scenes of role `predict`
            may leave modalities empty, but not both optical and sar.
        data_root: Where relative paths in the sheet start.
        modalities: Names of the modalities: `optical`, `sar`, then the others.

    Raises:
        InputError: If the sheet cannot be read, lacks columns, has unknown roles or scales, names missing files, or
            leaves out a modality where all are needed.
    """
    where = f"sample sheet {path}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = [{(k or "").strip(): _cell(v) for k, v in row.items()} for row in reader]
            columns = [name.strip() for name in reader.fieldnames or []]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        remedy = "Check `source.sheet`; relative paths start in the folder the workflow is run in."
        raise InputError(Problem(where, f"cannot be read ({reason})", remedy)) from None
    missing = [name for name in ("scene", *modalities) if name not in columns]
    if missing:
        what = f"lacks the columns {', '.join(missing)}; it has {', '.join(columns) or 'none'}"
        known = ", ".join(("scene", *modalities, "label", "role", *_OVERRIDES))
        raise InputError(Problem(where, what, f"The columns are {known}, separated by commas."))
    if not rows:
        raise InputError(Problem(where, "lists no scene", "Add a row for every scene."))
    problems: list[Problem] = []
    entries = []
    for number, row in enumerate(rows, start=2):
        entries.append(_entry(row, data_root, modalities))
        problems.extend(_row_problems(f"{where}, line {number} ({row['scene'] or 'no name'})", row, entries[-1]))
    if problems:
        raise InputError(problems)
    return entries


def _cell(value: str | list[str] | None) -> str:
    return (";".join(value) if isinstance(value, list) else value or "").strip()


def _entry(row: dict[str, str], data_root: Path, modalities: Sequence[str]) -> Entry:
    files: dict[str, tuple[Path, ...]] = {}
    members: dict[Path, tuple[Path, ...]] = {}
    for kind in (*modalities, "label"):
        parts = [part.strip() for part in row.get(kind, "").split(";") if part.strip()]
        found = [_tiles(part, data_root) for part in parts]
        # the one file that a pattern finds is a file like any other
        files[kind] = tuple(
            tiles[0] if len(tiles) == 1 else data_root / part for part, tiles in zip(parts, found, strict=True)
        )
        members |= {data_root / part: tiles for part, tiles in zip(parts, found, strict=True) if len(tiles) > 1}
    known = ("scene", *files, "role", *_OVERRIDES)
    fields = {name: value for name, value in row.items() if name and name not in known}
    nodata = {
        kind: value for kind in ("optical", "sar") if (value := _number(row.get(f"{kind}_nodata", ""))) is not None
    }
    scales = {"sar": row["sar_scale"]} if row.get("sar_scale") else {}
    label = files.pop("label")
    return Entry(row["scene"], row.get("role") or TRAIN, files, label, fields, members, nodata, scales)


def _tiles(part: str, data_root: Path) -> tuple[Path, ...]:
    """The files that a pattern finds, by name; the last lies on top."""
    if not glob.has_magic(part) or (data_root / part).is_file():
        return (data_root / part,)
    # Path.glob refuses absolute patterns
    names = sorted(glob.glob(part, root_dir=data_root, recursive=True))  # noqa: PTH207
    return tuple(data_root / name for name in names if (data_root / name).is_file())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _row_problems(where: str, row: dict[str, str], entry: Entry) -> list[Problem]:
    problems = []
    if entry.role not in (TRAIN, PREDICT):
        problems.append(Problem(where, f"has the unknown role `{entry.role}`", f"Roles are {TRAIN} and {PREDICT}."))
    if "" in row:
        problems.append(Problem(where, "has more cells than the sheet has columns", "Count the commas."))
    if not entry.scene:
        problems.append(Problem(where, "has no scene name", "Fill in the column `scene`."))
    problems.extend(_sensor_problems(where, entry))
    if len(entry.label) > 1:
        problems.append(Problem(where, "names several label files", "Labels cannot be stacked; merge them first."))
    problems.extend(_override_problems(where, row))
    problems.extend(
        Problem(where, _lost(path), "Correct the path; relative paths start at `data_root`.")
        for path in entry.named
        if path not in entry.members and not path.is_file()
    )
    return problems


def _lost(path: Path) -> str:
    pattern = glob.has_magic(str(path))
    return f"the pattern {path} matches no file" if pattern else f"the file {path} does not exist"


def _override_problems(where: str, row: dict[str, str]) -> list[Problem]:
    problems = []
    for name in ("optical_nodata", "sar_nodata"):
        text = row.get(name, "")
        if text and _number(text) is None:
            problems.append(Problem(where, f"has `{text}` in `{name}`", "Write a number, `nan`, or nothing."))
    scale = row.get("sar_scale", "")
    if scale and scale not in _SCALES:
        remedy = f"Scales are {', '.join(_SCALES)}."
        problems.append(Problem(where, f"has the unknown scale `{scale}` in `sar_scale`", remedy))
    return problems


def _sensor_problems(where: str, entry: Entry) -> list[Problem]:
    if not entry.images["optical"] and not entry.images["sar"]:
        remedy = f"Fill in both columns; scenes of role {PREDICT} need at least one of them."
        return [Problem(where, "names no file in `optical` and `sar`", remedy)]
    remedy = f"Fill in the column; only scenes of role {PREDICT} may lack a sensor."
    return [
        Problem(where, f"names no file in `{kind}`", remedy)
        for kind, paths in entry.images.items()
        if not paths and entry.role != PREDICT
    ]
