"""Find the scenes or tiles of a source by name, without opening a raster.

Light on purpose: the workflow lists the scenes while it is being parsed.
"""

from __future__ import annotations

import difflib
import glob
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tmcnet.errors import InputError, Problem, collecting, format_names, hide_secrets
from tmcnet.raster.inventory.sample_sheet import PREDICT, TRAIN, Entry, read_sheet
from tmcnet.raster.inventory.seed_layout import read_seed_layout
from tmcnet.raster.names import is_remote
from tmcnet.readers import read_json

if TYPE_CHECKING:
    from tmcnet.config import LabelsConfig, SourceConfig

Key: TypeAlias = tuple[str, ...]  # values of the fields, in the order of the optical pattern

MAX_NAME_BYTES = 150  # longest name of a scene: files add the row and column of tiles, and endings, to it
_CLEARED = ("tiles", "scenes", "splits", "seed", "maps", "report", "folds")
"""Folders of the results in which the workflow removes files."""
_FIELD = re.compile(r"\{([^{}]*)\}")
_WORD = re.compile(r"((?:\{[^{}]*\})+)")  # fields with nothing between them
_FIXED = re.compile(r":[1-9]")  # in fields of fixed width
_FIELD_NAME = re.compile(r"([a-z_][a-z0-9_]*)(:d|:[1-9][0-9]?)?")


def label_names(results: Path, scene: str, labels: LabelsConfig) -> list[str]:
    """Names of the classes on which the vector label of a scene depends, as features may name their class.

    Where none did so far, these are the names of the first time, so that other names repeat nothing. While the job of
    the scene runs, its own record is gone, and the merged one is read.
    """
    own, merged = results / "inventory" / f"{scene}.json", results / "inventory.json"
    earlier = _earlier_names(own if own.exists() else merged)
    return earlier.get(scene) or [c.name for c in labels.classes]


@cache
def _earlier_names(inventory: Path) -> dict[str, list[str]]:
    return dict(read_json(inventory).get("label_names", {}))


def find_entries(
    source: SourceConfig, data_root: Path, modalities: Iterable[str] = ("optical", "sar")
) -> list[Entry]:
    """Find all scenes or tiles of a source, sorted by name.

    Files are paired by their names, never by their order in a folder; missing, doubled and unpaired ones are errors.
    In layout `scenes` a label may be missing: with a label pattern the scene then has role `predict`; without one
    every scene has role `train`, so that pre-training can use it. A modality may be missing only in a sample sheet,
    where that is explicit: a file that no pattern pairs may as well be misnamed.
    """
    root = Path(data_root)
    if source.layout == "demo":
        entries = _demo(source, root)
    elif source.layout == "seed":
        entries = read_seed_layout(root).tiles
    elif source.sheet is not None:
        entries = read_sheet(Path(source.sheet), root, list(modalities))
    else:
        entries = _by_patterns(source, root)
    where = f"sample sheet {source.sheet}" if source.sheet else f"config section `source` (layout `{source.layout}`)"
    scenes = {entry.scene for entry in entries}
    entries = [entry for entry in entries if entry.scene not in source.exclude]
    problems = _name_problems(where, entries) + ([] if source.remote else _remote_problems(entries))
    if not (source.layout in ("scenes", "tiles") and source.sheet is None):
        problems += _exclude_problems(source.exclude, scenes)
    if not entries and not problems:
        problems.append(Problem("config key `source.exclude`", "leaves nothing of the source", "Shorten it."))
    if problems:
        raise InputError(problems)
    return sorted(entries, key=lambda entry: entry.scene)


def check_outside(entries: Iterable[Entry], results: Path) -> None:
    """Refuse imagery in the folders below the results that the workflow clears."""
    cleared = tuple(f"{results.absolute() / name}{os.sep}" for name in _CLEARED)
    files = (str(name.absolute()) for entry in entries for name in entry.members_of_all if isinstance(name, Path))
    for file in files:
        if file.startswith(cleared):
            what = "is in a folder of the results, whose files are overwritten and removed"
            raise InputError(Problem(file, what, "Choose another `results_dir`, or move the imagery."))


def _demo(source: SourceConfig, root: Path) -> list[Entry]:
    folders = [root / "demo" / name for name in source.demo.scene_names]
    return [
        Entry(f.name, TRAIN, {name: (f / f"{name}.tif",) for name in ("optical", "sar")}, (f / "label.tif",))
        for f in folders
    ]


def _by_patterns(source: SourceConfig, root: Path) -> list[Entry]:
    masks = {f"masks.{name}": text for name, text in source.masks.items()}
    texts = {**source.patterns, "label": source.label, **masks}
    patterns = {name: Pattern.parse(f"config key `source.{name}`", text) for name, text in texts.items() if text}
    everything, name_of = find_pairs(patterns, root), patterns["optical"].name
    pairs = {key: files for key, files in everything.items() if name_of(key) not in source.exclude}
    unpaired = _unpaired(pairs, patterns, label_optional=source.layout == "scenes")
    if problems := [*unpaired, *_exclude_problems(source.exclude, set(map(name_of, everything)))]:
        raise InputError(problems)
    return [
        Entry(
            name_of(key),
            PREDICT if "label" in patterns and "label" not in files else TRAIN,
            {name: (files[name],) for name in source.patterns},
            (files["label"],) if "label" in files else (),
            dict(zip(patterns["optical"].fields, key, strict=True)),
            declared={name: {"mask": files[f"masks.{name}"]} for name in source.masks},
        )
        for key, files in pairs.items()
    ]


def _unpaired(
    pairs: dict[Key, dict[str, Path]], patterns: dict[str, Pattern], label_optional: bool
) -> Iterator[Problem]:
    for name, pattern in patterns.items():
        lacking = [key for key, files in pairs.items() if name not in files]
        if lacking and not (name == "label" and label_optional):
            count = f"{len(lacking)} of {len(pairs)}"
            name_of = patterns["optical"].name
            examples = [f"{name_of(key)} (has {next(iter(pairs[key].values()))})" for key in lacking]
            what = f"`{pattern.text}` finds no {name} file for {count}: {format_names(examples)}"
            remedy = "Add the missing files, or name these in `source.exclude`."
            if label_optional:
                remedy += f" Scenes of one sensor can be mapped: list them in a sample sheet, with role {PREDICT}."
            yield Problem(pattern.where, what, remedy)


def _remote_problems(entries: Sequence[Entry]) -> list[Problem]:
    remedy = "Set `source.remote: true` to read it over the network, or download it."
    return [
        Problem(hide_secrets(str(name)), f"is remote or has a remote source (scene {entry.scene})", remedy)
        for entry in entries
        for name in entry.members_of_all
        if is_remote(name)
    ]


def _name_problems(where: str, entries: Sequence[Entry]) -> list[Problem]:
    counts = Counter(entry.scene for entry in entries)
    # one file on disks that ignore case, and on those that compose characters
    files = {name: unicodedata.normalize("NFC", name).casefold() for name in counts}
    spellings = Counter(files.values())
    doubled = [name for name, count in counts.items() if count > 1]
    alike = [name for name, file in files.items() if spellings[file] > 1]
    long = [f"{name[:20]}... ({len(name)})" for name in counts if len(name.encode()) > MAX_NAME_BYTES]
    odd = [repr(name) for name in counts if not re.fullmatch(r"\w[\w.+-]*", name)]
    letters = "Use letters, digits, `_`, `-`, `+` and `.` only, with a letter or digit in front."
    found = (
        ("given more than once", doubled, "Give each its own name."),
        ("that differ only in case", alike, "Rename them: some disks take them for one name."),
        (f"of more than {MAX_NAME_BYTES} bytes", long, "Shorten them: files are named after them."),
        ("that cannot be file names", odd, letters),
    )
    return [Problem(where, f"names {what}: {format_names(names)}", remedy) for what, names, remedy in found if names]


def _exclude_problems(exclude: Sequence[str], scenes: set[str]) -> Iterator[Problem]:
    for name in exclude:
        if name not in scenes:
            close = difflib.get_close_matches(name, sorted(scenes), n=1)
            remedy = f"Did you mean `{close[0]}`?" if close else "Remove it, or correct the name."
            yield Problem("config key `source.exclude`", f"names `{name}`, which is not there", remedy)


@dataclass(frozen=True)
class Pattern:
    """A pattern of file paths such as `optical/{area}/{tile:d}.png`."""

    where: str  # the config key it comes from, for messages
    text: str  # the pattern as written
    fields: tuple[str, ...]  # names of its fields in the order in which they first occur
    whole: frozenset[str]  # those of the fields that are whole numbers
    separators: tuple[str, ...]  # what is before the value of each field in a name

    @classmethod
    def parse(cls, where: str, text: str) -> Pattern:
        """Read a pattern; it needs fields: `{name}`, `{name:d}` or, with a width in characters, `{name:2}`."""
        inner = [match[1] for match in _FIELD.finditer(text)]
        bad = [part for part in inner if not _FIELD_NAME.fullmatch(part)]
        if bad or not inner or "{" in _FIELD.sub("", text) or "}" in _FIELD.sub("", text):
            remedy = "Write fields as `{name}`, `{name:d}` or `{name:2}`, in small letters, and at least one of them."
            raise InputError(Problem(where, f"`{text}` is not a pattern", remedy))
        firsts: dict[str, re.Match[str]] = {}
        for match in _FIELD.finditer(text):
            firsts.setdefault(match[1].partition(":")[0], match)
        joined = (
            one.end() == other.start() and _FIXED.search(one[0] + other[0]) is not None
            for one, other in itertools.pairwise(firsts.values())
        )
        whole = frozenset(part.removesuffix(":d") for part in inner if part.endswith(":d"))
        return cls(where, text, tuple(firsts), whole, ("", *("" if is_joined else "_" for is_joined in joined)))

    def name(self, key: Key) -> str:
        """Name of a scene or tile: values of its fields joined by `_`, or nothing next to a field of fixed width."""
        return "".join(part for pair in zip(self.separators, key, strict=True) for part in pair)

    def find(self, root: Path) -> dict[Key, Path]:
        """Find all files of the pattern below `root`, by the values of its fields, which differ for each."""
        by_key: dict[Key, Path] = {}
        doubled = []
        literals = _FIELD.sub("\0", self.text).split("\0")
        # every occurrence of a field is a group; `_key` compares those of one name
        forms = (match[1].partition(":")[2] for match in _FIELD.finditer(self.text))
        groups = (r"(\d+)" if form == "d" else f"([^/]{{{form or '1,'}}})" for form in forms)
        rest = (group + re.escape(part) for group, part in zip(groups, literals[1:], strict=True))
        regex = re.compile(re.escape(literals[0]) + "".join(rest))
        *starts, end = map(glob.escape, literals)
        if "/" not in end:  # letters in any case
            end = "".join(f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else letter for letter in end)
        # Path.glob refuses absolute patterns
        names = sorted(glob.glob("*".join([*starts, end]), root_dir=root))  # noqa: PTH207
        self._require_leading_zeros(names)
        if other := [name for name in names if not name.endswith(literals[-1])]:
            what = f"`{self.text}` leaves out files whose endings differ in capitals: {format_names(other)}"
            raise InputError(Problem(self.where, what, "Rename them, or move them away."))
        for name in names:
            match = regex.fullmatch(name)
            key = self._key(match) if match else None
            if key is None:
                continue
            if key in by_key:
                doubled.append(f"{by_key[key].relative_to(root)} and {name}")
            by_key.setdefault(key, root / name)
        if not by_key:
            folder = root.resolve()
            end = "." if folder.is_dir() else "; that folder does not exist."
            what = f"`{self.text}` matches no file below {folder}"
            raise InputError(Problem(self.where, what, f"Check `data_root` and the pattern{end}"))
        if doubled:
            what = f"finds two files for the same name {len(doubled)} times: {format_names(doubled)}"
            raise InputError(Problem(self.where, what, "Remove one of each, or make the pattern more exact."))
        return by_key

    def _require_leading_zeros(self, names: Sequence[str]) -> None:
        """Refuse numbers of several lengths where a fixed width cuts them: 107 and 1070 would begin alike."""
        words = _WORD.split(self.text)
        cut = [index for index, word in enumerate(words[1::2]) if _FIXED.search(word)]
        regex = re.compile("([^/]+)".join(map(re.escape, words[::2])))
        for index in cut:
            numbers = [m[index + 1] for name in names if (m := regex.fullmatch(name)) and m[index + 1].isdigit()]
            by_length = {len(number): number for number in numbers}
            if len(by_length) > 1:
                what = f"`{self.text}` cuts numbers of several lengths: {format_names(sorted(by_length.values()))}"
                raise InputError(Problem(self.where, what, "Fixed widths need leading zeros in the names of files."))

    def _key(self, match: re.Match[str]) -> Key | None:
        values: dict[str, str] = {}
        for part, raw in zip(_FIELD.findall(self.text), match.groups(), strict=True):
            name = part.partition(":")[0]
            value = str(int(raw)) if name in self.whole and raw.isdigit() else raw
            if values.setdefault(name, value) != value:
                return None
        return tuple(values[name] for name in self.fields)


def find_pairs(patterns: Mapping[str, Pattern], root: Path) -> dict[Key, dict[str, Path]]:
    """Find files of several kinds, `optical` first, by the values of the fields in its order; some may be missing."""
    reference = patterns["optical"]
    problems: list[Problem] = []
    pairs: dict[Key, dict[str, Path]] = {}
    for kind, pattern in patterns.items():
        with collecting(problems):
            if set(pattern.fields) != set(reference.fields) or pattern.whole != reference.whole:
                what = f"`{pattern.text}` has other fields than `{reference.text}`"
                remedy = "Use the same fields, with or without `:d`, in all patterns."
                raise InputError(Problem(pattern.where, what, remedy))
            order = [pattern.fields.index(name) for name in reference.fields]
            for key, path in pattern.find(root).items():
                pairs.setdefault(tuple(key[i] for i in order), {})[kind] = path
    if problems:
        raise InputError(problems)
    return dict(sorted(pairs.items()))
