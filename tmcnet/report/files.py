"""Read what other stages wrote; a missing or half-written file reads as empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where the file is missing or contains something else."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_table(path: Path, *, as_text: bool = False, separator: str = ",") -> pd.DataFrame:
    """Read a CSV table; empty where the file is missing or has no rows.

    With `as_text`, cells are not converted, so that `R1` and `007` keep their form.
    """
    try:
        if as_text:
            return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
        # a class or scene may be called NA or None
        return pd.read_csv(path, sep=separator, keep_default_na=False, na_values=["", "nan", "NaN"])
    except (OSError, ValueError):
        return pd.DataFrame()


def number(value: object) -> float:
    """Convert to a number; NaN for anything else (`-`, an empty cell, null)."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
