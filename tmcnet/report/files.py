"""Read what other stages left behind; what is absent or half-written reads as empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_table(path: Path, *, as_text: bool = False) -> pd.DataFrame:
    """A CSV table, or an empty one where the file is missing or has no rows.

    Args:
        path: The file.
        as_text: Keep every cell as it stands, so that `R1` or `007` stay themselves.
    """
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False) if as_text else pd.read_csv(path)
    except (OSError, ValueError):
        return pd.DataFrame()


def number(value: object) -> float:
    """A number, or NaN for anything that is none (`-`, an empty cell, null)."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
