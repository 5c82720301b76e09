"""Scores of cross-validation: all test parts together, as if one network had seen them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tmcnet.config import Run
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.calibration import Calibration
from tmcnet.evaluate.evaluate import Outcome, write_scores
from tmcnet.evaluate.scoring import TileCounts


def pool_folds(folders: Sequence[Path], run: Run, out: Path) -> None:
    """Pool the scores of one run over the folds.

    Every tile is in the test part of one fold, so the pooled confusion matrix counts every labelled pixel once, each
    predicted by a network that has not seen its block. Writes the files that `evaluate.evaluate_run` writes.

    Args:
        folders: Folders with the `metrics.json` and `tiles.npz` of the folds.
        run: The run.
        out: Folder to write to.

    Raises:
        InputError: If the folds were scored for other classes or with another tolerance, or share tiles.
    """
    records = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    found = [_outcome(folder, record) for folder, record in zip(folders, records, strict=True)]
    _check(folders, records, found)
    names = [name for fold in found for name in fold.names]
    order = np.argsort(names)
    scenes = [scene for fold in found for scene in fold.scenes]
    counts = [fold.counts for fold in found]
    together = TileCounts(
        np.concatenate([one.tiles for one in counts])[order],
        np.concatenate([one.boundary for one in counts])[order],
        {sensor: np.sum([one.withheld[sensor] for one in counts], axis=0) for sensor in counts[0].withheld},
    )
    raw, scaled = (Calibration.together(parts) for parts in zip(*(f.calibrations for f in found), strict=True))
    outcome = Outcome([names[i] for i in order], [scenes[i] for i in order], together, (raw, scaled))
    write_scores(out, run, outcome, list(records[0]["iou"]), records[0]["boundary"]["tolerance"])


def _outcome(folder: Path, record: dict[str, Any]) -> Outcome:
    with np.load(folder / "tiles.npz", allow_pickle=False) as arrays:
        withheld = {modality: arrays[f"withheld_{modality}"] for modality in record["withheld"]}
        names, scenes = arrays["names"].astype(str).tolist(), arrays["scenes"].astype(str).tolist()
        counts = TileCounts(arrays["confusion"], arrays["boundary"], withheld)
    told = record["calibration"]
    raw = Calibration.of(told["bins"], told["log_loss"])
    scaled = Calibration.of(told["scaled"]["bins"], told["scaled"]["log_loss"], told["temperature"])
    return Outcome(names, scenes, counts, (raw, scaled))


def _check(folders: Sequence[Path], records: Sequence[dict[str, Any]], found: Sequence[Outcome]) -> None:
    problems = []
    remedy = "Evaluate all folds again."
    alike = [
        (list(r["iou"]), r["boundary"]["tolerance"], len(r["calibration"]["bins"]), list(r["withheld"]))
        for r in records
    ]
    for folder, mine in zip(folders, alike, strict=True):
        if mine != alike[0]:
            what = f"was scored for other classes or otherwise than {folders[0] / 'metrics.json'}"
            problems.append(Problem(str(folder / "metrics.json"), what, remedy))
    seen: set[str] = set()
    for folder, fold in zip(folders, found, strict=True):
        twice = sorted(seen & set(fold.names))
        if twice:
            what = f"has {len(twice)} tiles that another fold tested as well, such as {twice[0]}"
            problems.append(Problem(str(folder / "tiles.npz"), what, "Make the splits of all folds anew."))
        seen.update(fold.names)
    if problems:
        raise InputError(problems)
