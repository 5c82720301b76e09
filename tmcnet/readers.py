"""Read the tables and records that earlier stages wrote.

A damaged one is an error with its file and the way out; for the report, which shows what there is, it reads as empty.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmcnet.errors import InputError, Problem

if TYPE_CHECKING:
    import pandas as pd

REMEDY = "Remove it and run the same command again: the workflow makes it again."
"""Way out where a file of an earlier stage is missing or damaged."""
MAX_REASON = 200
"""Characters of the reason in a message."""


@contextmanager
def reading(path: Path | str, remedy: str = REMEDY) -> Iterator[None]:
    """Turn every failure of the code inside to read or interpret a file into an InputError that names it.

    An `InputError` of its own is passed on.

    Example:
        >>> with reading(path):
        ...     matrix = json.loads(path.read_text())["matrix"]
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # no reader lists all that a damaged file can raise
        raise InputError(Problem(str(path), f"cannot be used ({reason(error)})", remedy)) from error


def reason(error: BaseException) -> str:
    """Say why something failed, in one line of limited length."""
    if isinstance(error, FileNotFoundError):
        text = "it does not exist"
    elif isinstance(error, KeyError):
        text = f"`{error.args[0] if error.args else ''}` is missing"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."


def read_record(path: Path | str, remedy: str = REMEDY) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: If the file is missing, is no JSON, or holds something else.
    """
    with reading(path, remedy):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        return content


def read_columns(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """Read some columns of a CSV table with a header, row by row; a quarter of the time of `csv.DictReader`.

    The `optional` columns come after these; their cells are empty where the table lacks one.

    Raises:
        InputError: If the file is missing, lacks a column, or a row has more or fewer cells than the header.
    """
    with reading(path), path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if missing := [name for name in columns if name not in header]:
            raise ValueError(f"it lacks the columns {', '.join(missing)}")
        places = [header.index(name) if name in header else -1 for name in (*columns, *optional)]
        lacks = -1 in places
        for number, cells in enumerate(rows, start=2):
            if len(cells) != len(header):
                raise ValueError(f"row {number} has another number of cells than the header")
            if lacks:
                cells.append("")
            yield tuple([cells[place] for place in places])


def read_rows(path: Path | str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV table with a header that has these columns; errors as of `read_columns`."""
    with reading(path), Path(path).open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        if missing:
            raise ValueError(f"it lacks the columns {', '.join(missing)}")
        rows = list(table)
        for number, row in enumerate(rows, start=2):
            if None in row or None in row.values():
                raise ValueError(f"row {number} has another number of cells than the header")
        return rows


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where the file is missing or contains something else."""
    try:
        return read_record(path)
    except InputError:
        return {}


def read_table(path: Path, *, as_text: bool = False, separator: str = ",") -> pd.DataFrame:
    """Read a CSV table; empty where the file is missing or has no rows.

    With `as_text`, cells are not converted, so that `R1` and `007` keep their form.
    """
    import pandas as pd  # most jobs that read records need no tables

    # a class or scene may be called NA or None
    kind, empty = (str, None) if as_text else (None, ["", "nan", "NaN"])
    try:
        return pd.read_csv(path, sep=separator, dtype=kind, keep_default_na=False, na_values=empty)
    except (OSError, ValueError):
        return pd.DataFrame()


def number(value: object) -> float:
    """Convert to a number; NaN for anything else (`-`, an empty cell, null)."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
