"""Each training of a results folder as one flat record: what it was told, how it went, what came out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tmcnet.config import Config, Run
from tmcnet.report.files import number, read_json, read_table
from tmcnet.report.palette import Series
from tmcnet.report.scores import METRICS, PLAIN_METRICS, Scores

_NOT_IN_NAMES = re.compile(r"[^\w\-. :]")
_LONGEST_VALUE = 500
_BY_CLASS = ("iou", "f1", "precision", "recall")


@dataclass(frozen=True)
class Point:
    """One value of one metric at one step."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Record:
    """One run as a tracker sees it.

    Attributes:
        kind: `sweep`, `pretrain` or `finetune`.
        name: Unique within its kind.
        exists: Whether anything of it lies on disk.
        params: What it was told.
        tags: What to filter by.
        points: Curves and final scores.
        artifacts: Small files to keep; weights are named in a tag instead.
        documents: Texts to keep, by file name.
        started: Milliseconds since 1970, 0 where unknown.
        ended: The same.
    """

    kind: str
    name: str
    exists: bool
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    artifacts: list[Path] = field(default_factory=list)
    documents: dict[str, str] = field(default_factory=dict)
    started: int = 0
    ended: int = 0

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content; times do not count."""
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.artifacts}
        points = [(p.name, p.value, p.step) for p in self.points]
        content = [self.params, self.tags, points, files, self.documents]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def collect(results: Path, config: Config) -> list[Record]:
    """Records of all pre-training methods and all runs of the sweep, whether they exist yet or not."""
    scores = Scores(results)
    pretrained = [_pretrain(results, config, method) for method in config.pretrain.methods]
    return pretrained + [_finetune(results, config, run, scores) for run in config.runs]


def sweep_record(results: Path, config: Config) -> Record:
    """The sweep as a whole: config, splits and the tables over all runs."""
    tables = ("metrics.csv", "metrics.json", "scores.json", "comparisons.csv")
    names = ("splits/manifest.json", "normalisation.json", *tables)
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return Record(
        "sweep",
        config.name,
        exists=True,
        tags={"kind": "sweep", "manifest_hash": _manifest_hash(results)},
        artifacts=[results / name for name in names if (results / name).exists()],
        documents={"config.yaml": text},
    )


def _pretrain(results: Path, config: Config, method: str) -> Record:
    folder = results / "pretrain" / method
    settings = config.pretrain.methods[method]
    told = {
        "method": settings.model_dump(mode="json"),
        "pretrain": config.pretrain.model_dump(mode="json", exclude={"methods", "weights"}),
        **_shared(config),
    }
    summary = read_json(folder / "summary.json")
    final = {key: value for key, value in summary.items() if _is_number(value)}
    tags = {"kind": "pretrain", "method": method, "objective": settings.method, "variant": settings.variant}
    return _record(results, folder, "pretrain", method, told, tags, final, {})


def _finetune(results: Path, config: Config, run: Run, scores: Scores) -> Record:
    folder = results / "finetune" / run.name
    told = {
        "run": {key: value for key, value in run.record.items() if key != "name" and value is not None},
        "finetune": config.finetune.model_dump(mode="json", exclude={"sweep"}),
        **_shared(config),
    }
    tags = {
        "kind": "finetune",
        "method": run.method,
        "network": run.network,
        "variant": run.variant,
        "labels": run.budget.name,
        "fraction": "" if run.budget.fraction is None else f"{run.budget.fraction:g}",
        "draw": str(run.draw),
        "seed": str(run.seed),
    }
    metrics = read_json(results / "evaluate" / run.name / "metrics.json")
    summary = read_json(folder / "summary.json")
    final = {key: summary[key] for key in ("best_step", "seconds") if _is_number(summary.get(key))}
    final |= dict(_final_scores(metrics)) | dict(_intervals(scores, run))
    documents = {}
    if confusion := metrics.get("confusion"):
        content = {"rows": "truth", "classes": list(metrics.get("iou", {})), "counts": confusion}
        documents["confusion.json"] = json.dumps(content)
    return _record(results, folder, "finetune", run.name, told, tags, final, documents)


def _shared(config: Config) -> dict[str, Any]:
    sections = ("model", "tiles", "splits", "normalise")
    return {name: getattr(config, name).model_dump(mode="json") for name in sections}


def _record(
    results: Path,
    folder: Path,
    kind: str,
    name: str,
    told: Mapping[str, Any],
    tags: dict[str, str],
    final: Mapping[str, float],
    documents: dict[str, str],
) -> Record:
    """What the two kinds of training have in common: curves, files, times."""
    curves, summary = folder / "curves.csv", folder / "summary.json"
    files = [path for path in (curves, summary) if path.exists()]
    weights = folder / "weights.safetensors"
    if weights.exists():
        tags = {**tags, "weights": str(weights.relative_to(results)), "weights_bytes": str(weights.stat().st_size)}
    ended = int(max((path.stat().st_mtime for path in files), default=0) * 1000)
    seconds = number(read_json(summary).get("seconds"))
    return Record(
        kind,
        name,
        exists=bool(files),
        params=dict(_flatten(told)),
        tags={**tags, "manifest_hash": _manifest_hash(results)},
        points=[*_curve_points(curves), *(Point(k, float(v)) for k, v in final.items())],
        artifacts=files,
        documents=documents,
        started=ended - int(1000 * seconds) if seconds == seconds else ended,
        ended=ended,
    )


def _manifest_hash(results: Path) -> str:
    path = results / "splits" / "manifest.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)[:_LONGEST_VALUE]


def _curve_points(path: Path) -> Iterator[Point]:
    table = read_table(path)
    if "step" not in table:
        return
    for column in table.columns:
        if column != "step":
            for step, value in zip(table["step"], table[column], strict=True):
                if (known := number(value)) == known:
                    yield Point(f"curve.{metric_name(str(column))}", known, int(step))


def _final_scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key in (*METRICS, *PLAIN_METRICS, "n_tiles", "n_pixels", "per_tile_oa", "per_tile_miou"):
        if _is_number(metrics.get(key)):
            yield key, float(metrics[key])
    for key in _BY_CLASS:
        by_class = metrics.get(key)
        if isinstance(by_class, dict):
            names = [metric_name(str(n)) for n in by_class]
            for i, (name, value) in enumerate(zip(names, by_class.values(), strict=True)):
                if _is_number(value):
                    unique = name if names.count(name) == 1 else f"{name}_{i}"
                    yield f"{key}.{unique}", float(value)


def _intervals(scores: Scores, run: Run) -> Iterator[tuple[str, float]]:
    """Mean over runs and limits of the group that a run belongs to."""
    for metric in METRICS if not scores.table.empty else ():
        estimate = scores.estimate(Series(run.network, run.variant, run.method), run.budget, metric)
        if estimate is not None and estimate.low == estimate.low:
            yield f"seeds.{metric}_mean", estimate.mean
            yield f"seeds.{metric}_low", estimate.low
            yield f"seeds.{metric}_high", estimate.high


def metric_name(text: str) -> str:
    """A name that trackers accept: letters, digits and `_-. :`, all else becomes `_`."""
    return _NOT_IN_NAMES.sub("_", text).strip(". ") or "_"
