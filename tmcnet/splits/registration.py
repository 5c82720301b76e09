"""Tiles whose sensors are registered too badly to learn from."""

from __future__ import annotations

import numpy as np

from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.splits.index import BoolArray, TileIndex


def misaligned(index: TileIndex, config: SplitsConfig) -> BoolArray:
    """Tiles (N flags) whose registration is known and worse than `config.max_misalignment` allows.

    Args:
        index: The tiles.
        config: The section `splits`.

    Raises:
        InputError: If no labelled tile would be left.
    """
    if config.max_misalignment is None or index.misalignment is None:
        return np.zeros(len(index.tiles), bool)
    worse: BoolArray = index.misalignment > config.max_misalignment
    if not (index.labelled & ~worse).any():
        best = float(index.misalignment[index.labelled].min())
        what = f"({config.max_misalignment:g}) leaves no labelled tile: the best of them has {best:.3f} pixels"
        remedy = "Make it larger or null, and look at the `alignment.png` of the scenes."
        raise InputError(Problem("config key `splits.max_misalignment`", what, remedy))
    return worse
