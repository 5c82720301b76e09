"""The seed layout coming in: the folder form that the published code's users keep their data in.

`train_RGB/*.tif train_SAR/*.tif train_lbl/*.tif val_RGB/...`, beside them the lists `train_RGB.txt` and its fellows,
the lists of label subsets (`trainR1_RGB.txt`, ...) and `class_dict.txt`. The three files of a tile are paired by
name; the published code pairs them by sort order, which goes wrong silently once one file is missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmcnet.dataset.class_dict import SeedClass, read_class_dict
from tmcnet.errors import InputError, Problem

PARTS = ("train", "val", "test")
"""The parts of a data set, in the order in which they are told."""
KINDS = {"optical": "RGB", "sar": "SAR", "label": "lbl"}
"""How the seed layout calls the three files of a tile."""
SHOWN = 10
"""So many names are told in one message; the rest is counted."""

_SUFFIXES = (".tif", ".tiff", ".png")
_LIST = re.compile(r"^(?P<part>train|val|test)(?P<subset>.*)_(?P<kind>RGB|SAR|lbl)\.txt$")


@dataclass(frozen=True)
class SeedTile:
    """One tile of a seed folder: its three files, its part and the label subsets it is in (`R1`, `R5`)."""

    name: str
    optical: Path
    sar: Path
    label: Path
    part: str
    subsets: tuple[str, ...]


@dataclass(frozen=True)
class SeedLayout:
    """A seed folder as found: tiles sorted by name; classes in the order of their ids, or None without a file."""

    tiles: list[SeedTile]
    classes: list[SeedClass] | None


@dataclass(frozen=True)
class _Part:
    name: str
    files: dict[str, dict[str, Path]]
    subsets: dict[str, list[str]]


def read_seed_layout(root: Path) -> SeedLayout:
    """Read a folder in the seed layout.

    A list may hold bare names, file names or paths; where a part has no lists, what its folders hold is the list.

    Args:
        root: The folder that holds `train_RGB` and its kin.

    Raises:
        InputError: If names are unpaired, missing, doubled or in two parts, or a list or folder is missing;
            names every one of them.
    """
    if not root.is_dir():
        raise InputError(Problem(str(root), "is not a folder", "Set `data_root` to the folder of the seed layout."))
    problems: list[Problem] = []
    lists = _find_lists(root)
    parts = [_read_part(root, part, lists.get(part, {}), problems) for part in PARTS if _exists(root, part, lists)]
    if not parts:
        problems.append(
            Problem(
                str(root),
                "holds neither folders such as train_RGB nor lists such as train_RGB.txt",
                "The seed layout needs train_RGB, train_SAR and train_lbl, and the same of val or test.",
            )
        )
    problems.extend(_in_two_parts(root, parts))
    classes = read_class_dict(root / "class_dict.txt", problems)
    if problems:
        raise InputError(problems)
    tiles = [tile for part in parts for tile in _tiles(part)]
    return SeedLayout(sorted(tiles, key=lambda tile: tile.name), classes)


def tell(names: Iterable[str]) -> str:
    """The first names in sorted order, and how many more there are."""
    known = sorted(names)
    more = len(known) - SHOWN
    return ", ".join(known[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _find_lists(root: Path) -> dict[str, dict[str, dict[str, Path]]]:
    """List files by part, subset (empty for the part itself) and kind."""
    found: dict[str, dict[str, dict[str, Path]]] = {}
    for path in sorted(root.glob("*.txt")):
        match = _LIST.match(path.name)
        if match:
            found.setdefault(match["part"], {}).setdefault(match["subset"].lstrip("_"), {})[match["kind"]] = path
    return found


def _exists(root: Path, part: str, lists: dict[str, dict[str, dict[str, Path]]]) -> bool:
    return part in lists or any((root / f"{part}_{kind}").is_dir() for kind in KINDS.values())


def _read_part(root: Path, part: str, lists: dict[str, dict[str, Path]], problems: list[Problem]) -> _Part:
    folders = {kind: _files(root / f"{part}_{word}", problems) for kind, word in KINDS.items()}
    own = lists.get("", {})
    names: dict[str, list[str]] = {}
    files: dict[str, dict[str, Path]] = {}
    for kind, word in KINDS.items():
        if not own:
            names[kind] = sorted(folders[kind])
            files[kind] = _only_one(root / f"{part}_{word}", folders[kind], problems)
            continue
        entries = _entries(root, f"{part}_{word}.txt", own.get(word), problems)
        names[kind] = [_stem(entry) for entry in entries]
        files[kind] = _listed(root / f"{part}_{word}.txt", root / f"{part}_{word}", entries, folders[kind], problems)
    problems.extend(_unpaired(root, part, names))
    subsets = {
        subset: _subset(root, part, subset, paths, names["optical"], problems)
        for subset, paths in sorted(lists.items())
        if subset
    }
    return _Part(part, files, subsets)


def _subset(
    root: Path, part: str, subset: str, paths: dict[str, Path], members: Sequence[str], problems: list[Problem]
) -> list[str]:
    """Names of a label subset such as `trainR1`, whose files lie in the folders of its part."""
    names = {
        kind: [_stem(e) for e in _entries(root, f"{part}{subset}_{word}.txt", paths.get(word), problems)]
        for kind, word in KINDS.items()
    }
    problems.extend(_unpaired(root, part + subset, names))
    strangers = set(names["optical"]) - set(members)
    if strangers:
        where = str(root / f"{part}{subset}_RGB.txt")
        what = f"names tiles that {part} does not have: {tell(strangers)}"
        problems.append(Problem(where, what, f"A label subset must be part of {part}; mend one of the two lists."))
    return names["optical"]


def _files(folder: Path, problems: list[Problem]) -> dict[str, list[Path]]:
    """Image files of a folder by name without extension."""
    if not folder.is_dir():
        problems.append(Problem(str(folder), "is missing", "Every part needs its RGB, SAR and lbl folder."))
        return {}
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _SUFFIXES and path.is_file():
            found.setdefault(path.stem, []).append(path)
    return found


def _entries(root: Path, name: str, path: Path | None, problems: list[Problem]) -> list[str]:
    """File names in a list, without folders; doubled names are a problem."""
    if path is None:
        problems.append(
            Problem(str(root / name), "is missing", "Its two fellows exist; add it, or remove all three.")
        )
        return []
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    entries = [line.strip().replace("\\", "/").rsplit("/", 1)[-1] for line in lines if line.strip()]
    doubled = [stem for stem, n in Counter(_stem(entry) for entry in entries).items() if n > 1]
    if doubled:
        problems.append(Problem(str(path), f"names tiles twice: {tell(doubled)}", "Leave one line for each tile."))
    return entries


def _only_one(folder: Path, found: dict[str, list[Path]], problems: list[Problem]) -> dict[str, Path]:
    doubled = {path.name for paths in found.values() if len(paths) > 1 for path in paths}
    if doubled:
        what = f"holds several files of one name: {tell(doubled)}"
        problems.append(Problem(str(folder), what, "Remove all but one, or name the right one in a list."))
    return {name: paths[0] for name, paths in found.items()}


def _listed(
    where: Path, folder: Path, entries: list[str], found: dict[str, list[Path]], problems: list[Problem]
) -> dict[str, Path]:
    """The file that each entry of a list means."""
    chosen: dict[str, Path] = {}
    doubled: dict[str, list[Path]] = {}
    missing: set[str] = set()
    for entry in entries:
        paths = found.get(_stem(entry), [])
        exact = [path for path in paths if path.name == entry]
        if not paths:
            missing.add(_stem(entry))
        elif len(paths) > 1 and not exact:
            doubled[_stem(entry)] = paths
        else:
            chosen[_stem(entry)] = (exact or paths)[0]
    if missing and folder.is_dir():
        what = f"names tiles that {folder.name} has no file for: {tell(missing)}"
        problems.append(Problem(str(where), what, "Add the files or take the names out of all three lists."))
    _only_one(folder, doubled, problems)
    return chosen


def _unpaired(root: Path, part: str, names: dict[str, list[str]]) -> list[Problem]:
    """Names that one of the three sensors has and another lacks."""
    every = set().union(*names.values())
    problems = []
    for kind, word in KINDS.items():
        lacking = every - set(names[kind])
        if lacking and names[kind]:
            where = str(root / f"{part}_{word}")
            what = f"lacks tiles that its fellows have: {tell(lacking)}"
            problems.append(
                Problem(where, what, "Optical, SAR and label are paired by name; add or rename the files.")
            )
        elif lacking:
            problems.append(Problem(str(root / f"{part}_{word}"), "names no tile", "Add its files and list."))
    return problems


def _in_two_parts(root: Path, parts: list[_Part]) -> list[Problem]:
    problems = []
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            both = set(one.files["optical"]) & set(other.files["optical"])
            if both:
                what = f"{one.name} and {other.name} both have tiles {tell(both)}"
                problems.append(
                    Problem(str(root), what, "A tile belongs to one part only; take it out of the other.")
                )
    return problems


def _tiles(part: _Part) -> list[SeedTile]:
    members = {subset: set(names) for subset, names in part.subsets.items()}
    return [
        SeedTile(
            name,
            optical,
            part.files["sar"][name],
            part.files["label"][name],
            part.name,
            tuple(subset for subset in sorted(members) if name in members[subset]),
        )
        for name, optical in part.files["optical"].items()
    ]


def _stem(entry: str) -> str:
    for suffix in _SUFFIXES:
        if entry.lower().endswith(suffix):
            return entry[: -len(suffix)]
    return entry
