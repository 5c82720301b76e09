"""Verify splits: recompute what their manifest vouches for, and say what changed and why."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

import tmcnet
from tmcnet.config import Budget, SplitsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.splits import prints
from tmcnet.splits.checks import ANEW, Lists, chains_by_name, count, positions, problems_of
from tmcnet.splits.groups import in_pixels
from tmcnet.splits.index import IntArray, TileIndex, index_sha256, read_index
from tmcnet.splits.lists import KINDS, format_names
from tmcnet.splits.points import Points, file_of, points_of_each_class, points_text, read_points
from tmcnet.splits.record import VERSION, list_entry, list_files, list_text
from tmcnet.splits.splits import draw


@dataclass(frozen=True)
class _Made:
    """A manifest that can be used, and the config in it."""

    manifest: dict[str, Any]
    config: SplitsConfig

    @classmethod
    def read(cls, folder: Path) -> _Made:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        config = SplitsConfig.model_validate(manifest["config"])
        if manifest["version"] != VERSION:
            raise ValueError(f"version {manifest['version']}")
        for name, entry in manifest["lists"].items():
            str(entry["sha256"])
            if points_of_each_class(name):
                str(entry["points"]["sha256"])
        list(manifest["dropped"])
        return cls(manifest, config)

    @property
    def chains(self) -> list[list[str]]:
        """Lists that have to be nested."""
        draws = range(1, self.config.subsets + 1)
        shares = [Budget("R", fraction) for fraction in self.config.fractions]
        points = [Budget("P", n) for n in self.config.points]
        return [[*(one.subset(draw) for one in some), "train"] for some in (shares, points) for draw in draws]

    @property
    def given(self) -> set[str]:
        """Label fractions that the source gives."""
        return {name for name, entry in self.manifest["lists"].items() if entry.get("given")}


def verify(folder: Path, index: Path, config: SplitsConfig | None = None) -> list[Problem]:
    """Check splits against their manifest and the tile index.

    Lists without a manifest, or with one that cannot be used, are checked as well for what must hold for any lists.

    Args:
        folder: Folder of the lists and `manifest.json`.
        index: `tiles/index.csv`.
        config: The section `splits` as it stands now; None: not compared.

    Returns:
        Everything that is wrong: data, config or software that changed since, and how; lists edited by hand; tiles in
        two parts, in none, or doubled; label fractions or points that are not nested; parts that share pixels.
    """
    problems = []
    made = None
    try:
        made = _Made.read(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        problems.append(Problem(str(folder / "manifest.json"), f"cannot be used ({error})", ANEW))
    try:
        tiles = read_index(index, made.config if made else SplitsConfig())
    except InputError as error:
        return problems + error.problems
    changed = _changed(made, tiles, index, config, folder) if made else []
    names = sorted({path.name.rsplit("_", 1)[0] for path in list_files(folder)})
    listed = {n: _names(folder / f"{n}_RGB.txt") for n in names if (folder / f"{n}_RGB.txt").is_file()}
    known = pd.Index(tiles.tiles)  # made once: at a million tiles it takes a second
    found = {name: positions(known, some) for name, some in listed.items()}
    problems += _unpaired(folder, names) + _strangers(folder, listed, found)
    members = {name: some[some >= 0] for name, some in found.items()}
    points, damaged = _points(folder, listed, tiles)
    problems += damaged
    dropped = positions(known, made.manifest["dropped"] if made else [])
    lists = Lists(folder, tiles, members, dropped[dropped >= 0], made.config.guard if made else 0, points)
    if made is None:
        return problems + problems_of(lists, chains_by_name(listed), set())
    problems = changed + problems
    problems += _unknown_files(folder, made) + _contents(made, lists, listed)
    return problems + problems_of(lists, made.chains, made.given)


def _changed(made: _Made, tiles: TileIndex, index: Path, config: SplitsConfig | None, folder: Path) -> list[Problem]:
    """What differs from when the splits were made: data, config, software."""
    problems = []
    same_data = made.manifest.get("index_sha256") == index_sha256(index)
    if not same_data:
        what = f"the data changed: {_data_changes(folder, tiles, index)}"
        problems.append(Problem(str(index), what, ANEW))
    problems += _config_changes(made, config, tiles, index, folder)
    version = made.manifest.get("software_version")
    if version != tmcnet.__version__:
        what = f"the code changed: made by version {version}, this is {tmcnet.__version__}"
        problems.append(
            Problem(str(folder / "manifest.json"), what, "Make the splits anew, or go back to that version.")
        )
    return problems + (_made_anew(made, tiles, index, folder) if same_data else [])


def _data_changes(folder: Path, tiles: TileIndex, index: Path) -> str:
    then = prints.read(folder)
    if then is None:
        return f"it is not the index that the splits were made from; without {prints.FILE} no more is known"
    return prints.differences(then, tiles, index)


def _config_changes(
    made: _Made, config: SplitsConfig | None, tiles: TileIndex, index: Path, folder: Path
) -> list[Problem]:
    if config is None:
        return []
    try:
        now = in_pixels(config, tiles, str(index)).model_dump(mode="json")
    except InputError as error:
        return error.problems
    then = made.config.model_dump(mode="json")
    keys = ", ".join(f"`splits.{k}` was {then[k]!r}, is {now[k]!r}" for k in now if now[k] != then[k])
    if not keys:
        return []
    what = f"the config changed: {keys}"
    return [Problem(str(folder / "manifest.json"), what, "Make the splits anew, or set the keys back.")]


def _made_anew(made: _Made, tiles: TileIndex, index: Path, folder: Path) -> list[Problem]:
    """Lists that come out otherwise from the same data and config: the code changed, or the manifest did."""
    try:
        splits = draw(tiles, made.config, str(index))
    except InputError as error:
        return error.problems
    members, where = splits.members, str(folder / "manifest.json")
    known = "the code or the manifest changed: same data and config now give"
    problems = []
    for name, entry in made.manifest["lists"].items():
        anew = tiles.tiles[members[name]] if name in members else np.empty(0, object)
        if _sha256(list_text(anew)) != entry["sha256"]:
            there = folder / f"{name}_RGB.txt"
            odd = set(anew.tolist()) ^ set(_names(there) if there.is_file() else [])
            problems.append(Problem(where, f"{known} another {name}: {count(odd)} differ", ANEW))
        elif name in splits.points and _sha256(points_text(splits.points[name], tiles)) != entry["points"]["sha256"]:
            problems.append(Problem(where, f"{known} other points of {name}", ANEW))
    return problems


def _points(folder: Path, listed: dict[str, list[str]], tiles: TileIndex) -> tuple[dict[str, Points], list[Problem]]:
    """The points of the lists that need some, and what is wrong with files that cannot be used."""
    found: dict[str, Points] = {}
    problems = []
    for name in filter(points_of_each_class, listed):
        try:
            found[name] = read_points(file_of(folder, name), tiles)
        except InputError as error:
            problems += error.problems
    return found, problems


def _unpaired(folder: Path, names: list[str]) -> list[Problem]:
    """Lists whose three files differ."""
    problems = []
    for name in names:
        paths = [folder / f"{name}_{word}.txt" for word in KINDS.values()]
        if len({path.read_bytes() for path in paths if path.is_file()}) < 2:
            continue
        tiles = [_names(path) for path in paths if path.is_file()]
        counted = [Counter(some) for some in tiles]
        odd = {tile for tile in set().union(*counted) if len({one[tile] for one in counted}) > 1}
        if not odd:
            odd = {tile for row in zip(*tiles, strict=True) if len(set(row)) > 1 for tile in row}
        if odd:
            what = f"its three lists are not paired: {count(odd)}"
            problems.append(Problem(str(folder / f"{name}_*.txt"), what, ANEW))
    return problems


def _strangers(folder: Path, listed: dict[str, list[str]], found: dict[str, IntArray]) -> list[Problem]:
    problems = []
    for name, some in listed.items():
        strangers = [some[place] for place in np.flatnonzero(found[name] < 0)]
        if strangers:
            what = f"names tiles that the index does not have: {count(strangers)}"
            problems.append(Problem(str(folder / f"{name}_RGB.txt"), what, ANEW))
    return problems


def _unknown_files(folder: Path, made: _Made) -> list[Problem]:
    """Lists that are missing, or that nobody vouches for."""
    problems = []
    names = made.manifest["lists"]
    expected = {f"{name}_{word}.txt" for name in names for word in KINDS.values()}
    found = {path.name for path in list_files(folder)}
    if expected - found:
        problems.append(Problem(str(folder), f"lacks lists: {format_names(expected - found)}", ANEW))
    known = expected | {file_of(folder, name).name for name in filter(points_of_each_class, names)}
    if found - known:
        what = f"has lists that the manifest does not know: {format_names(found - known)}"
        problems.append(Problem(str(folder), what, "Remove them, or make the splits anew."))
    absent = dict.fromkeys(name for chain in made.chains for name in chain if name not in names)
    if absent:
        what = f"has no list {', '.join(absent)}, which its config asks for"
        problems.append(Problem(str(folder / "manifest.json"), what, ANEW))
    return problems


def _contents(made: _Made, lists: Lists, listed: dict[str, list[str]]) -> list[Problem]:
    """Lists edited by hand, and figures that do not follow from the lists."""
    problems = []
    for name, recorded in made.manifest["lists"].items():
        points = lists.points.get(name)
        if name not in listed or (points is None and points_of_each_class(name)):
            continue
        text = list_text(np.array(listed[name], dtype=object))
        if _sha256(text) != recorded["sha256"]:
            problems.append(_edited(lists.where(name)))
            continue
        if points and _sha256(file_of(lists.folder, name).read_bytes()) != recorded["points"]["sha256"]:
            problems.append(_edited(str(file_of(lists.folder, name))))
            continue
        found = list_entry(lists.index, lists.members[name], bool(recorded.get("given")), points)
        differ = [key for key in found if key != "sha256" and found[key] != recorded.get(key)]
        if differ:
            what = f"says other {', '.join(differ)} of {name} than follow from its list and the index"
            problems.append(Problem(str(lists.folder / "manifest.json"), what, ANEW))
    return problems


def _edited(where: str) -> Problem:
    what = "was edited by hand: its hash is not the one in the manifest"
    return Problem(where, what, "Make the splits anew, or restore the file.")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _names(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
