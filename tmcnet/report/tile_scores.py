"""Scores of one run tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TileScores:
    """Confusion matrices per test tile of one run: names and scenes of T tiles, T x K x K counts, rows truth."""

    names: list[str]
    scenes: list[str]
    confusion: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """Overall accuracy per tile, NaN for tiles without labels."""
        total = self.confusion.sum((1, 2)).astype(float)
        right = np.trace(self.confusion, axis1=1, axis2=2).astype(float)
        share: npt.NDArray[np.float64] = np.divide(right, total, out=np.full(len(total), np.nan), where=total > 0)
        return share


def read_tiles(path: Path) -> TileScores | None:
    """Read `tiles.npz` of a run, or None where there is none."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            names, scenes = archive["names"].astype(str).tolist(), archive["scenes"].astype(str).tolist()
            return TileScores(names, scenes, archive["confusion"])
    except (OSError, KeyError, ValueError):
        return None
