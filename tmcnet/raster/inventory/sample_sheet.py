"""The scenes of a source by name, and the sample sheet, a CSV file with one scene per row."""

from __future__ import annotations

import csv
import difflib
import glob
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from tmcnet.errors import InputError, Problem, format_names, hide_secrets
from tmcnet.raster.names import Name, is_remote, local_files, main_file, parse_name

TRAIN = "train"
PREDICT = "predict"
VECTORS = (".fgb", ".gdb", ".geojson", ".gml", ".gpkg", ".json", ".kml", ".shp", ".shp.zip")
"""Endings of vector files."""
_LISTS = {"mask_codes": "-?[0-9]{1,9}", "mask_bits": "[12]?[0-9]|3[01]"}  # of numbers, each of this form
OVERRIDES = ("nodata", "scale", "scale_factor", "add_offset", "mask", *_LISTS)
"""Keys of a modality that a column, such as `sar_nodata`, can replace for one scene."""
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?\s*', re.IGNORECASE)  # a first line that Excel reads, and may write
_NEAR = 0.7  # similarity from which a column is taken for a misspelt one: `lables` has 0.73
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.])")  # how cells begin that spreadsheet programs run
_SCALES = ("auto", "none", "linear", "amplitude", "db")


def is_vector(name: Name) -> bool:
    """Whether a file of labels is a vector file, by its ending."""
    return str(name).lower().endswith(VECTORS)


@dataclass(frozen=True)
class Entry:
    """A scene or ready-made tile and its files, before any of them was opened."""

    scene: str  # its name, unique in the source
    role: str  # `train` (tiles are cut from it) or `predict` (only mapped at the end)
    # files of each modality; several are stacked as bands. A scene of role `predict` may have none of a modality
    images: dict[str, tuple[Name, ...]]
    label: tuple[Name, ...] = ()  # the label file; empty where there is none
    # fields of the pattern, or other columns of the sample sheet
    fields: dict[str, str] = field(default_factory=dict)
    # the files behind each pattern of the sample sheet among the above, in the order in which they are laid over one
    # another
    members: dict[Name, tuple[Path, ...]] = field(default_factory=dict)
    # what the sample sheet declares for this scene, by modality and key of `OVERRIDES`
    declared: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, str]:
        """All that the row says, as text for hashes."""
        return {attribute.name: repr(getattr(self, attribute.name)) for attribute in fields(self)}

    @property
    def named(self) -> tuple[Name, ...]:
        """The rasters it names, images first; patterns as written."""
        masks = (declared["mask"] for declared in self.declared.values() if "mask" in declared)
        return (*(path for paths in self.images.values() for path in paths), *self.label, *masks)

    def scale(self, modality: str) -> str:
        """Scale of backscatter that the sample sheet gives; empty for none."""
        return str(self.declared.get(modality, {}).get("scale", ""))

    @property
    def members_of_all(self) -> list[Name]:
        """The names it names, in the order of `named`; of patterns the files that they match."""
        return [member for name in self.named for member in self.members.get(name, (name,))]

    @cached_property  # it looks at the disk, and Snakemake asks for it several times a scene
    def files(self) -> list[Path]:
        """All local files that its rasters depend on, in the order of `named`: also files beside them and sources."""
        return list(dict.fromkeys(file for name in self.members_of_all for file in local_files(name)))


def read_sheet(path: Path, data_root: Path, modalities: Sequence[str]) -> list[Entry]:
    """Read the scenes of a sample sheet.

    It is CSV with the column scene, one for each modality and, if wanted, label, role, and those of `OVERRIDES` such
    as sar_nodata; other columns become fields. Several files in one cell are separated by `;`, and each may be a
    pattern with `*`, `?` or `[...]` whose files are the tiles of one mosaic. Scenes of role `predict` may leave
    modalities empty, but not both optical and sar. Relative paths start at `data_root`.
    """
    where = f"sample sheet {path}"
    rows, columns = read_cells(path)
    missing = [name for name in ("scene", *modalities) if name not in columns]
    if missing:
        if separator := next((sign for sign in ";\t|" if len(columns) == 1 and sign in columns[0]), ""):
            what = f"separates its columns by {separator!r}, not by commas"
            raise InputError(Problem(where, what, "Save it with commas; `;` separates several files in one cell."))
        what = f"lacks the columns {', '.join(missing)}; it has {format_names(columns) or 'none'}"
        allowed = ", ".join(_known_columns(modalities))
        raise InputError(Problem(where, what, f"The columns are {allowed}, separated by commas."))
    if not rows:
        raise InputError(Problem(where, "lists no scene", "Add a row for every scene."))
    problems = list(_column_problems(where, columns, modalities))
    entries = []
    for number, row in rows.items():
        entries.append(_entry(row, data_root, modalities))
        where_in = f"{where}, line {number} ({row['scene'] or 'no name'})"
        problems += [Problem(where_in, what, remedy) for what, remedy in _row_problems(row, entries[-1])]
    if problems:
        raise InputError(problems)
    return entries


def read_cells(path: Path) -> tuple[dict[int, dict[str, str]], list[str]]:
    """Read the rows of a sample sheet by line, each as text by column, and the names of the columns.

    Rows without any text, which spreadsheet programs write at the end, are left out. A first line such as `sep=;`
    names another separator than the comma.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator, before = ",", 0  # lines before the header
            if first := _SEPARATOR.fullmatch(file.readline()):
                separator, before = first[1], 1
            else:
                file.seek(0)
            reader = csv.DictReader(file, delimiter=separator, skipinitialspace=True, strict=True)
            # cells beyond the header are a list, and those that a row lacks are None
            texts = ({k: ";".join(v) if isinstance(v, list) else v or "" for k, v in row.items()} for row in reader)
            cells = ({(k or "").strip(): text.strip() for k, text in row.items()} for row in texts)
            lines = ((before + reader.line_num, row) for row in cells)
            rows = {number: row for number, row in lines if any(row.values())}
            columns = [name.strip() for name in reader.fieldnames or []]
            if any("\0" in cell for row in rows.values() for cell in row.values()):
                raise csv.Error("it has NUL bytes")
            if any("\n" in cell or "\r" in cell for row in rows.values() for cell in row.values()):
                raise csv.Error("a cell has a line break, so that a quote may be missing or too many")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        remedy = "Check the path and that it is a CSV file; relative paths start in the folder the command is run in."
        if isinstance(error, UnicodeDecodeError):
            reason, remedy = "it is not UTF-8 text", "Save it as `CSV UTF-8`, as spreadsheet programs name it."
        raise InputError(Problem(f"sample sheet {path}", f"cannot be read ({reason})", remedy)) from None
    return rows, columns


def _column_problems(where: str, columns: Sequence[str], modalities: Sequence[str]) -> Iterator[Problem]:
    """Columns that are given twice, or that look like a misspelt column with a meaning."""
    if doubled := {name for name in columns if columns.count(name) > 1}:
        yield Problem(where, f"has columns twice: {format_names(doubled)}", "Rename or remove one of each.")
    absent = [name for name in _known_columns(modalities) if name not in columns]
    for column in columns:
        if column in _known_columns(modalities):
            continue
        modality = next((f"{name}_" for name in modalities if column.startswith(f"{name}_")), "")
        # after the name of a modality only the rest counts: `optical_date` is no `optical_nodata`
        rests = {name.removeprefix(modality): name for name in absent if name.startswith(modality)}
        rest = column.removeprefix(modality).lower()
        if close := difflib.get_close_matches(rest, rests, n=1, cutoff=_NEAR):
            remedy = f"Did you mean `{rests[close[0]]}`? Else rename the column."
            yield Problem(where, f"has the unknown column `{column}`", remedy)


def _entry(row: dict[str, str], data_root: Path, modalities: Sequence[str]) -> Entry:
    files: dict[str, tuple[Name, ...]] = {}
    members: dict[Name, tuple[Path, ...]] = {}
    for name in (*modalities, "label"):
        names = [os.path.expanduser(part.strip()) for part in row.get(name, "").split(";") if part.strip()]  # noqa: PTH111 - names are no paths
        for part in names:
            raster = parse_name(part, data_root)
            tiles = _matching_files(part, data_root) if isinstance(raster, Path) else ()
            # the only file of a pattern is a file like any other
            files[name] = (*files.get(name, ()), tiles[0] if len(tiles) == 1 else raster)
            members |= {raster: tiles} if len(tiles) > 1 else {}
    own_columns = _known_columns(modalities)
    images, label = {name: files.get(name, ()) for name in modalities}, files.get("label", ())
    others = {name: value for name, value in row.items() if name and name not in own_columns}
    cells = {name: {key: text for key in OVERRIDES if (text := row.get(f"{name}_{key}"))} for name in modalities}
    declared = {
        name: {key: value for key, text in of_name.items() if (value := _value(key, text, data_root)) is not None}
        for name, of_name in cells.items()
    }
    return Entry(row["scene"], row.get("role") or TRAIN, images, label, others, members, declared)


def _known_columns(modalities: Sequence[str]) -> list[str]:
    """Columns with a meaning, in the order for messages."""
    return ["scene", *modalities, "label", "role", *(f"{name}_{key}" for name in modalities for key in OVERRIDES)]


def _matching_files(part: str, data_root: Path) -> tuple[Path, ...]:
    """The files of a pattern, by name; the last is on top."""
    if not glob.has_magic(part) or (data_root / part).exists():
        return (data_root / part,)
    # Path.glob refuses absolute patterns
    names = sorted(glob.glob(part, root_dir=data_root, recursive=True))  # noqa: PTH207
    return tuple(data_root / name for name in names if (data_root / name).is_file())


def _value(key: str, text: str, root: Path) -> Any:  # noqa: ANN401 - keys have values of several types
    """What a cell declares; None for text that its column cannot have."""
    if key == "mask":
        return parse_name(text, root)
    if key in _LISTS:
        parts = re.split(r"[\s,;]+", text.strip("[] "))  # also as a list of YAML
        return tuple(map(int, parts)) if all(re.fullmatch(_LISTS[key], part) for part in parts) else None
    if key == "scale":
        return text if text in _SCALES else None
    try:
        number = float(text.replace("_", " "))  # Python takes 1_0 for 10
    except ValueError:
        return None
    usable = key == "nodata" or (math.isfinite(number) and (number != 0 or key == "add_offset"))
    return number if usable else None


def _row_problems(row: dict[str, str], entry: Entry) -> Iterator[tuple[str, str]]:
    """What is wrong with a row, and what to do."""
    if entry.role not in (TRAIN, PREDICT):
        yield f"has the unknown role `{entry.role}`", f"Roles are {TRAIN} and {PREDICT}."
    if "" in row:
        yield "has more cells than the sheet has columns", "Count the commas."
    if not entry.scene:
        yield "has no scene name", "Fill in the column `scene`."
    if not entry.images["optical"] and not entry.images["sar"]:
        remedy = f"Fill in both columns; scenes of role {PREDICT} need at least one of them."
        yield "names no file in `optical` and `sar`", remedy
    elif entry.role != PREDICT:
        remedy = f"Fill in the column; only scenes of role {PREDICT} may lack a sensor."
        yield from ((f"names no file in `{name}`", remedy) for name, paths in entry.images.items() if not paths)
    for name, value in entry.fields.items():
        if _FORMULA.match(value):
            what = f"has `{value[:60]}` in `{name}`, which spreadsheet programs run as a formula"
            yield what, "Change how the cell begins."
    if len(entry.label) > 1:
        yield "names several label files", "Labels cannot be stacked; merge them first."
    for (name, declared), key in itertools.product(entry.declared.items(), OVERRIDES):
        text = row.get(column := f"{name}_{key}", "")
        if text and key == "scale" and key not in declared:
            yield f"has the unknown scale `{text}` in `{column}`", f"Scales are {', '.join(_SCALES)}."
        elif text and key not in declared:
            form = "whole numbers such as `3;8;9`" if key in _LISTS else "a number, `nan` for no data"
            yield f"has `{text}` in `{column}`", f"Write {form}, or nothing."
        elif text and key in _LISTS and "mask" not in declared:
            yield f"has `{column}` without `{name}_mask`", "Name the quality mask."
    for path in entry.named:
        if (shown := hide_secrets(str(path))) != str(path):
            remedy = "Leave them out and give them to GDAL: `GDAL_HTTP_USERPWD`, or the variables of the store."
            yield f"names {shown} with a user name or password, which would be recorded", remedy
        if path not in entry.members and main_file(path) is None and not is_remote(path):
            pattern = isinstance(path, Path) and glob.has_magic(str(path))
            what = f"the pattern {path} matches no file" if pattern else f"the file {path} does not exist"
            remedy = "Correct the path; relative paths start at `data_root`."
            yield what, "Write `/` between folders." if "\\" in str(path) else remedy
