"""Intervals of boundary F1, which the evaluation counts by tile but does not resample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tmcnet.config import EvaluateConfig, Run
from tmcnet.evaluate.boundary import boundary_f1
from tmcnet.evaluate.intervals import Interval, Resamples, effects_of, interval
from tmcnet.evaluate.metrics import class_mean
from tmcnet.seeding import generator

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_QUANTITIES = 4


def boundary_interval(
    root: Path, runs: list[Run], blocks: Mapping[str, str], config: EvaluateConfig
) -> Interval | None:
    """Mean boundary F1 over runs that differ in draw and seed only, with its interval.

    Blocks of test tiles, draws and seeds are drawn again as for the other scores.

    Args:
        root: Folder with one folder a run, `tiles.npz` in it.
        runs: The runs.
        blocks: Block of each known tile.
        config: Bootstrap draws, confidence and seed.

    Returns:
        None where a run counted no boundaries, or on tiles that are not known.
    """
    counts = [_by_block(root / run.name / "tiles.npz", blocks) for run in runs]
    known = [one for one in counts if one is not None]
    if not known or len(known) < len(runs) or len({one.shape for one in known}) > 1:
        return None
    first = runs[0]
    random = generator(config.seed, "boundary", first.network, first.variant, first.method, first.budget.name)
    effects = effects_of([(run.draw, run.seed) for run in runs])
    resamples = Resamples.draw(known[0].shape[0], effects, config.bootstrap, random)
    found = interval(_score, np.stack(known), resamples, config.confidence)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def _by_block(path: Path, blocks: Mapping[str, str]) -> Counts | None:
    """B x S x S counts: K x 4 of each labelled block, padded with 0, since the bootstrap takes squares."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labelled = file["confusion"].sum((1, 2)) > 0
            names, counts = file["names"][labelled].astype(str).tolist(), file["boundary"][labelled]
    except (OSError, KeyError, ValueError):
        return None
    if not set(names) <= set(blocks):
        return None
    found, place = np.unique([blocks[name] for name in names], return_inverse=True)
    _, classes, quantities = counts.shape
    side = max(classes, quantities)
    sums = np.zeros((len(found), side, side), dtype=np.int64)
    np.add.at(sums[:, :classes, :quantities], place, counts)
    return sums


def _score(squares: Floats) -> Floats:
    """Mean boundary F1 over classes, of shape ..., of ... x S x S; a row without counts is no class."""
    counts = squares[..., :_QUANTITIES].astype(np.int64)
    return class_mean(boundary_f1(counts.reshape(-1, _QUANTITIES)).reshape(counts.shape[:-1]))
