"""Verify splits: recompute what their manifest vouches for, and say what changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

import tmcnet
from tmcnet.config import SplitsConfig, subset_name
from tmcnet.dataset.groups import close_pairs
from tmcnet.dataset.index import IntArray, TileIndex, index_sha256, read_index
from tmcnet.dataset.layout import KINDS, PARTS, SHOWN, tell
from tmcnet.dataset.record import VERSION, list_entry, list_files
from tmcnet.errors import InputError, Problem

_ANEW = "Make the splits anew."


@dataclass(frozen=True)
class _Case:
    """What is verified: the manifest, the config in it, the index, and the names in each list."""

    folder: Path
    manifest: dict[str, Any]
    config: SplitsConfig
    index: TileIndex
    lists: dict[str, list[str]]

    def where(self, name: str) -> str:
        return str(self.folder / f"{name}_RGB.txt")


def verify(folder: Path, index: Path, config: SplitsConfig | None = None) -> list[Problem]:
    """Check splits against their manifest and the tile index.

    Args:
        folder: Folder of the lists and `manifest.json`.
        index: `tiles/index.csv`.
        config: The section `splits` as it stands now; None: not compared.

    Returns:
        Everything that is wrong: data, config or software that changed since; lists edited by hand; tiles in two
        parts, in none, or doubled; label fractions that are not nested; parts that share pixels.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        made_with = SplitsConfig.model_validate(manifest["config"])
        if manifest["version"] != VERSION:
            raise ValueError(f"version {manifest['version']}")
        recorded = {name: entry["sha256"] for name, entry in manifest["lists"].items()}
        tiles = read_index(index, made_with)
    except InputError as error:
        return error.problems
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        return [Problem(str(folder / "manifest.json"), f"cannot be used ({error})", _ANEW)]
    problems = _changed(manifest, made_with, index, config, folder)
    problems += _files(folder, list(recorded))
    lists = {name: _names(folder / f"{name}_RGB.txt") for name in recorded if (folder / f"{name}_RGB.txt").is_file()}
    case = _Case(folder, manifest, made_with, tiles, lists)
    return problems + _contents(case) + _parts(case) + _fractions(case) + _shared_pixels(case)


def _changed(
    manifest: dict[str, Any], made_with: SplitsConfig, index: Path, config: SplitsConfig | None, folder: Path
) -> list[Problem]:
    """What differs from when the splits were made: data, config, software."""
    where = str(folder / "manifest.json")
    problems = []
    if manifest.get("index_sha256") != index_sha256(index):
        what = "the data changed: it is not the index that the splits were made from"
        problems.append(Problem(str(index), what, _ANEW))
    if config is not None and config != made_with:
        now, then = config.model_dump(mode="json"), made_with.model_dump(mode="json")
        keys = ", ".join(f"`splits.{k}` was {then[k]!r}, is {now[k]!r}" for k in now if now[k] != then[k])
        problems.append(Problem(where, f"the config changed: {keys}", "Make the splits anew, or set the keys back."))
    version = manifest.get("software_version")
    if version != tmcnet.__version__:
        what = f"the code changed: made by version {version}, this is {tmcnet.__version__}"
        problems.append(Problem(where, what, "Make the splits anew, or go back to that version."))
    return problems


def _files(folder: Path, names: list[str]) -> list[Problem]:
    """Lists that are missing, that nobody vouches for, or whose three files differ."""
    problems = []
    expected = {f"{name}_{word}.txt" for name in names for word in KINDS.values()}
    found = {path.name for path in list_files(folder)}
    if expected - found:
        problems.append(Problem(str(folder), f"lacks lists: {tell(expected - found)}", _ANEW))
    if found - expected:
        what = f"has lists that the manifest does not know: {tell(found - expected)}"
        problems.append(Problem(str(folder), what, "Remove them, or make the splits anew."))
    for name in names:
        paths = [folder / f"{name}_{word}.txt" for word in KINDS.values()]
        if len({path.read_bytes() for path in paths if path.is_file()}) < 2:
            continue
        tiles = [set(_names(path)) for path in paths if path.is_file()]
        odd = set[str]().union(*tiles) - tiles[0].intersection(*tiles[1:])
        if odd:
            what = f"its three lists are not paired: {_count(odd)}"
            problems.append(Problem(str(folder / f"{name}_*.txt"), what, _ANEW))
    return problems


def _contents(case: _Case) -> list[Problem]:
    """Lists edited by hand, doubled or unknown tiles, figures that do not follow from the lists."""
    problems = []
    known = {tile: i for i, tile in enumerate(case.index.tiles)}
    for name, tiles in case.lists.items():
        strangers = [tile for tile in tiles if tile not in known]
        doubled = {tile for tile, other in zip(sorted(tiles)[1:], sorted(tiles), strict=False) if tile == other}
        if strangers:
            what = f"names tiles that the index does not have: {_count(strangers)}"
            problems.append(Problem(case.where(name), what, _ANEW))
        if doubled:
            problems.append(Problem(case.where(name), f"names tiles twice: {_count(doubled)}", _ANEW))
        members = np.array([known[tile] for tile in tiles if tile in known], np.int64)
        recorded = case.manifest["lists"][name]
        found = list_entry(case.index, members, bool(recorded.get("given")))
        if strangers or doubled or found["sha256"] != recorded["sha256"]:
            what = "was edited by hand: its hash is not the one in the manifest"
            problems.append(Problem(case.where(name), what, "Make the splits anew, or restore the file."))
        elif found != recorded:
            differ = [key for key in found if found[key] != recorded.get(key)]
            what = f"says other {', '.join(differ)} of {name} than follow from its list and the index"
            problems.append(Problem(str(case.folder / "manifest.json"), what, _ANEW))
    return problems


def _parts(case: _Case) -> list[Problem]:
    """Tiles in two parts, in no part though not dropped, or without labels where labels are needed."""
    problems = []
    where = str(case.folder)
    parts = {name: set(case.lists.get(name, [])) for name in PARTS} | {"dropped": set(case.manifest["dropped"])}
    names = list(parts)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            both = parts[one] & parts[other]
            if both:
                problems.append(Problem(where, f"tiles are in {one} and in {other}: {_count(both)}", _ANEW))
    lost = set(case.index.tiles) - set().union(*parts.values())
    if lost:
        problems.append(Problem(where, f"tiles are in no part and not among the dropped: {_count(lost)}", _ANEW))
    unlabelled = set(case.index.tiles[~case.index.labelled])
    for name, tiles in case.lists.items():
        blind = set(tiles) & unlabelled
        if name != "train" and blind:
            problems.append(Problem(case.where(name), f"names tiles without labels: {_count(blind)}", _ANEW))
    return problems


def _fractions(case: _Case) -> list[Problem]:
    """Label fractions that leave the training part or do not contain the smaller ones."""
    problems = []
    given = {name for name, entry in case.manifest["lists"].items() if entry.get("given")}
    for draw in range(1, case.config.subsets + 1):
        chain = [subset_name(f, draw) for f in case.config.fractions] + ["train"]
        absent = [name for name in chain if name not in case.manifest["lists"]]
        if absent:
            what = f"has no list {', '.join(absent)}, which its config asks for"
            problems.append(Problem(str(case.folder / "manifest.json"), what, _ANEW))
        chain = [name for name in chain if name in case.lists]
        for i, small in enumerate(chain):
            for large in chain[i + 1 :]:
                outside = set(case.lists[small]) - set(case.lists[large])
                # fractions that the source gives may be independent draws; the manifest warns of it
                if outside and not {small, large} <= given:
                    what = f"is not nested in {large}: {_count(outside)}"
                    problems.append(Problem(case.where(small), what, _ANEW))
    return problems


def _shared_pixels(case: _Case) -> list[Problem]:
    """Tiles of different parts that overlap, or are closer than the guard band."""
    of = {tile: p for p, name in enumerate(PARTS) for tile in case.lists.get(name, [])}
    part = np.array([of.get(tile, -1) for tile in case.index.tiles], np.int64)
    placed = part >= 0
    pairs = close_pairs(case.index, part, case.config.guard)
    pairs = pairs[placed[pairs].all(axis=1)]
    return [
        Problem(
            str(case.folder),
            f"{PARTS[p]} and {PARTS[q]} share pixels or are closer than {case.config.guard} pixels: "
            f"{_pairs(case.index, chosen)}",
            _ANEW,
        )
        for p in range(len(PARTS))
        for q in range(p + 1, len(PARTS))
        if len(chosen := pairs[(np.sort(part[pairs], axis=1) == [p, q]).all(axis=1)])
    ]


def _pairs(index: TileIndex, pairs: IntArray) -> str:
    shown = ", ".join(f"{index.tiles[a]} with {index.tiles[b]}" for a, b in pairs[:SHOWN])
    return f"{shown} ({len(pairs)} pairs)"


def _count(tiles: Iterable[str]) -> str:
    known = sorted(set(tiles))
    return f"{tell(known)} ({len(known)} in all)"


def _names(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
