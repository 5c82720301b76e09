"""Score one fine-tuned network on the test part, or pool its scores over the folds of a cross-validation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tmcnet.classes import ClassTable
from tmcnet.config import ComputeConfig, EvaluateConfig, Run
from tmcnet.config.base import only_modality
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate import metrics
from tmcnet.evaluate.metrics import Calibration, Counts, Floats, boundary_counts, confusion
from tmcnet.evaluate.trained import Trained, predict_tiles
from tmcnet.model.device import choose_device
from tmcnet.readers import read_record, read_rows, reading
from tmcnet.seeding import generator
from tmcnet.splits.files import read_tile_blocks, verified_list
from tmcnet.store import TileStore

MAX_TEMPERATURE_PIXELS = 200_000
"""Approximate number of validation pixels for fitting the temperature; more do not change its second digit."""


def evaluate_run(
    tiles_root: Path, splits: Path, weights: Path, run: Run, config: EvaluateConfig, compute: ComputeConfig, out: Path
) -> None:
    """Score a fine-tuned network: one confusion matrix over all test pixels, boundaries, and calibration.

    If the config says so, a network of all modalities is scored again with each of them withheld. The temperature is
    fitted on validation pixels; the test part is only scored. `metrics.json` and `tiles.npz` (names, scenes, spatial
    blocks, T x K x K confusion matrices, accuracy per tile, boundary pixels, and the confusion matrices with a
    modality withheld) are written into `out`.

    Raises:
        InputError: If a list was changed or is empty, no test pixel is labelled, or the weights belong to another
            run or other classes.
    """
    torch.set_num_threads(compute.finetune_threads)
    trained = Trained.read(weights, choose_device(compute))
    store = TileStore(tiles_root)
    _check(trained, run, store.classes, weights)
    test, val = (
        TileDataset(store, verified_list(splits, part), trained.normalisation, with_labels=True, cache_gib=0)
        for part in ("test", "val")
    )
    temperature = _temperature(trained.network, val, config)
    withheld = list(trained.sensors) if config.withheld and only_modality(run.network) is None else []
    blocks = read_tile_blocks(store.index, splits / "manifest.json")
    outcome = count_tiles(trained.network, test, len(trained.classes), config, temperature, withheld, blocks)
    if outcome.tiles.sum() == 0:
        raise InputError(
            Problem(str(splits / "test_RGB.txt"), "no pixel of its tiles is labelled", "Check labels and splits.")
        )
    write_scores(out, run, outcome, trained.classes.names, config.boundary_tolerance)


@dataclass(frozen=True)
class Outcome:
    """Counts on T test tiles, from which all scores are computed.

    Attributes:
        names: Names of the tiles.
        scenes: Their scenes.
        blocks: Their spatial blocks.
        tiles: T x K x K confusion matrices.
        boundary: T x K x 4 boundary pixels, as `boundary_counts` has them.
        withheld: K x K confusion matrix of all tiles by the modality that was withheld.
        raw: Calibration of the probabilities.
        scaled: Calibration after temperature scaling.
    """

    names: list[str]
    scenes: list[str]
    blocks: list[str]
    tiles: Counts
    boundary: Counts
    withheld: dict[str, Counts]
    raw: Calibration
    scaled: Calibration


def write_scores(out: Path, run: Run, outcome: Outcome, classes: list[str], tolerance: int) -> None:
    """Write `metrics.json` and `tiles.npz` into `out`; boundaries were counted with a `tolerance` in pixels."""
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "names": outcome.names,
        "scenes": outcome.scenes,
        "blocks": outcome.blocks,
        "confusion": outcome.tiles,
        "accuracy": metrics.overall_accuracy(outcome.tiles),
        "boundary": outcome.boundary,
        **{f"withheld_{sensor}": matrix for sensor, matrix in outcome.withheld.items()},
    }
    np.savez_compressed(out / "tiles.npz", **arrays)
    scores = {"run": run.record, **_scores(outcome, classes, tolerance)}
    (out / "metrics.json").write_text(json.dumps(metrics.without_nan(scores), indent=1) + "\n")


def _scores(outcome: Outcome, classes: list[str], tolerance: int) -> dict[str, Any]:
    def by_class(values: Floats) -> dict[str, float]:
        return dict(zip(classes, map(float, values), strict=True))

    tiles, pooled, raw, scaled = outcome.tiles, outcome.tiles.sum(axis=0), outcome.raw, outcome.scaled
    image_iou = metrics.image_iou(tiles)
    boundary = metrics.boundary_f1(outcome.boundary.sum(axis=0))
    return {
        **metrics.headline(pooled),
        "n_tiles": len(tiles),
        "n_pixels": int(pooled.sum()),
        **{name: by_class(getattr(metrics, name)(pooled)) for name in ("iou", "precision", "recall", "f1")},
        "confusion": pooled.tolist(),
        "per_tile_oa": metrics.mean_tile_accuracy(tiles),
        "per_tile_miou": metrics.mean_tile_miou(tiles),
        "reference_style": {
            "image_miou": float(image_iou.mean()),
            "image_iou": by_class(image_iou),
            "mean_precision": metrics.mean_precision(pooled),
        },
        "boundary_f1": float(metrics.class_mean(boundary)),
        "boundary": {"tolerance": tolerance, "f1": by_class(boundary)},
        "withheld": {sensor: metrics.headline(matrix) for sensor, matrix in outcome.withheld.items()},
        "ece": raw.error,
        "calibration": {
            "bins": raw.table(),
            "log_loss": raw.log_loss,
            "temperature": scaled.temperature,
            "scaled": {"ece": scaled.error, "bins": scaled.table(), "log_loss": scaled.log_loss},
        },
    }


def _check(trained: Trained, run: Run, classes: ClassTable, weights: Path) -> None:
    problems = []
    if trained.run != run:
        what = f"was fine-tuned in run {trained.run.name}, not {run.name}"
        problems.append(Problem(str(weights), what, "Use the weights of the run."))
    if trained.classes.names != classes.names:
        what = f"was trained on the classes {trained.classes.names}; the tiles have {classes.names}"
        problems.append(Problem(str(weights), what, "Fine-tune again on these tiles."))
    if problems:
        raise InputError(problems)


def _temperature(network: nn.Module, val: TileDataset, config: EvaluateConfig) -> float:
    """Fit the temperature to a seeded sample of pixels of every validation tile."""
    share = max(MAX_TEMPERATURE_PIXELS // len(val), 1)
    probabilities, truths = [], []
    for tile, predicted in predict_tiles(network, (val[i] for i in range(len(val))), config.batch_size):
        truth = tile.truth.numpy()
        chosen = generator(config.seed, "temperature", tile.name).permutation(truth.size)[:share]
        probabilities.append(predicted.reshape(len(predicted), -1).T[chosen])
        truths.append(truth.ravel()[chosen])
    return metrics.fit_temperature(np.concatenate(probabilities), np.concatenate(truths))


def count_tiles(
    network: nn.Module,
    tiles: TileDataset,
    classes: int,
    config: EvaluateConfig,
    temperature: float,
    withheld: Sequence[str],
    blocks: Mapping[str, str],
) -> Outcome:
    """Predict every tile and count pixels of K classes.

    The `temperature` is for the calibration after scaling; each modality of `withheld` takes one more pass; `blocks`
    are the spatial blocks of the tiles by name.
    """
    # a tile is read once for all passes, which stay within one batch of each other
    streams = tee((tiles[i] for i in range(len(tiles))), 1 + len(withheld))
    whole = predict_tiles(network, streams[0], config.batch_size)
    blind = [
        predict_tiles(network, _without(sensor, stream), config.batch_size)
        for sensor, stream in zip(withheld, streams[1:], strict=True)
    ]
    matrices, boundary = [], []
    blind_counts = {sensor: np.zeros((classes, classes), dtype=np.int64) for sensor in withheld}
    raw, scaled = Calibration(), Calibration(temperature)
    for (tile, predicted), *others in zip(whole, *blind, strict=True):
        truth, guess = tile.truth.numpy(), predicted.argmax(axis=0)
        matrices.append(confusion(truth, guess, classes))
        boundary.append(boundary_counts(truth, guess, classes, config.boundary_tolerance))
        for calibration in (raw, scaled):
            calibration.add(predicted.reshape(classes, -1).T, truth.ravel())
        for sensor, (_, seen) in zip(withheld, others, strict=True):
            blind_counts[sensor] += confusion(truth, seen.argmax(axis=0), classes)
    scene = {row["tile"]: row["scene"] for row in read_rows(tiles.store.index, ["tile", "scene"])}
    scenes, places = ([by_tile.get(name, "") for name in tiles.names] for by_tile in (scene, blocks))
    return Outcome(tiles.names, scenes, places, np.stack(matrices), np.stack(boundary), blind_counts, raw, scaled)


def _without(modality: str, tiles: Iterable[Tile]) -> Iterator[Tile]:
    """Yield the tiles with one image set to no data, as modality dropout does in training."""
    for tile in tiles:
        yield tile._replace(images={**tile.images, modality: torch.zeros_like(tile.images[modality])})


def pool_folds(folders: Sequence[Path], run: Run, out: Path) -> None:
    """Pool the scores of one run over the folds.

    Every tile is in the test part of one fold, so the pooled confusion matrix counts every labelled pixel once, each
    predicted by a network that has not seen its block. Reads `metrics.json` and `tiles.npz` from the folders of the
    folds, and writes the same files into `out`.

    Raises:
        InputError: If the folds were scored for other classes or with another tolerance, or share tiles.
    """
    records = [read_record(folder / "metrics.json") for folder in folders]
    folds = []
    for folder in folders:
        path = folder / "tiles.npz"
        with reading(path), np.load(path, allow_pickle=False) as arrays:
            folds.append(dict(arrays))
    _check_folds(folders, records, folds)
    order = np.argsort(np.concatenate([fold["names"] for fold in folds]))
    names, scenes, blocks, tiles, boundary = (
        np.concatenate([fold[key] for fold in folds])[order]
        for key in ("names", "scenes", "blocks", "confusion", "boundary")
    )
    withheld = {name: np.sum([fold[f"withheld_{name}"] for fold in folds], axis=0) for name in records[0]["withheld"]}
    tables = [record["calibration"] for record in records]
    temperature = float(np.mean([table["temperature"] for table in tables]))
    raw, scaled = Calibration.pooled(tables), Calibration.pooled([table["scaled"] for table in tables], temperature)
    outcome = Outcome(names.tolist(), scenes.tolist(), blocks.tolist(), tiles, boundary, withheld, raw, scaled)
    write_scores(out, run, outcome, list(records[0]["iou"]), records[0]["boundary"]["tolerance"])


def _check_folds(
    folders: Sequence[Path], records: Sequence[dict[str, Any]], folds: Sequence[dict[str, NDArray[Any]]]
) -> None:
    problems = []
    settings = [(list(r["iou"]), r["boundary"]["tolerance"], list(r["withheld"])) for r in records]
    seen: set[str] = set()
    for folder, mine, fold in zip(folders, settings, folds, strict=True):
        if mine != settings[0]:
            what = f"was scored with other classes or settings than {folders[0] / 'metrics.json'}"
            problems.append(Problem(str(folder / "metrics.json"), what, "Evaluate all folds again."))
        names = set(fold["names"].tolist())
        if twice := sorted(seen & names):
            what = f"has {len(twice)} tiles that are in the test part of another fold too, such as {twice[0]}"
            problems.append(Problem(str(folder / "tiles.npz"), what, "Make the splits of all folds again."))
        seen |= names
    if problems:
        raise InputError(problems)
