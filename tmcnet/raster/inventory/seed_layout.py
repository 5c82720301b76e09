"""The seed layout: the folder form of the published code's data sets.

`train_RGB/*.tif train_SAR/*.tif train_lbl/*.tif val_RGB/...`, beside them the lists `train_RGB.txt`, `train_SAR.txt`,
`train_lbl.txt`, the lists of label subsets (`trainR1_RGB.txt`, ...) and `class_dict.txt`: a header, then one row
`name,r,g,b` per class in the order of the ids. The three files of a tile are paired by name; the published code pairs
them by sort order, which silently gives wrong pairs once one file is missing.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tmcnet.classes import ClassTable
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.inventory.sample_sheet import TRAIN, Entry
from tmcnet.readers import reading

SeedClass = tuple[str, tuple[int, int, int]]  # name and colour (red, green, blue in 0..255) of a class

KINDS = {"optical": "RGB", "sar": "SAR", "label": "lbl"}
"""Names that the seed layout uses for the three files of a tile."""
_PARTS = ("train", "val", "test")
"""Beginnings of the names of its folders and lists; not those of the config, which imports pydantic."""
_SUFFIXES = (".tif", ".tiff", ".png")
_LIST = re.compile(r"^(?P<part>train|val|test)(?P<subset>.*)_(?P<word>RGB|SAR|lbl)\.txt$")
_CLASS_REMEDY = "Write a header line, then `name,r,g,b` for each class in the order of the ids."


@dataclass(frozen=True)
class SeedLayout:
    """A seed folder as found: tiles sorted by name, with their part and the label subsets they are in as fields.

    Classes are in the order of their ids, or None without a file.
    """

    tiles: list[Entry]
    classes: list[SeedClass] | None


def read_seed_layout(root: Path) -> SeedLayout:
    """Read a folder in the seed layout, which holds `train_RGB` and the others; names everything that is wrong.

    A list may hold bare names, file names or paths; a part without lists has all tiles in its folders.
    """
    if not root.is_dir():
        raise InputError(Problem(str(root), "is not a folder", "Set `data_root` to the folder of the seed layout."))
    reader = _Reader(root)
    tiles_of = {part: reader.tiles(part) for part in _PARTS if reader.has(part)}
    if not tiles_of:
        what = "holds neither folders such as train_RGB nor lists such as train_RGB.txt"
        remedy = "The seed layout needs train_RGB, train_SAR and train_lbl, and the same of val or test."
        reader.report(root, what, remedy)
    for one, other in itertools.combinations(tiles_of, 2):
        if both := {tile.scene for tile in tiles_of[one]} & {tile.scene for tile in tiles_of[other]}:
            what = f"{one} and {other} both have tiles {format_names(both)}"
            reader.report(root, what, "A tile belongs to one part only; take it out of the other.")
    classes = read_class_dict(root / "class_dict.txt", reader.problems)
    if reader.problems:
        raise InputError(reader.problems)
    return SeedLayout(sorted(itertools.chain(*tiles_of.values()), key=lambda tile: tile.scene), classes)


class _Reader:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.lists: dict[str, dict[str, dict[str, Path]]] = {part: {} for part in _PARTS}
        """List files by part, subset (empty for all of the part) and word."""
        for path in sorted(root.glob("*.txt")):
            if match := _LIST.match(path.name):
                subset = match["subset"].lstrip("_")
                self.lists[match["part"]].setdefault(subset, {})[match["word"]] = path

    def has(self, part: str) -> bool:
        return bool(self.lists[part]) or any((self.root / f"{part}_{word}").is_dir() for word in KINDS.values())

    def tiles(self, part: str) -> list[Entry]:
        names: dict[str, list[str]] = {}
        files: dict[str, dict[str, Path]] = {}
        for kind, word in KINDS.items():
            by_stem = self._files(self.root / f"{part}_{word}")
            entries = self._entries(part, "", word) if "" in self.lists[part] else sorted(by_stem)
            names[kind] = [_stem(entry) for entry in entries]
            files[kind] = self._choose_files(self.root / f"{part}_{word}", entries, by_stem)
        self._require_pairs(part, names)
        subsets = {name: self._subset(part, name, names["optical"]) for name in sorted(self.lists[part]) if name}
        optical, sar, label = files.values()
        return [
            Entry(
                name,
                TRAIN,
                {"optical": (optical[name],), "sar": (sar[name],)},
                (label[name],),
                {"part": part, "subsets": ";".join(subset for subset in subsets if name in subsets[subset])},
            )
            for name in optical
            if name in sar and name in label
        ]

    def _subset(self, part: str, subset: str, members: Sequence[str]) -> set[str]:
        """Names of a label subset such as `trainR1`, whose files are in the folders of its part."""
        names = {kind: [_stem(e) for e in self._entries(part, subset, word)] for kind, word in KINDS.items()}
        self._require_pairs(part + subset, names)
        if strangers := set(names["optical"]) - set(members):
            what = f"names tiles that {part} does not have: {format_names(strangers)}"
            remedy = f"A label subset must be part of {part}; correct one of the two lists."
            self.report(self.root / f"{part}{subset}_RGB.txt", what, remedy)
        return set(names["optical"])

    def _files(self, folder: Path) -> dict[str, list[Path]]:
        if not folder.is_dir():
            self.report(folder, "is missing", "Every part needs its RGB, SAR and lbl folder.")
            return {}
        by_stem: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                by_stem.setdefault(path.stem, []).append(path)
        return by_stem

    def _entries(self, part: str, subset: str, word: str) -> list[str]:
        path = self.lists[part][subset].get(word)
        if path is None:
            missing = self.root / f"{part}{subset}_{word}.txt"
            self.report(missing, "is missing", "The lists of the other two exist; add it, or remove all three.")
            return []
        with reading(path, "Write one file name a line, as UTF-8 text."):
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        entries = [line.strip().replace("\\", "/").rsplit("/", 1)[-1] for line in lines if line.strip()]
        doubled = [stem for stem, n in Counter(_stem(entry) for entry in entries).items() if n > 1]
        if doubled:
            self.report(path, f"names tiles twice: {format_names(doubled)}", "Leave one line for each tile.")
        return entries

    def _choose_files(self, folder: Path, entries: list[str], by_stem: dict[str, list[Path]]) -> dict[str, Path]:
        """The file that each entry of a list means, by name."""
        chosen: dict[str, Path] = {}
        doubled: list[str] = []
        for entry in entries:
            paths = by_stem.get(_stem(entry), [])
            paths = [path for path in paths if path.name == entry] or paths
            if len(paths) > 1:
                doubled += [path.name for path in paths]
            elif paths:
                chosen[_stem(entry)] = paths[0]
        if folder.is_dir() and (missing := set(map(_stem, entries)) - by_stem.keys()):
            what = f"names tiles that {folder.name} has no file for: {format_names(missing)}"
            remedy = "Add the files or take the names out of all three lists."
            self.report(folder.with_name(f"{folder.name}.txt"), what, remedy)
        if doubled:
            what = f"holds several files of one name: {format_names(doubled)}"
            self.report(folder, what, "Remove all but one, or name the right one in a list.")
        return chosen

    def _require_pairs(self, part: str, names: dict[str, list[str]]) -> None:
        """Report names that one of the three kinds of files has and another lacks."""
        every = set().union(*names.values())
        for kind, word in KINDS.items():
            if lacking := every - set(names[kind]):
                what = f"lacks tiles that the others have: {format_names(lacking)}"
                remedy = "Optical, SAR and label are paired by name; add or rename the files."
                self.report(self.root / f"{part}_{word}", what, remedy)

    def report(self, where: Path, what: str, remedy: str) -> None:
        self.problems.append(Problem(str(where), what, remedy))


def read_class_dict(path: Path, problems: list[Problem]) -> list[SeedClass] | None:
    """Read `class_dict.txt` and add what is wrong with it to `problems`; None where there is no such file."""
    if not path.is_file():
        return None
    with reading(path, _CLASS_REMEDY), path.open(newline="", encoding="utf-8-sig") as file:
        rows = [(n, [cell.strip() for cell in row]) for n, row in enumerate(csv.reader(file), 1) if any(row)]
    if rows and _parse_class(rows[0][1]) is not None:
        what = "is a class, but the first line is taken as header"
        problems.append(Problem(f"{path}, line 1", what, _CLASS_REMEDY))
        return []
    classes: list[SeedClass] = []
    for number, row in rows[1:]:
        parsed = _parse_class(row)
        if parsed is None:
            problems.append(Problem(f"{path}, line {number}", f"is no class: {','.join(row)!r}", _CLASS_REMEDY))
        else:
            classes.append(parsed)
    names, colours = [name for name, _ in classes], [colour for _, colour in classes]
    doubled = sorted({n for n in names if names.count(n) > 1}) + sorted({c for c in colours if colours.count(c) > 1})
    if doubled:
        problems.append(Problem(str(path), f"gives names or colours twice: {doubled}", "Make them differ."))
    if not rows[1:]:
        problems.append(Problem(str(path), "holds no class", _CLASS_REMEDY))
    return classes


def write_class_dict(path: Path, classes: ClassTable) -> None:
    """Write `class_dict.txt`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["name", "r", "g", "b"])
        rows.writerows([c.name, *c.rgb] for c in classes.classes)


def _parse_class(row: list[str]) -> SeedClass | None:
    if len(row) < 4 or not row[0].isprintable() or row[0][:1] in ("", "=", "@", "+", "-"):
        return None
    if not all(re.fullmatch("[0-9]{1,3}", cell) and int(cell) < 256 for cell in row[1:4]):
        return None
    return row[0], (int(row[1]), int(row[2]), int(row[3]))


def _stem(entry: str) -> str:
    for suffix in _SUFFIXES:
        if entry.lower().endswith(suffix):
            return entry[: -len(suffix)]
    return entry
