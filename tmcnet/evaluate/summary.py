"""Tables of all runs: scores, means with intervals, and paired differences."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tmcnet.config import EvaluateConfig, Run
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.comparisons import Cell, Scored, compare, intervals, read_blocks, read_cells, repetitions
from tmcnet.evaluate.metrics import without_nan

RUN_COLUMNS = ("method", "network", "variant", "fraction", "seed")
SCORE_COLUMNS = ("oa", "kappa", "miou", "mf1", "ece", "n_tiles", "n_pixels", "boundary_f1")
LABEL_COLUMNS = ("points", "draw")
"""For a budget in points `fraction` is empty, for one in tiles `points` is."""
COMPARISON_COLUMNS = (
    "kind",
    "a",
    "b",
    "fraction",
    "points",
    "metric",
    "n_runs",
    "n_draws",
    "n_seeds",
    "n_blocks",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "significant",
)


def summarise(
    evaluate_root: Path,
    runs: list[Run],
    index: Path,
    manifest: Path,
    config: EvaluateConfig,
    metrics_csv: Path,
    metrics_json: Path,
    comparisons_csv: Path,
    scores_json: Path,
) -> None:
    """Write the tables of all runs.

    `metrics.csv` has one row per run. `metrics.json` has, for every network, method and label budget, the mean over
    runs of each headline score with its interval (`{network-variant: {method: {R5: {miou: {mean, low, high, n_runs,
    n_draws, n_seeds}}}}}`) and, under `missing`, the names of runs that have no scores. `scores.json` has only these
    means, with four decimals (`{network-variant: {method: {R5: {miou: mean}}}}`). `comparisons.csv` has paired
    differences.

    Args:
        evaluate_root: Folder with one folder per run.
        runs: The runs of the sweep.
        index: The table of tiles.
        manifest: Manifest of the splits, with the spatial blocks.
        config: Bootstrap draws, confidence and seed.
        metrics_csv: File to write.
        metrics_json: File to write.
        comparisons_csv: File to write.
        scores_json: File to write.

    Raises:
        InputError: If no run was scored, or runs were scored on different test tiles or classes, or on tiles that
            are not in the index.
    """
    files = ("metrics.json", "tiles.npz")
    scored = [run for run in runs if all((evaluate_root / run.name / name).exists() for name in files)]
    if not scored:
        what = f"has no scores of any of the {len(runs)} runs"
        raise InputError(Problem(str(evaluate_root), what, "Evaluate at least one run (`snakemake evaluate`)."))
    rows = [_row(run, json.loads((evaluate_root / run.name / "metrics.json").read_text())) for run in scored]
    classes = dict.fromkeys(column for row in rows for column in row)
    columns = [c for c in classes if c not in {*RUN_COLUMNS, *SCORE_COLUMNS, *LABEL_COLUMNS}]
    _write_csv(metrics_csv, [*RUN_COLUMNS, *SCORE_COLUMNS, *LABEL_COLUMNS, *columns], rows)

    cells = read_cells(evaluate_root, scored, read_blocks(index, manifest))
    headline = _headline(cells, config)
    missing = sorted(run.name for run in set(runs) - set(scored))
    _write_json(metrics_json, {**headline, "missing": missing})
    _write_json(scores_json, _means(headline))
    _write_csv(comparisons_csv, COMPARISON_COLUMNS, compare(cells, config))


def _row(run: Run, scores: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {column: run.record[column] for column in (*RUN_COLUMNS, *LABEL_COLUMNS)}
    row["fraction"] = None if run.budget.fraction is None else f"{run.budget.fraction:g}"
    row |= {column: scores.get(column) for column in SCORE_COLUMNS}
    for metric in ("iou", "f1"):
        row |= {f"{metric}_{name}": value for name, value in scores[metric].items()}
    return row


def _headline(cells: Mapping[Cell, Scored], config: EvaluateConfig) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for cell, metric, found in intervals(cells, config):
        of_network = tree.setdefault(f"{cell.network}-{cell.variant}", {})
        entry = of_network.setdefault(cell.method, {}).setdefault(cell.budget.name, {})
        entry[metric] = {
            "mean": round(found.estimate, 6),
            "low": round(found.low, 6),
            "high": round(found.high, 6),
            **repetitions(cells[cell].replicates),
        }
    return tree


def _means(headline: Mapping[str, Any]) -> dict[str, Any]:
    """Return the means without their intervals."""
    return {
        network: {
            method: {
                labels: {metric: round(found["mean"], 4) for metric, found in scores.items()}
                for labels, scores in budgets.items()
            }
            for method, budgets in methods.items()
        }
        for network, methods in headline.items()
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(without_nan(content), indent=1) + "\n")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({column: _text(row.get(column)) for column in columns} for row in rows)


def _text(value: Any) -> str:  # noqa: ANN401 - cells of any kind
    """Format a cell: six decimals, empty for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def forget_outdated(results: Path, runs: Iterable[Run], folds: Collection[str] = ("",)) -> list[Path]:
    """Remove scores and maps that are older than the network of their run, or whose network is missing.

    If a training is repeated and fails, the scores of the earlier weights remain; they must not be mistaken for
    results of the current config.

    Args:
        results: The results folder.
        runs: The runs of the sweep.
        folds: Folders of the folds below the results; pooled scores need the networks of all folds.

    Returns:
        The files removed.
    """
    outdated = []
    for run in runs:
        networks = [results / fold / "finetune" / run.name / "weights.safetensors" for fold in folds]
        made = max(path.stat().st_mtime if path.exists() else float("inf") for path in networks)
        maps = results / "maps"
        found = [
            *(results / "evaluate" / run.name).glob("*"),
            *maps.glob(f"{run.name}.csv"),
            *maps.glob(f"*/{run.name}.tif"),
            *maps.glob(f"*/{run.name}_confidence.tif"),
        ]
        outdated += [path for path in found if path.stat().st_mtime < made]
    for path in outdated:
        path.unlink()
    return outdated
