"""Lists of tiles in the layout of the published code, `train_RGB.txt` and so on: their names and contents."""

from __future__ import annotations

from collections.abc import Iterable

PARTS = ("train", "val", "test")
"""Parts of a data set, in the order of their numbers."""
KINDS = {"optical": "RGB", "sar": "SAR", "label": "lbl"}
"""What the seed layout calls the three files of a tile."""
MAX_NAMES = 10
"""Names shown in one message; the rest is counted."""


def format_names(names: Iterable[str]) -> str:
    """The first names in sorted order, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - MAX_NAMES
    return ", ".join(ordered[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
