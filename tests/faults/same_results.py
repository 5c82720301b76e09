"""Compare two results folders byte for byte, except for what records the time, the machine or an identity."""

from __future__ import annotations

import json
import re
from pathlib import Path

TIMED = re.compile(
    r"(benchmarks|logs|\.state|report|mlartifacts)/.*|report\.html|mlflow\.db.*|tracking\.(csv|json)|maps/.*\.csv"
)
"""Files that hold durations, dates, or ids that MLflow draws; the report shows them."""
TIMED_KEYS = ("seconds",)
"""Keys of JSON files that hold a duration."""


def differences(one: Path, other: Path) -> list[str]:
    """Names of the files, below two results folders, that only one of them has or that differ."""
    files = [
        {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
        for root in (one, other)
    ]
    names = {name for found in files for name in found if not TIMED.fullmatch(name)}
    return sorted(
        name
        for name in names
        if any(name not in found for found in files) or len({content(found[name]) for found in files}) > 1
    )


def content(path: Path) -> bytes:
    """Bytes of a file; of JSON without durations."""
    if path.suffix != ".json":
        return path.read_bytes()
    return json.dumps(_untimed(json.loads(path.read_text()))).encode()


def _untimed(value: object) -> object:
    if isinstance(value, dict):
        return {key: _untimed(inner) for key, inner in value.items() if key not in TIMED_KEYS}
    return [_untimed(inner) for inner in value] if isinstance(value, list) else value
