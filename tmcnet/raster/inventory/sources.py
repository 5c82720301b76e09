"""Find the scenes or tiles of a source by name, without opening a raster.

Light on purpose: the workflow asks for the scenes while it is being read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.inventory.entry import PREDICT, TRAIN, Entry, name_problems
from tmcnet.raster.inventory.patterns import Key, Pattern, find_pairs
from tmcnet.raster.inventory.seed_layout import read_seed_layout
from tmcnet.raster.inventory.sheet import read_sheet

if TYPE_CHECKING:
    from tmcnet.config import SourceConfig

__all__ = ["Entry", "find_entries"]


def find_entries(
    source: SourceConfig, data_root: Path, modalities: Iterable[str] = ("optical", "sar")
) -> list[Entry]:
    """All scenes or tiles of a source, sorted by name.

    Files belong together by what their names say, never by their order in a folder. In layout `scenes` a label may
    lack: with a label pattern the scene then has role `predict`; without one every scene has role `train`, so
    that pre-training can use it. A sensor may lack only in a sample sheet, where that is said on purpose; a file
    whose partner no pattern finds may as well be misnamed.

    Args:
        source: Section `source` of the config.
        data_root: Folder in which relative paths start.
        modalities: Their names, such as the section `sensors` of the config: `optical`, `sar`, then the others.

    Raises:
        InputError: If files are missing, doubled or unpaired, if names are doubled, or nothing is found.
    """
    root = Path(data_root)
    if source.layout == "demo":
        entries = _demo(source, root)
    elif source.layout == "seed":
        entries = _seed(root)
    elif source.sheet is not None:
        entries = read_sheet(Path(source.sheet), root, list(modalities))
    else:
        entries = _by_patterns(source, root)
    where = f"sample sheet {source.sheet}" if source.sheet else f"config section `source` (layout `{source.layout}`)"
    known = {entry.scene for entry in entries}
    entries = [entry for entry in entries if entry.scene not in source.exclude]
    problems = name_problems(where, entries)
    if not (source.layout in ("scenes", "tiles") and source.sheet is None):
        problems += _exclude_problems(source.exclude, known)
    if not entries and not problems:
        problems.append(Problem("config key `source.exclude`", "leaves nothing of the source", "Shorten it."))
    if problems:
        raise InputError(problems)
    return sorted(entries, key=lambda entry: entry.scene)


def _demo(source: SourceConfig, root: Path) -> list[Entry]:
    folders = [root / "demo" / name for name in source.demo.scene_names]
    return [
        Entry(f.name, TRAIN, {kind: (f / f"{kind}.tif",) for kind in ("optical", "sar")}, (f / "label.tif",))
        for f in folders
    ]


def _seed(root: Path) -> list[Entry]:
    return [
        Entry(
            tile.name,
            TRAIN,
            {"optical": (tile.optical,), "sar": (tile.sar,)},
            (tile.label,),
            fields={"part": tile.part, "subsets": ";".join(tile.subsets)},
        )
        for tile in read_seed_layout(root).tiles
    ]


def _by_patterns(source: SourceConfig, root: Path) -> list[Entry]:
    texts = {**source.patterns, "label": source.label}
    patterns = {kind: Pattern.parse(f"config key `source.{kind}`", text) for kind, text in texts.items() if text}
    everything = find_pairs(patterns, root)
    pairs = {key: files for key, files in everything.items() if "_".join(key) not in source.exclude}
    optional = {"label"} if source.layout == "scenes" else set()
    problems = _unpaired(pairs, patterns, optional)
    problems += _exclude_problems(source.exclude, {"_".join(key) for key in everything})
    if problems:
        raise InputError(problems)
    fields = patterns["optical"].fields
    return [
        Entry(
            "_".join(key),
            PREDICT if "label" in patterns and "label" not in files else TRAIN,
            {name: (files[name],) for name in source.patterns},
            (files["label"],) if "label" in files else (),
            fields=dict(zip(fields, key, strict=True)),
        )
        for key, files in pairs.items()
    ]


def _unpaired(pairs: dict[Key, dict[str, Path]], patterns: dict[str, Pattern], optional: set[str]) -> list[Problem]:
    problems = []
    for kind, pattern in patterns.items():
        lacking = [key for key, files in pairs.items() if kind not in files]
        if lacking and kind not in optional:
            examples = [f"{'_'.join(key)} (has {next(iter(pairs[key].values()))})" for key in lacking]
            what = (
                f"`{pattern.text}` finds no {kind} file for {len(lacking)} of {len(pairs)}: {format_names(examples)}"
            )
            remedy = "Add the missing files, or name these in `source.exclude`."
            if "label" in optional:
                remedy += f" Scenes of one sensor can be mapped: list them in a sample sheet, with role {PREDICT}."
            problems.append(Problem(pattern.where, what, remedy))
    return problems


def _exclude_problems(exclude: Sequence[str], known: set[str]) -> list[Problem]:
    problems = []
    for name in exclude:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            remedy = f"Did you mean `{close[0]}`?" if close else "Remove it, or correct the name."
            problems.append(Problem("config key `source.exclude`", f"names `{name}`, which is not there", remedy))
    return problems
