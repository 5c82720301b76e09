"""Groups of test tiles, such as those with clouds, that are scored apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tmcnet.config.results import TileGroup
from tmcnet.raster.io.files import FloatArray
from tmcnet.raster.io.reader import read_float
from tmcnet.raster.io.writer import write_bytes
from tmcnet.raster.tiling.unchanged import require_unchanged
from tmcnet.splits.files import verified_list
from tmcnet.store import TileStore


def group_tiles(
    tiles_root: Path,
    splits: Iterable[Path],
    groups: Mapping[str, TileGroup],
    bands: Mapping[str, Sequence[str]],
    out: Path,
) -> None:
    """Write the test tiles of each group as JSON: `{group: [tile, ...]}`.

    Args:
        tiles_root: Folder of the tiles.
        splits: Folders of the splits, one a fold, whose test tiles are looked at.
        groups: The groups by name.
        bands: Bands of each modality in file order.
        out: The file to write.

    Raises:
        InputError: If a list was changed, or a tile was changed or cannot be read.
    """
    store = TileStore(tiles_root)
    names = dict.fromkeys(name for folder in splits for name in verified_list(folder, "test"))
    found: dict[str, list[str]] = {group: [] for group in groups}
    for name in names:
        require_unchanged(store, name, list(bands))
        images: dict[str, FloatArray] = {}
        for group, wanted in groups.items():
            if wanted.modality not in images:
                images[wanted.modality] = read_float(store.path(wanted.modality, name), store.window(name))
            if covered_share(images[wanted.modality], bands[wanted.modality], wanted) > wanted.share:
                found[group].append(name)
    write_bytes(out, (json.dumps(found, indent=1) + "\n").encode())


def covered_share(image: FloatArray, bands: Sequence[str], group: TileGroup) -> float:
    """Share of the pixels of an image (C x H x W, NaN for no data) above all values of a group, or without data."""
    covered = np.isnan(image).all(axis=0)
    if group.above:
        covered |= np.all([image[bands.index(band)] > value for band, value in group.above.items()], axis=0)
    return float(covered.mean())
