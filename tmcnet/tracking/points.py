"""Curves, scores and costs of a training as points of metrics.

What stands before a `/` in a name is the group in which MLflow shows a metric.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tmcnet.config import Run
from tmcnet.report.files import number, read_table
from tmcnet.report.palette import Series
from tmcnet.report.scores import METRICS, PLAIN_METRICS, Scores

_NOT_IN_NAMES = re.compile(r"[^\w\-. :]")
_BY_CLASS = ("iou", "f1", "precision", "recall")
_COSTS = {"s": "seconds", "cpu_time": "cpu_seconds", "max_rss": "peak_memory_mib"}


@dataclass(frozen=True)
class Point:
    """One value of one metric at one step."""

    name: str
    value: float
    step: int = 0


def curve_points(path: Path) -> Iterator[Point]:
    """Every value of `curves.csv`, by step."""
    table = read_table(path)
    if "step" not in table:
        return
    for column in table.columns:
        if column != "step":
            for step, value in zip(table["step"], table[column], strict=True):
                if (known := number(value)) == known:
                    yield Point(f"curve/{metric_name(str(column))}", known, int(step))


def final_scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The scores of one `metrics.json`, those by class in a group of their own."""
    for key in (*METRICS, *PLAIN_METRICS, "n_tiles", "n_pixels", "per_tile_oa", "per_tile_miou"):
        if is_number(metrics.get(key)):
            yield key, float(metrics[key])
    for key in _BY_CLASS:
        by_class = as_dict(metrics.get(key))
        names = [metric_name(str(n)) for n in by_class]
        for i, (name, value) in enumerate(zip(names, by_class.values(), strict=True)):
            if is_number(value):
                unique = name if names.count(name) == 1 else f"{name}_{i}"
                yield f"{key}/{unique}", float(value)


def intervals(scores: Scores, run: Run) -> Iterator[Point]:
    """Mean and limits over the runs that differ from a run in draw and seed only; the step is their number."""
    for metric in METRICS if not scores.table.empty else ():
        estimate = scores.estimate(Series(run.network, run.variant, run.method), run.budget, metric)
        if estimate is not None and estimate.low == estimate.low:
            limits = {"": estimate.mean, "_low": estimate.low, "_high": estimate.high}
            yield from (Point(f"all_seeds/{metric}{end}", v, estimate.runs) for end, v in limits.items())


def metric_name(text: str) -> str:
    """A name that trackers accept: letters, digits and `_-. :`, all else becomes `_`."""
    return _NOT_IN_NAMES.sub("_", text).strip(". ") or "_"


def costs(results: Path, stage: str, name: str) -> dict[str, float]:
    """Wall time, processor time and peak memory of a job, from Snakemake's benchmark file."""
    try:
        with (results / "benchmarks" / stage / f"{name}.tsv").open(newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"), {})
    except OSError:
        return {}
    told = {f"cost/{stage}_{label}": number(row.get(column)) for column, label in _COSTS.items()}
    return {key: value for key, value in told.items() if value == value}


def as_dict(value: object) -> dict[str, Any]:
    """A JSON object; empty where the value is none."""
    return value if isinstance(value, dict) else {}


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number; NaN is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
