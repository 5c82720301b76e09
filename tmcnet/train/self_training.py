"""Self-training: tiles without labels are learnt from as a teacher labels them.

Class-balanced self-training (Zou et al., ECCV 2018): of the pixels to which the teacher gives a class, the most
confident ones are used, the same share of each class. A threshold common to all classes would drop the rare ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE
from tmcnet.config.training import SelfTrainingConfig
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.evaluate.metrics import Counts
from tmcnet.evaluate.trained import predict_tiles
from tmcnet.hashing import pixel_digest
from tmcnet.seeding import generator

LEVELS = 1000
"""Steps in which confidences are compared."""


@dataclass(frozen=True)
class PseudoLabels:
    """What a teacher says of tiles.

    Attributes:
        labels: H x W uint8 of each tile: class ids, `IGNORE` where the teacher is not confident enough.
        given: Pixels of each of K classes before the choice of the confident ones.
        kept: Pixels of each class that are used.
        thresholds: Lowest probability that is used, by class; NaN for a class that the teacher never gives.
    """

    labels: list[NDArray[np.uint8]]
    given: Counts
    kept: Counts
    thresholds: NDArray[np.float64]

    @property
    def digest(self) -> str:
        """Hash of the labels."""
        return pixel_digest(*self.labels)

    def summary(self, classes: ClassTable, labelled: Counts) -> dict[str, Any]:
        """Return tiles, thresholds and shares of the classes: among labels, among the teacher's, and those used.

        Shares far from those of the labels show drift: classes that the teacher prefers are given more and more.
        """
        shares = {"labelled": labelled, "given": self.given, "used": self.kept}
        table = {name: counts / max(counts.sum(), 1) for name, counts in shares.items()} | {
            "threshold": self.thresholds
        }
        by_class = {
            name: {
                column: None if np.isnan(values[number]) else float(values[number])
                for column, values in table.items()
            }
            for number, name in enumerate(classes.names)
        }
        used = float(self.kept.sum() / max(self.given.sum(), 1))
        return {"tiles": len(self.labels), "used": used, "classes": by_class}


class TaughtTiles(TileDataset):
    """Labelled tiles, followed by those unlabelled tiles to which a teacher gives labels."""

    def __init__(
        self, tiles: TileDataset, unlabelled: TileDataset, labels: Sequence[NDArray[np.uint8]], cache_gib: float
    ) -> None:
        self.tiles, self.unlabelled, self.labels = tiles, unlabelled, labels
        self.taught = [number for number, label in enumerate(labels) if (label != IGNORE).any()]
        names = [*tiles.names, *(unlabelled.names[number] for number in self.taught)]
        super().__init__(tiles.store, names, tiles.normalisation, tiles.with_labels, cache_gib, tiles.points)

    def _read(self, index: int) -> Tile:
        if index < len(self.tiles):
            return self.tiles[index]
        number = self.taught[index - len(self.tiles)]
        return self.unlabelled[number]._replace(label=torch.from_numpy(self.labels[number].astype(np.int64)))


def choose_unlabelled(
    names: Sequence[str], labelled: Sequence[str], config: SelfTrainingConfig, seed: int
) -> list[str]:
    """Draw tiles for a teacher to label, at most `config.tiles` for each labelled one, in the order of `names`.

    `require_unlabelled` makes sure that there are some.
    """
    own = set(labelled)
    rest = [name for name in names if name not in own]
    wanted = min(len(rest), config.tiles * len(own))
    chosen = generator(seed, "unlabelled").choice(len(rest), wanted, replace=False)
    return [rest[place] for place in np.sort(chosen)]


def label_tiles(
    teacher: nn.Module, tiles: TileDataset, classes: int, config: SelfTrainingConfig, batch_size: int
) -> PseudoLabels:
    """Label tiles by a teacher; pixels without data in all images get no label.

    Args:
        teacher: Maps images to logits of K classes.
        tiles: The tiles, without labels.
        classes: K.
        config: The share of confident pixels.
        batch_size: Tiles predicted at once.
    """
    labels, levels = [], []
    counts = np.zeros((classes, LEVELS + 1), dtype=np.int64)
    for tile, probabilities in predict_tiles(teacher, (tiles[index] for index in range(len(tiles))), batch_size):
        seen = torch.stack([(image != 0).any(dim=0) for image in tile.images.values()]).any(dim=0).numpy()
        label = np.where(seen, probabilities.argmax(axis=0), IGNORE).astype(np.uint8)
        level = np.round(probabilities.max(axis=0) * LEVELS).astype(np.int64)
        pairs = label[seen].astype(np.int64) * (LEVELS + 1) + level[seen]
        counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
        labels.append(label)
        levels.append(level.astype(np.uint16))
    given = counts.sum(axis=1)
    at_least = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # pixels of each class of this level or a higher one
    enough = at_least >= np.maximum(np.ceil(config.confident * given), 1)[:, None]
    lowest = np.where(enough.any(axis=1), LEVELS - enough[:, ::-1].argmax(axis=1), LEVELS + 1)
    limits = np.full(IGNORE + 1, LEVELS + 1)
    limits[:classes] = lowest
    for label, level in zip(labels, levels, strict=True):
        label[level < limits[label]] = IGNORE
    kept = np.array([at_least[number, level] if level <= LEVELS else 0 for number, level in enumerate(lowest)])
    return PseudoLabels(labels, given, kept, np.where(given > 0, lowest / LEVELS, np.nan))
