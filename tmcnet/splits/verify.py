"""Verify splits: make them again, compare, check the invariants, and name the tiles that changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tmcnet
from tmcnet.config import Budget, SplitsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.hashing import bytes_digest, table_digest
from tmcnet.splits.fingerprints import format_changes
from tmcnet.splits.groups import in_pixels
from tmcnet.splits.index import IntArray, TileIndex, read_index
from tmcnet.splits.invariants import REMEDY, Lists, check_lists, format_all
from tmcnet.splits.lists import KINDS, find_lists, format_names, list_names, list_text
from tmcnet.splits.manifest import VERSION, list_entry
from tmcnet.splits.points import Points, points_file, points_per_class, read_points
from tmcnet.splits.splits import draw_splits


def verify(folder: Path, index: Path, config: SplitsConfig | None = None) -> list[Problem]:
    """Check splits against their manifest and the tile index.

    Lists without a manifest, or with an unusable one, are still checked for what must hold for any lists.

    Args:
        folder: Folder of the lists and `manifest.json`.
        index: `tiles/index.csv`.
        config: The section `splits` as it is now; None: not compared.

    Returns:
        Everything that is wrong: data, config or software that changed since, and how; lists edited by hand; tiles in
        two parts, in none, or doubled; label fractions or points that are not nested; parts that share pixels.
    """
    made = None
    problems = []
    try:
        made = _Manifest.read(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(Problem(str(folder / "manifest.json"), f"cannot be used ({error})", REMEDY))
    try:
        tiles = read_index(index, made.config if made else SplitsConfig())
    except InputError as error:
        return problems + error.problems
    if made:
        problems += _changes(made, tiles, index, config)
    names = sorted({path.name.rsplit("_", 1)[0] for path in find_lists(folder)})
    listed = {name: _read_names(path) for name in names if (path := folder / f"{name}_RGB.txt").is_file()}
    known = pd.Index(tiles.tiles)  # made once: for a million tiles it takes a second
    members = {name: known.get_indexer(pd.Index(np.array(some, object))) for name, some in listed.items()}
    problems += _unpaired(folder, names)
    problems += _unknown_tiles(folder, listed, members)
    points, damaged = _read_all_points(folder, listed, tiles)
    problems += damaged
    if made:
        problems += [*_unknown_files(made), *_edited(made, listed, points)]
    dropped = known.get_indexer(pd.Index(np.array(made.dropped if made else [], object)))
    members = {name: at[at >= 0] for name, at in members.items()}
    lists = Lists(folder, tiles, members, dropped[dropped >= 0], made.config.guard if made else 0, points)
    return problems + check_lists(lists, made.given if made else set())


@dataclass(frozen=True)
class _Manifest:
    """A manifest that can be used.

    Attributes:
        path: Its file.
        values: All that it says.
        config: The config in it.
    """

    path: Path
    values: dict[str, Any]
    config: SplitsConfig

    @classmethod
    def read(cls, folder: Path) -> _Manifest:
        path = folder / "manifest.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        config = SplitsConfig.model_validate(values["config"])
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']}")
        for name, entry in values["lists"].items():
            str(entry["sha256"])
            if points_per_class(name):
                str(entry["points"]["sha256"])
        list(values["dropped"])
        return cls(path, values, config)

    @property
    def lists(self) -> dict[str, Any]:
        """Entry of each list."""
        entries: dict[str, Any] = self.values["lists"]
        return entries

    @property
    def dropped(self) -> list[str]:
        """Tiles in no part."""
        return list(self.values["dropped"])

    @property
    def given(self) -> set[str]:
        """Label fractions given by the source."""
        return {name for name, entry in self.lists.items() if entry.get("given")}

    def problem(self, what: str, remedy: str = REMEDY) -> Problem:
        """A problem of the manifest."""
        return Problem(str(self.path), what, remedy)


def _changes(made: _Manifest, tiles: TileIndex, index: Path, config: SplitsConfig | None) -> Iterator[Problem]:
    """What differs from when the splits were made: data, config, software; the last is seen by making them again."""
    same_data = made.values.get("index_sha256") == table_digest(index)
    if not same_data:
        what = f"the data changed: {format_changes(made.path.parent, tiles, index)}"
        yield Problem(str(index), what, REMEDY)
    try:
        now = in_pixels(config or made.config, tiles, str(index)).model_dump(mode="json")
        then = made.config.model_dump(mode="json")
        changed = [key for key in then if now[key] != then[key]] if config else []
        if changed:
            keys = ", ".join(f"`splits.{key}` was {then[key]!r}, is {now[key]!r}" for key in changed)
            yield made.problem(f"the config changed: {keys}", "Make the splits again, or set the keys back.")
    except InputError as error:
        yield from error.problems
    version = made.values.get("software_version")
    if version != tmcnet.__version__:
        what = f"the code changed: made by version {version}, this is {tmcnet.__version__}"
        yield made.problem(what, "Make the splits again, or go back to that version.")
    if same_data:
        try:
            yield from _made_again(made, tiles, index)
        except InputError as error:
            yield from error.problems


def _made_again(made: _Manifest, tiles: TileIndex, index: Path) -> Iterator[Problem]:
    """Entries that come out otherwise from the same data and config: the code changed, or the manifest did."""
    again = draw_splits(tiles, made.config, str(index))
    known = "the code or the manifest changed: same data and config now give"
    nothing = np.empty(0, np.int64)
    for name, entry in made.lists.items():
        members = again.members.get(name, nothing)
        new = list_entry(tiles, members, name in again.given, again.points.get(name))
        if new["sha256"] != entry["sha256"]:
            path = made.path.parent / f"{name}_RGB.txt"
            odd = set(tiles.tiles[members]) ^ set(_read_names(path) if path.is_file() else [])
            yield made.problem(f"{known} another {name}: {format_all(odd)} differ")
        elif "points" in new and new["points"]["sha256"] != entry["points"]["sha256"]:
            yield made.problem(f"{known} other points of {name}")
        elif differing := [key for key in new if new[key] != entry.get(key)]:
            yield made.problem(f"says other {', '.join(differing)} of {name} than follow from its list and the index")


def _read_all_points(
    folder: Path, listed: dict[str, list[str]], tiles: TileIndex
) -> tuple[dict[str, Points], list[Problem]]:
    """The points of the lists that need some, and what is wrong with files that cannot be used."""
    found: dict[str, Points] = {}
    problems: list[Problem] = []
    for name in filter(points_per_class, listed):
        try:
            found[name] = read_points(points_file(folder, name), tiles)
        except InputError as error:
            problems += error.problems
    return found, problems


def _unpaired(folder: Path, names: list[str]) -> list[Problem]:
    """Lists whose three files differ."""
    problems = []
    for name in names:
        paths = [path for word in list_names(name) if (path := folder / word).is_file()]
        if len({path.read_bytes() for path in paths}) < 2:
            continue
        tiles = [_read_names(path) for path in paths]
        counted = [Counter(some) for some in tiles]
        odd = {tile for tile in set().union(*counted) if len({one[tile] for one in counted}) > 1}
        if not odd:  # the same tiles in another order
            odd = {tile for row in zip(*tiles, strict=True) if len(set(row)) > 1 for tile in row}
        if odd:
            what = f"its three lists are not paired: {format_all(odd)}"
            problems.append(Problem(str(folder / f"{name}_*.txt"), what, REMEDY))
    return problems


def _unknown_tiles(folder: Path, listed: dict[str, list[str]], members: dict[str, IntArray]) -> list[Problem]:
    unknown = {name: [listed[name][i] for i in np.flatnonzero(at < 0)] for name, at in members.items()}
    return [
        Problem(
            str(folder / f"{name}_RGB.txt"), f"names tiles that the index does not have: {format_all(some)}", REMEDY
        )
        for name, some in unknown.items()
        if some
    ]


def _unknown_files(made: _Manifest) -> Iterator[Problem]:
    """Lists that are missing, or that the manifest does not have."""
    folder, found = made.path.parent, {path.name for path in find_lists(made.path.parent)}
    expected = {file for name in made.lists for file in list_names(name)}
    if expected - found:
        yield Problem(str(folder), f"lacks lists: {format_names(expected - found)}", REMEDY)
    known = expected | {points_file(folder, name).name for name in filter(points_per_class, made.lists)}
    if found - known:
        what = f"has lists that the manifest does not know: {format_names(found - known)}"
        yield Problem(str(folder), what, "Remove them, or make the splits again.")
    budgets = [Budget("R", f) for f in made.config.fractions] + [Budget("P", n) for n in made.config.points]
    wanted = ["train", *(one.subset(draw) for draw in range(1, made.config.subsets + 1) for one in budgets)]
    if absent := [name for name in wanted if name not in made.lists]:
        yield made.problem(f"has no list {', '.join(absent)}, which its config needs")


def _edited(made: _Manifest, listed: dict[str, list[str]], points: dict[str, Points]) -> Iterator[Problem]:
    """Lists and points that do not have the hash in the manifest."""
    folder = made.path.parent
    for name, entry in made.lists.items():
        hashes = {}
        if name in listed:
            hashes[folder / f"{name}_{KINDS['optical']}.txt"] = bytes_digest(list_text(listed[name])), entry["sha256"]
        if name in points:
            path = points_file(folder, name)
            hashes[path] = bytes_digest(path.read_bytes()), entry["points"]["sha256"]
        for path, (found, recorded) in hashes.items():
            if found != recorded:
                what = "was edited by hand: its hash is not the one in the manifest"
                yield Problem(str(path), what, "Make the splits again, or restore the file.")


def _read_names(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
