"""Lists of tiles in the layout of the published code, `train_RGB.txt` and so on: their names and contents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tmcnet.raster.inventory.seed_layout import KINDS

_LIST_FILE = re.compile(r"^(train|val|test)\S*_(RGB|SAR|lbl)\.txt$|^train\S*_points\.csv$")


def list_names(name: str) -> list[str]:
    """Names of the three files of a list such as `trainR5`."""
    return [f"{name}_{word}.txt" for word in KINDS.values()]


def list_text(tiles: Iterable[str]) -> bytes:
    """Content of a list file: one tile a line."""
    return "".join(f"{tile}\n" for tile in tiles).encode()


def find_lists(folder: Path) -> list[Path]:
    """All list files of a folder and their files of points, sorted."""
    return sorted(path for path in folder.glob("*") if _LIST_FILE.match(path.name))
