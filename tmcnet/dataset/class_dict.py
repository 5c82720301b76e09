"""`class_dict.txt` of the seed layout: a header, then one row `name,r,g,b` a class in the order of the ids."""

from __future__ import annotations

import csv
from pathlib import Path

from tmcnet.classes import ClassTable
from tmcnet.errors import Problem

SeedClass = tuple[str, tuple[int, int, int]]
"""Name and colour (red, green, blue in 0..255) of a class."""

_REMEDY = "Write a header line, then `name,r,g,b` for each class in the order of the ids."


def read_class_dict(path: Path, problems: list[Problem]) -> list[SeedClass] | None:
    """Read the classes; None where there is no such file.

    Args:
        path: The file.
        problems: Takes what is wrong with the file.
    """
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [(n, [cell.strip() for cell in row]) for n, row in enumerate(csv.reader(file), 1) if any(row)]
    if rows and _parse(rows[0][1]) is not None:
        problems.append(Problem(f"{path}, line 1", "is a class, but the first line is taken as header", _REMEDY))
        return []
    classes: list[SeedClass] = []
    for number, row in rows[1:]:
        parsed = _parse(row)
        if parsed is None:
            problems.append(Problem(f"{path}, line {number}", f"is no class: {','.join(row)!r}", _REMEDY))
        else:
            classes.append(parsed)
    names = [name for name, _ in classes]
    colours = [colour for _, colour in classes]
    doubled = sorted({n for n in names if names.count(n) > 1}) + sorted({c for c in colours if colours.count(c) > 1})
    if doubled:
        problems.append(Problem(str(path), f"gives names or colours twice: {doubled}", "Make them differ."))
    if not rows[1:]:
        problems.append(Problem(str(path), "holds no class", _REMEDY))
    return classes


def write_class_dict(path: Path, classes: ClassTable) -> None:
    """Write the classes with the header `name,r,g,b`."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["name", "r", "g", "b"])
        rows.writerows([c.name, *c.rgb] for c in classes.classes)


def _parse(row: list[str]) -> SeedClass | None:
    if len(row) < 4 or not row[0] or not all(cell.isdecimal() and int(cell) < 256 for cell in row[1:4]):
        return None
    return row[0], (int(row[1]), int(row[2]), int(row[3]))
