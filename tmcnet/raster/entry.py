"""One scene or ready-made tile of the source, before anything was opened."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tmcnet.errors import Problem

TRAIN = "train"
PREDICT = "predict"
SHOWN = 10
"""At most so many names are listed in a message; the count stands beside them."""


@dataclass(frozen=True)
class Entry:
    """A scene or tile and its files.

    Attributes:
        scene: Its name, unique in the source.
        role: `train` (tiles are cut from it) or `predict` (only mapped at the end).
        optical: Optical files; several are stacked as bands. Empty where a scene to be predicted has none.
        sar: Files of the second sensor, likewise.
        label: The label file; empty where there is none.
        fields: Fields of the pattern, or further columns of the sample sheet.
        further: Files of each further modality, likewise.
    """

    scene: str
    role: str
    optical: tuple[Path, ...]
    sar: tuple[Path, ...]
    label: tuple[Path, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)
    further: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files: optical, second sensor, label, further modalities."""
        return (*self.optical, *self.sar, *self.label, *(path for paths in self.further.values() for path in paths))


def shorten(names: Iterable[str]) -> str:
    """Up to ten names in order, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more


def name_problems(where: str, entries: Sequence[Entry]) -> list[Problem]:
    """What is wrong with the names: doubles, and characters that cannot stand in a file name or a list."""
    problems = []
    counts = Counter(entry.scene for entry in entries)
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        problems.append(Problem(where, f"names given more than once: {shorten(doubled)}", "Give each its own name."))
    odd = [repr(name) for name in counts if not re.fullmatch(r"\w[\w.+-]*", name)]
    if odd:
        remedy = "Use letters, digits, `_`, `-`, `+` and `.` only, with a letter or digit in front."
        problems.append(Problem(where, f"names that cannot be file names: {shorten(odd)}", remedy))
    return problems
