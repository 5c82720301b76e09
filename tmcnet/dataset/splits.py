"""Write the lists of parts and label fractions, and the manifest that vouches for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tmcnet.config import SplitsConfig, fraction_name, subset_name
from tmcnet.dataset.fractions import draw_fractions
from tmcnet.dataset.index import BoolArray, IntArray, TileIndex, index_sha256, read_index
from tmcnet.dataset.layout import KINDS, PARTS, tell
from tmcnet.dataset.parts import DROPPED, TRAIN, Division, divide, drawn_lists
from tmcnet.dataset.record import build, list_files, list_text, write
from tmcnet.errors import InputError, Problem


@dataclass(frozen=True)
class _Lists:
    """Positions of tiles by list name; which lists the source gives; warnings."""

    members: dict[str, IntArray]
    given: list[str]
    warnings: list[str]


def make_splits(index: Path, config: SplitsConfig, folder: Path) -> None:
    """Divide tiles into parts and label fractions, and write their lists and the manifest.

    Reads the index alone. The same index and config give the same files, byte for byte, whatever the order of rows.
    Lists left in the folder by earlier splits are removed.

    Args:
        index: `tiles/index.csv`.
        config: The section `splits`.
        folder: Where the lists `train_RGB.txt`, ... and `manifest.json` go.

    Raises:
        InputError: If the index is wrong or no such division exists.
    """
    tiles = read_index(index, config)
    division = divide(tiles, config, str(index))
    lists = _label_lists(tiles, division, config, index)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in list_files(folder):
        stale.unlink()
    for name, members in lists.members.items():
        text = list_text(tiles.tiles[members])
        for word in KINDS.values():
            (folder / f"{name}_{word}.txt").write_bytes(text)
    manifest = build(tiles, division, config, index_sha256(index), lists.members, lists.given)
    manifest["warnings"] = _absent(manifest) + lists.warnings
    write(folder, manifest)


def _label_lists(tiles: TileIndex, division: Division, config: SplitsConfig, index: Path) -> _Lists:
    members = {name: np.flatnonzero(division.part == p) for p, name in enumerate(PARTS)}
    labelled = np.flatnonzero((division.part == TRAIN) & tiles.labelled)
    given, warnings = _given_fractions(tiles, division, config, index)
    subsets, more = draw_fractions(tiles.area[labelled], config, {n: mask[labelled] for n, mask in given.items()})
    members.update({name: labelled[positions] for name, positions in subsets.items()})
    return _Lists(members, sorted(given), warnings + more)


def _given_fractions(
    tiles: TileIndex, division: Division, config: SplitsConfig, index: Path
) -> tuple[dict[str, BoolArray], list[str]]:
    """Membership (N) of the label fractions that the source gives, by list name, and warnings.

    Raises:
        InputError: If a given fraction has tiles of another part.
    """
    if tiles.subsets is None:
        return {}, []
    of_name: dict[str, list[int]] = {}
    for position in np.flatnonzero(tiles.subsets != ""):
        for subset in dict.fromkeys(str(tiles.subsets[position]).split(";")):
            of_name.setdefault(f"train{subset.strip()}", []).append(int(position))
    given: dict[str, BoolArray] = {}
    problems, warnings = [], []
    for name in drawn_lists(config):
        if name not in of_name:
            continue
        mask = np.zeros(len(tiles.tiles), bool)
        mask[of_name[name]] = True
        strangers = mask & (division.part != TRAIN) & (division.part != DROPPED)
        if strangers.any():
            what = f"label fraction {name} has tiles that are not in train: {tell(tiles.tiles[strangers])}"
            remedy = "Mend the source's lists, or set `splits.given_fractions` to false."
            problems.append(Problem(str(index), what, remedy))
        useless = mask & ~strangers & ((division.part == DROPPED) | ~tiles.labelled)
        if useless.any():
            warnings.append(f"{name} lost tiles without labels or dropped: {tell(tiles.tiles[useless])}.")
        given[name] = mask & ~useless
    if problems:
        raise InputError(problems)
    unknown = [fraction_name(f) for f in config.fractions if f < 100 and subset_name(f, 1) not in given]
    if unknown:
        warnings.append(f"The source gives no label fractions {', '.join(unknown)}; they are drawn.")
    return given, warnings


def _absent(manifest: dict[str, Any]) -> list[str]:
    """A sentence for each list that lacks classes."""
    return [
        f"{name} has no pixel of {', '.join(absent)}."
        for name, entry in manifest["lists"].items()
        if (absent := [label for label, share in entry["class_shares"].items() if share == 0])
    ]
