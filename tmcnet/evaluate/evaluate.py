"""Scores of one fine-tuned network on the test part."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tmcnet.classes import ClassTable
from tmcnet.config import ComputeConfig, EvaluateConfig, Run
from tmcnet.config.modalities import only_modality
from tmcnet.dataset.loading import TileDataset
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate import metrics, tile_scores
from tmcnet.evaluate.boundary import boundary_f1
from tmcnet.evaluate.calibration import Calibration, fit_temperature
from tmcnet.evaluate.metrics import Counts, Floats
from tmcnet.evaluate.numbers import without_nan
from tmcnet.evaluate.predict import choose_device, predict_tiles
from tmcnet.evaluate.scoring import TileCounts, count_tiles
from tmcnet.evaluate.trained import Trained
from tmcnet.seeding import generator
from tmcnet.store import TileStore, read_list

TEMPERATURE_PIXELS = 200_000
"""Validation pixels from which the temperature is fitted, about; more would not move its second digit."""


def evaluate_run(
    tiles_root: Path,
    test_list: Path,
    val_list: Path,
    weights: Path,
    run: Run,
    config: EvaluateConfig,
    compute: ComputeConfig,
    out: Path,
) -> None:
    """Score a fine-tuned network: one confusion matrix over all test pixels, boundaries, and calibration.

    A network of all modalities is scored once more with each of them withheld, if the config says so.

    Writes `metrics.json` and `tiles.npz` (names, scenes, T x K x K confusion matrices, accuracy per tile, boundary
    pixels, and the confusion matrices with a modality withheld) into `out`.
    The temperature is fitted on validation pixels; the test part is only scored.

    Args:
        tiles_root: Folder of the tiles.
        test_list: Names of the test tiles.
        val_list: Names of the validation tiles.
        weights: The network, as fine-tuning wrote it.
        run: The run that is scored.
        config: Batch size, bins and seed.
        compute: Threads and accelerator.
        out: Folder to write to.

    Raises:
        InputError: If a list is empty, no test pixel is labelled, or the weights belong to another run or other
            classes.
    """
    torch.set_num_threads(compute.finetune_threads)
    trained = Trained.read(weights, choose_device(compute))
    store = TileStore(tiles_root)
    _check(trained, run, store.classes, weights)
    val = TileDataset(store, read_list(val_list), trained.normalisation, with_labels=True, cache_gib=0)
    test = TileDataset(store, read_list(test_list), trained.normalisation, with_labels=True, cache_gib=0)
    temperature = _temperature(trained.network, val, config)
    calibrations = Calibration(config.calibration_bins), Calibration(config.calibration_bins, temperature)
    withheld = list(trained.sensors) if config.withheld and only_modality(run.network) is None else []
    counted = count_tiles(trained.network, test, len(trained.classes), config, calibrations, withheld)
    if counted.tiles.sum() == 0:
        raise InputError(Problem(str(test_list), "no pixel of its tiles is labelled", "Check labels and splits."))
    outcome = Outcome(test.names, _scenes(store, test.names), counted, calibrations)
    write_scores(out, run, outcome, trained.classes.names, config.boundary_tolerance)


@dataclass(frozen=True)
class Outcome:
    """What was found on the test tiles.

    Attributes:
        names: Names of the T tiles.
        scenes: Their scenes.
        counts: What was counted on them.
        calibrations: Calibration of the probabilities as they came, and after the fitted temperature.
    """

    names: list[str]
    scenes: list[str]
    counts: TileCounts
    calibrations: tuple[Calibration, Calibration]


def write_scores(out: Path, run: Run, outcome: Outcome, classes: list[str], tolerance: int) -> None:
    """Write `metrics.json` and `tiles.npz`.

    Args:
        out: Folder to write to.
        run: The run that was scored.
        outcome: What was found.
        classes: Names of the classes.
        tolerance: Distance in pixels up to which a boundary counted as found.
    """
    out.mkdir(parents=True, exist_ok=True)
    counts = outcome.counts
    arrays: dict[str, Any] = {
        "names": outcome.names,
        "scenes": outcome.scenes,
        "confusion": counts.tiles,
        "accuracy": metrics.overall_accuracy(counts.tiles),
        "boundary": counts.boundary,
        **{f"withheld_{sensor}": matrix for sensor, matrix in counts.withheld.items()},
    }
    np.savez_compressed(out / "tiles.npz", **arrays)
    scores = {"run": run.record, **_scores(counts.tiles, classes)}
    scores |= _boundary_scores(counts.boundary.sum(axis=0), classes, tolerance)
    scores["withheld"] = {sensor: metrics.headline(matrix) for sensor, matrix in counts.withheld.items()}
    scores |= _calibration_scores(*outcome.calibrations)
    (out / "metrics.json").write_text(json.dumps(without_nan(scores), indent=1) + "\n")


def _check(trained: Trained, run: Run, classes: ClassTable, weights: Path) -> None:
    problems = []
    if trained.run != run:
        what = f"was fine-tuned in run {trained.run.name}, not {run.name}"
        problems.append(Problem(str(weights), what, "Give the weights of the run."))
    if trained.classes.names != classes.names:
        what = f"tells apart {trained.classes.names}; the tiles have {classes.names}"
        problems.append(Problem(str(weights), what, "Fine-tune again on these tiles."))
    if problems:
        raise InputError(problems)


def _temperature(network: nn.Module, val: TileDataset, config: EvaluateConfig) -> float:
    """Fitted on a seeded sample of the pixels of every validation tile."""
    share = max(TEMPERATURE_PIXELS // len(val), 1)
    probabilities, truths = [], []
    for tile, found in predict_tiles(network, (val[i] for i in range(len(val))), config.batch_size):
        truth = tile.truth.numpy()
        chosen = generator(config.seed, "temperature", tile.name).permutation(truth.size)[:share]
        probabilities.append(found.reshape(len(found), -1).T[chosen])
        truths.append(truth.ravel()[chosen])
    return fit_temperature(np.concatenate(probabilities), np.concatenate(truths))


def _scores(tiles: Counts, names: list[str]) -> dict[str, Any]:
    pooled = tiles.sum(axis=0)
    image_iou = tile_scores.image_iou(tiles)
    return {
        **metrics.headline(pooled),
        "n_tiles": len(tiles),
        "n_pixels": int(pooled.sum()),
        "iou": _by_class(metrics.iou(pooled), names),
        "precision": _by_class(metrics.precision(pooled), names),
        "recall": _by_class(metrics.recall(pooled), names),
        "f1": _by_class(metrics.f1(pooled), names),
        "confusion": pooled.tolist(),
        "per_tile_oa": tile_scores.mean_tile_accuracy(tiles),
        "per_tile_miou": tile_scores.mean_tile_miou(tiles),
        "reference_style": {
            "image_miou": float(image_iou.mean()),
            "image_iou": _by_class(image_iou, names),
            "mean_precision": tile_scores.mean_precision(pooled),
        },
    }


def _boundary_scores(counts: Counts, names: list[str], tolerance: int) -> dict[str, Any]:
    score = boundary_f1(counts)
    return {
        "boundary_f1": float(metrics.class_mean(score)),
        "boundary": {"tolerance": tolerance, "f1": _by_class(score, names)},
    }


def _by_class(values: Floats, names: list[str]) -> dict[str, float]:
    return dict(zip(names, map(float, values), strict=True))


def _calibration_scores(raw: Calibration, scaled: Calibration) -> dict[str, Any]:
    return {
        "ece": raw.error,
        "calibration": {
            "bins": raw.table(),
            "log_loss": raw.log_loss,
            "temperature": scaled.temperature,
            "scaled": {"ece": scaled.error, "bins": scaled.table(), "log_loss": scaled.log_loss},
        },
    }


def _scenes(store: TileStore, names: list[str]) -> list[str]:
    """The scene of each tile as the index has it."""
    with store.index.open(newline="") as file:
        scene = {row["tile"]: row["scene"] for row in csv.DictReader(file)}
    return [scene.get(name, "") for name in names]
