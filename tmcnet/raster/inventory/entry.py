"""One scene or ready-made tile of the source, before anything was opened."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tmcnet.errors import Problem, format_names

TRAIN = "train"
PREDICT = "predict"


@dataclass(frozen=True)
class Entry:
    """A scene or tile and its files.

    Attributes:
        scene: Its name, unique in the source.
        role: `train` (tiles are cut from it) or `predict` (only mapped at the end).
        images: Files of each modality, in the order of the config; several are stacked as bands. A scene of role
            `predict` may have none of a modality.
        label: The label file; empty where there is none.
        fields: Fields of the pattern, or other columns of the sample sheet.
        members: The files behind each of the above that is none itself: the tiles that a pattern of the sample sheet
            finds, in the order in which they are laid over one another.
        nodata: Value that means no data, by modality, where the sample sheet gives one.
        scales: Scale of backscatter, by modality, where the sample sheet gives one.
    """

    scene: str
    role: str
    images: dict[str, tuple[Path, ...]]
    label: tuple[Path, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)
    members: dict[Path, tuple[Path, ...]] = field(default_factory=dict)
    nodata: dict[str, float] = field(default_factory=dict)
    scales: dict[str, str] = field(default_factory=dict)

    @property
    def named(self) -> tuple[Path, ...]:
        """The paths it names, images first; patterns as written."""
        return (*(path for paths in self.images.values() for path in paths), *self.label)

    @property
    def files(self) -> list[Path]:
        """The files of the source, in the order of `named`; of virtual rasters all that they show."""
        return [file for path in self.named for member in self.members.get(path, (path,)) for file in _shown(member)]


def _shown(path: Path) -> list[Path]:
    """A file, and the files that it shows where it is a virtual raster of GDAL."""
    if path.suffix.lower() != ".vrt" or not path.is_file():
        return [path]
    try:
        tree = ElementTree.parse(path)
    except ElementTree.ParseError:
        return [path]  # the inventory tells that it cannot be read
    found = [path]
    for element in tree.iter():
        if element.tag in ("SourceFilename", "SourceDataset") and element.text:
            source = path.parent / element.text if element.get("relativeToVRT") == "1" else Path(element.text)
            found += [file for file in _shown(source) if file.is_file() and file not in found]
    return found


def name_problems(where: str, entries: Sequence[Entry]) -> list[Problem]:
    """What is wrong with the names: doubles, and characters that cannot stand in a file name or a list."""
    problems = []
    counts = Counter(entry.scene for entry in entries)
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        problems.append(
            Problem(where, f"names given more than once: {format_names(doubled)}", "Give each its own name.")
        )
    odd = [repr(name) for name in counts if not re.fullmatch(r"\w[\w.+-]*", name)]
    if odd:
        remedy = "Use letters, digits, `_`, `-`, `+` and `.` only, with a letter or digit in front."
        problems.append(Problem(where, f"names that cannot be file names: {format_names(odd)}", remedy))
    return problems
