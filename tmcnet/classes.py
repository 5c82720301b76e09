"""The class table of the tiles: ids, names and colours."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tmcnet.readers import read_rows, reading

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class LandCoverClass:
    """One class: its id in label rasters, its name, and its colour as `#rrggbb`."""

    id: int
    name: str
    color: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Colour as red, green and blue in 0..255."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True)
class ClassTable:
    """The classes in the order of their ids 0..K-1."""

    classes: tuple[LandCoverClass, ...]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str]]) -> ClassTable:
        """Number (name, colour) pairs from 0.

        Raises:
            ValueError: If a name is no text, or a colour is not `#rrggbb`.
        """
        classes = tuple(LandCoverClass(i, name, color) for i, (name, color) in enumerate(rows))
        for c in classes:
            if not isinstance(c.name, str) or not _COLOUR.fullmatch(c.color):
                raise ValueError(f"class {c.id} has no name and colour: {c.name!r}, {c.color!r}")
        return cls(classes)

    @classmethod
    def read(cls, path: Path | str) -> ClassTable:
        """Read `classes.csv`.

        Raises:
            InputError: If it is missing or damaged.
        """
        rows = read_rows(path, ["name", "color"])
        with reading(path):
            return cls.of((row["name"], row["color"]) for row in rows)

    def write(self, path: Path | str) -> None:
        """Write `classes.csv` with columns id, name, color."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["id", "name", "color"])
            rows.writerows([c.id, c.name, c.color] for c in self.classes)

    @property
    def names(self) -> list[str]:
        """Names in the order of the ids."""
        return [c.name for c in self.classes]

    def __len__(self) -> int:
        return len(self.classes)
