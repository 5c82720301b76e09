"""Tiles as tensors, read once and kept in memory within a budget."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.reader import read_float, read_labels
from tmcnet.raster.tiling.unchanged import require_unchanged
from tmcnet.splits.files import TilePoints, keep_points
from tmcnet.store import TileStore


class Tile(NamedTuple):
    """One tile.

    Attributes:
        name: Name of the tile.
        images: C x H x W float32 of each modality, normalised; 0 where there is no data.
        label: H x W int64 class ids with 255 for void, or None. With sparse labels, all but the points are void.
    """

    name: str
    images: dict[str, Tensor]
    label: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = next(iter(self.images.values())).shape[-2:]
        return height, width

    @property
    def truth(self) -> Tensor:
        """The label.

        Raises:
            ValueError: If the tile was read without it.
        """
        if self.label is None:
            raise ValueError(f"tile {self.name} was read without its label")
        return self.label

    @property
    def nbytes(self) -> int:
        """Memory the tensors take."""
        return sum(t.nbytes for t in (*self.images.values(), self.label) if t is not None)


class TileDataset(Dataset[Tile]):
    """The tiles of a list, in its order.

    Files are open only while a tile is read, so no open handle is passed to a worker process.

    Args:
        store: The folder of tiles.
        names: Tile names.
        normalisation: Band statistics of the training tiles; its modalities are read.
        with_labels: Read labels as well.
        cache_gib: Memory for tiles kept after the first read, in GiB, of all workers of a loader together; tiles
            beyond it are read again each time.
        points: Labelled points of each tile, whose labels are void elsewhere; None: labels are dense.

    Raises:
        InputError: If the list is empty or names tiles whose files are missing; later, if a tile cannot be read or
            was changed since it was cut.
    """

    def __init__(
        self,
        store: TileStore,
        names: list[str],
        normalisation: Normalisation,
        with_labels: bool,
        cache_gib: float,
        points: TilePoints | None = None,
    ) -> None:
        kinds = (*normalisation, *(["label"] if with_labels else []))
        remedy = "Run the tiling again."
        if names and store.window(names[0]):
            remedy = "Run `snakemake alignment`: virtual tiles are read from the aligned scenes."
        problems = [Problem(str(path), "the file does not exist", remedy) for path in store.missing(kinds, names)]
        if not names:
            problems = [Problem(str(store.root), "the list of tiles is empty", "Check the splits.")]
        if problems:
            raise InputError(problems)
        self.store, self.names, self.with_labels = store, list(names), with_labels
        self.normalisation, self.points = normalisation, points
        self._budget, self._cached = int(cache_gib * 2**30), 0
        self._cache: dict[int, Tile] = {}
        self._checked: set[str] = set()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tile:
        if index in self._cache:
            return self._cache[index]
        tile = self._read(index)
        worker = get_worker_info()  # several workers share the budget: each has its own cache
        budget = self._budget // worker.num_workers if worker else self._budget
        if self._cached + tile.nbytes <= budget:
            self._cache[index] = tile
            self._cached += tile.nbytes
        return tile

    def _read(self, index: int) -> Tile:
        name = self.names[index]
        if name not in self._checked:
            require_unchanged(self.store, name, list(self.normalisation))
            self._checked.add(name)
        images = {kind: self._image(kind, name) for kind in self.normalisation}
        label = None
        if self.with_labels:
            ids = read_labels(self.store.path("label", name), self.store.window(name))
            kept = ids if self.points is None else keep_points(ids, self.points[name], name)
            label = torch.from_numpy(kept.astype(np.int64))
        shapes = {image.shape[-2:] for image in (*images.values(), label) if image is not None}
        if len(shapes) > 1:
            sizes = ", ".join(sorted(f"{h} x {w}" for h, w in shapes))
            raise InputError(
                Problem(name, f"its files differ in size ({sizes})", "Cut the tiles again from scenes on one grid.")
            )
        return Tile(name, images, label)

    def _image(self, kind: str, name: str) -> Tensor:
        values = read_float(self.store.path(kind, name), self.store.window(name))
        values = self.normalisation.apply(values, kind)
        return torch.from_numpy(np.ascontiguousarray(values))
