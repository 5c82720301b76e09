"""The lists of the splits and their manifest, as the jobs that use them read them.

Jobs that train or score read a list only if it is as the manifest describes. Nothing here needs pandas, which takes
longer to import than many of these jobs need.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tmcnet.config import IGNORE, Budget, SplitsConfig
from tmcnet.config.splits import PARTS
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.hashing import bytes_digest, file_digest
from tmcnet.raster.inventory.seed_layout import KINDS
from tmcnet.readers import read_columns, read_record, reading

VERSION = 1
"""Version of the format of the manifest."""
REMEDY = "Restore the files, or delete `manifest.json` and run the workflow again; it then makes the splits again."
"""Way out where lists or their manifest are wrong."""
TilePoints: TypeAlias = Mapping[str, npt.NDArray[np.int64]]
"""Points by tile, P x 2: class id and number of the pixel among those of its class."""

_MAX_CRS = 20  # characters; longer ones, in WKT, are hashed in the names of blocks
_LIST_FILE = re.compile(r"^(train|val|test)\S*_(RGB|SAR|lbl)\.txt$|^train\S*_points\.csv$")


def list_names(name: str) -> list[str]:
    """Names of the three files of a list such as `trainR5`."""
    return [f"{name}_{word}.txt" for word in KINDS.values()]


def find_lists(folder: Path) -> list[Path]:
    """All list files of a folder and their files of points, sorted."""
    return sorted(path for path in folder.glob("*") if _LIST_FILE.match(path.name))


def read_list(path: Path | str) -> list[str]:
    """Tile names of a list file, one per line, in file order.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise InputError(Problem(str(path), what, "Restore it, or delete `manifest.json` and run again.")) from error
    return [line.strip() for line in lines if line.strip()]


def points_file(folder: Path, name: str) -> Path:
    """The file of the points of a list such as `trainP10`."""
    return folder / f"{name}_points.csv"


def points_per_class(name: str) -> int | None:
    """Number of labelled pixels of each class in a list, from its name; None for lists of whole tiles."""
    subset = Budget.parse_subset(name)
    return subset[0].points if subset else None


def format_all(tiles: Iterable[str]) -> str:
    """The first tiles by name, and how many there are."""
    names = set(tiles)
    return f"{format_names(names)} ({len(names)} in all)"


def keep_points(label: npt.NDArray[np.uint8], points: npt.NDArray[np.int64], tile: str) -> npt.NDArray[np.uint8]:
    """A label with everything void but its points.

    The label is H x W class ids, the points are P x 2: class id and number of the pixel among those of its class. The
    index has shares of six digits. In tiles of a million pixels and more they may imply a pixel too many, so a point
    past the last pixel of its class takes the last one, which may be a point already.

    Raises:
        InputError: If the tile has no pixel of a class.
    """
    sparse = np.full_like(label, IGNORE)
    for class_id in np.unique(points[:, 0]):
        pixels = np.flatnonzero(label == class_id)
        if not len(pixels):
            what = f"its label has no pixel of class id {class_id}, but should hold points of it"
            raise InputError(Problem(tile, what, "Run the tiling stage again, then the splits."))
        chosen = points[points[:, 0] == class_id, 1]
        sparse.ravel()[pixels[np.minimum(chosen, len(pixels) - 1)]] = class_id
    return sparse


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json`.

    Raises:
        InputError: If it is missing, damaged or of another version, or lacks what a check of the lists needs.
    """
    path = folder / "manifest.json"
    manifest = read_record(path, REMEDY)
    with reading(path, REMEDY):
        if manifest["version"] != VERSION:
            raise ValueError(f"version {manifest['version']}")
        SplitsConfig.model_validate(manifest["config"])
        for name, entry in manifest["lists"].items():
            str(entry["sha256"])
            if points_per_class(name):
                str(entry["points"]["sha256"])
        list(manifest["dropped"])
    return manifest


def verified_list(splits: Path, name: str) -> list[str]:
    """Read a list of tiles for a job, which must not start with a list that changed since the splits were made.

    The list, its points and the lists of all parts have the hashes that are in the manifest; no tile is named twice,
    is in another part, or dropped. So no ground of the test part gets into training.

    Args:
        splits: Folder of the lists and `manifest.json`.
        name: Name of the list, such as `train` or `trainR5`.

    Returns:
        Names of the tiles, in file order.

    Raises:
        InputError: If a file is missing or damaged, or the list is not as described.

    Example:
        >>> tiles = verified_list(Path("results/splits"), "trainR5")
    """
    manifest = read_manifest(splits)
    files = {one: splits / list_names(one)[0] for one in (name, *PARTS)}
    lists = {one: read_list(path) for one, path in files.items()}
    part = name if name in PARTS else "train"
    others = {f"of {one}": lists[one] for one in PARTS if one != part} | {"that are in no part": manifest["dropped"]}
    doubled = {tile for tile, n in Counter(lists[name]).items() if n > 1}
    wrong = {"twice": doubled, **{words: set(lists[name]) & set(tiles) for words, tiles in others.items()}}
    problems = [
        Problem(str(files[name]), f"names tiles {words}: {format_all(tiles)}", REMEDY)
        for words, tiles in wrong.items()
        if tiles
    ]
    for one, path in files.items() if not problems else ():
        problems += check_hashes(splits, one, manifest, [path.name])
    if problems:
        raise InputError(problems)
    return lists[name]


def verified_manifest(splits: Path) -> str:
    """Check that the lists of a folder are those that its manifest describes; return the SHA-256 of `manifest.json`.

    Raises:
        InputError: If the manifest cannot be read, or a list is missing, unknown or changed.
    """
    problems = list(check_list_files(splits, read_manifest(splits)))
    if problems:
        raise InputError(problems)
    return file_digest(splits / "manifest.json")


def check_list_files(folder: Path, manifest: dict[str, Any]) -> Iterator[Problem]:
    """Files that are missing, that the manifest does not have, or whose hash is not the one in the manifest."""
    lists = manifest["lists"]
    expected = {file for name in lists for file in list_names(name)}
    described = expected | {points_file(folder, name).name for name in lists if points_per_class(name)}
    present = {path.name for path in find_lists(folder)}
    if lost := expected - present:
        yield Problem(str(folder), f"lacks lists: {format_names(lost)}", REMEDY)
    if unknown := present - described:
        what = f"has lists that the manifest does not know: {format_names(unknown)}"
        yield Problem(str(folder), what, "Remove them, or make the splits again.")
    for name in lists:
        yield from check_hashes(folder, name, manifest, list_names(name))


def check_hashes(folder: Path, name: str, manifest: dict[str, Any], files: list[str]) -> Iterator[Problem]:
    """Files of a list, and its points, whose hash is not the one in the manifest."""
    entry = manifest["lists"].get(name)
    if entry is None:
        yield Problem(str(folder / list_names(name)[0]), "is not in `manifest.json`", REMEDY)
        return
    expected = {folder / file: entry["sha256"] for file in files}
    if points_per_class(name):
        expected[points_file(folder, name)] = entry["points"]["sha256"]
    for path, digest in expected.items():
        if path.is_file() and file_digest(path) != digest:
            yield Problem(str(path), "was edited by hand: its hash is not the one in the manifest", REMEDY)


def read_tile_blocks(index: Path, manifest: Path) -> dict[str, str]:
    """The spatial block of each tile of the index: the one that contains its centre; blocks begin at pixel 0.

    A ready-made tile with a CRS is in a block on the ground, as in `group_tiles`; without one it is a block.
    """
    with reading(manifest):
        size = int(read_record(manifest)["config"]["block_size"])
    blocks: dict[str, str] = {}
    columns, ground = ("tile", "scene", "row", "col", "height", "width"), ("x", "y", "pixel_x", "pixel_y")
    with reading(index):
        for tile, scene, *window, crs, x, y, pixel_x, pixel_y in read_columns(index, columns, ("crs", *ground)):
            first_row, first_col, height, width = map(int, window)
            place, row, col = scene, first_row + height / 2, first_col + width / 2
            if scene in ("", tile) and crs and all((x, y, pixel_x, pixel_y)):
                place = crs if len(crs) < _MAX_CRS else bytes_digest(crs.encode())
                row, col = -float(y) / float(pixel_y), float(x) / float(pixel_x)
            blocks[tile] = f"{place} {row // size:.0f} {col // size:.0f}"
    return blocks


def read_divided(index: Path, manifest: Path) -> dict[str, str] | None:
    """The scene, or the value of a column, of each tile of the index where parts are divided by these; else None."""
    with reading(manifest):
        config = read_record(manifest)["config"]
        column = {"scenes": "scene", "column": f"field_{config.get('column')}"}.get(config.get("method", ""))
    return {row[0]: row[1] for row in read_columns(index, ("tile", column))} if column else None


def require_unlabelled(splits: Path, names: Iterable[str]) -> None:
    """Require that each label list leaves tiles of the training part without labels, which self-training learns from.

    Raises:
        InputError: If one has all tiles of the training part.
    """
    part = set(read_list(splits / list_names("train")[0]))
    full = [name for name in sorted(names) if part <= set(read_list(splits / list_names(name)[0]))]
    if full:
        what = f"{', '.join(full)} has all tiles of the training part, so that self-training has none to label"
        remedy = "Take `self-training` out of `finetune.sweep` for this label fraction, or add scenes without labels."
        raise InputError(Problem(str(splits), what, remedy))
