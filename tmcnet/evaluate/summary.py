"""One table of all runs, their means with intervals, and what differs from what."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tmcnet.config import EvaluateConfig, Run, fraction_name
from tmcnet.evaluate.comparisons import Cell, Scored, compare, intervals, read_blocks, read_cells
from tmcnet.evaluate.numbers import without_nan

RUN_COLUMNS = ("method", "network", "variant", "fraction", "seed")
SCORE_COLUMNS = ("oa", "kappa", "miou", "mf1", "ece", "n_tiles", "n_pixels")
COMPARISON_COLUMNS = (
    "kind",
    "a",
    "b",
    "fraction",
    "metric",
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
) -> None:
    """Gather the scores of all runs.

    `metrics.csv` has one row a run. `metrics.json` has, for every network, method and fraction, the mean over seeds
    of each headline score with its interval (`{network-variant: {method: {R5: {miou: {mean, low, high, n_seeds}}}}}`)
    and, under `missing`, the names of runs that have no scores. `comparisons.csv` has paired differences.

    Args:
        evaluate_root: Folder with one folder a run.
        runs: The runs of the sweep.
        index: The table of tiles.
        manifest: Manifest of the splits, with the spatial blocks.
        config: Bootstrap draws, confidence and seed.
        metrics_csv: File to write.
        metrics_json: File to write.
        comparisons_csv: File to write.

    Raises:
        InputError: If runs were scored on different test tiles or classes, or on tiles that the index does not have.
    """
    scored = [run for run in runs if (evaluate_root / run.name / "metrics.json").exists()]
    rows = [_row(run, json.loads((evaluate_root / run.name / "metrics.json").read_text())) for run in scored]
    classes = dict.fromkeys(column for row in rows for column in row)
    columns = [c for c in classes if c not in {*RUN_COLUMNS, *SCORE_COLUMNS}]
    _write_csv(metrics_csv, [*RUN_COLUMNS, *SCORE_COLUMNS, *columns], rows)

    cells = read_cells(evaluate_root, scored, read_blocks(index, manifest))
    headline: dict[str, Any] = _headline(cells, config)
    headline["missing"] = sorted(run.name for run in set(runs) - set(scored))
    metrics_json.parent.mkdir(parents=True, exist_ok=True)
    metrics_json.write_text(json.dumps(without_nan(headline), indent=1) + "\n")
    _write_csv(comparisons_csv, COMPARISON_COLUMNS, compare(cells, config))


def _row(run: Run, scores: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {column: getattr(run, column) for column in RUN_COLUMNS}
    row["fraction"] = f"{run.fraction:g}"
    row |= {column: scores[column] for column in SCORE_COLUMNS}
    for metric in ("iou", "f1"):
        row |= {f"{metric}_{name}": value for name, value in scores[metric].items()}
    return row


def _headline(cells: Mapping[Cell, Scored], config: EvaluateConfig) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for cell, metric, found in intervals(cells, config):
        of_network = tree.setdefault(f"{cell.network}-{cell.variant}", {})
        entry = of_network.setdefault(cell.method, {}).setdefault(fraction_name(cell.fraction), {})
        entry[metric] = {
            "mean": round(found.estimate, 6),
            "low": round(found.low, 6),
            "high": round(found.high, 6),
            "n_seeds": len(cells[cell].seeds),
        }
    return tree


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({column: _text(row.get(column)) for column in columns} for row in rows)


def _text(value: Any) -> str:  # noqa: ANN401 - cells of any kind
    """A number with six decimals, empty where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)
