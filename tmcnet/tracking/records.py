"""Records: every training of a results folder, flattened for a tracking server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from tmcnet.config import RANDOM_START, Config, Run
from tmcnet.evaluate.summary import CLASS_METRICS
from tmcnet.hashing import file_digest, json_digest
from tmcnet.report.files import number, read_table
from tmcnet.report.names import Series
from tmcnet.report.results import Results
from tmcnet.report.scores import ALL_METRICS, METRICS, Scores

MAX_PARAM_CHARS = 5000
"""MLflow refuses longer values."""
MAX_MAPS = 3
SHARED_SECTIONS = ("source", "sensors", "labels", "align", "tiles", "splits", "normalise", "model")
SWEEP_TABLES = ("metrics.csv", "metrics.json", "scores.json", "comparisons.csv")
SUMMARY_METRICS = ("best_step", "seconds", "gpu_memory_mib")
COSTS = {"s": "seconds", "cpu_time": "cpu_seconds", "max_rss": "peak_memory_mib"}
"""Columns of Snakemake's benchmark files and the metrics they become."""


class Point(NamedTuple):
    """One value of one metric at one step. MLflow groups metrics by the part of their name before `/`."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class RunRecord:
    """One run to be tracked.

    Attributes:
        kind: `sweep`, `pretrain` or `finetune`.
        name: Unique within its kind.
        exists: Whether the run has written any file.
        documents: Texts to upload, by file name.
        confusion: Confusion matrix K x K, rows are true classes, and the class names.
        maps: Up to `MAX_MAPS` of its maps, by scene.
        weights: Weights to log as a loadable model.
        lists: Tile lists that it read, by purpose.
        started, ended: Milliseconds since 1970, 0 if unknown.
    """

    kind: str
    name: str
    exists: bool
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    artifacts: list[Path] = field(default_factory=list)
    documents: dict[str, str] = field(default_factory=dict)
    confusion: tuple[list[list[int]], list[str]] | None = None
    maps: dict[str, Path] = field(default_factory=dict)
    weights: Path | None = None
    lists: dict[str, str] = field(default_factory=dict)
    started: int = 0
    ended: int = 0

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content, times excluded."""
        paths = {path.name: path for path in self.artifacts} | self.maps
        paths |= {"weights": self.weights} if self.weights else {}
        files = {name: file_digest(path) for name, path in paths.items()}
        return json_digest([self.params, self.tags, self.points, files, self.documents, self.confusion, self.lists])


def collect(results: Path, config: Config) -> list[RunRecord]:
    """Records of all pre-training methods and all runs of the sweep, whether they exist yet or not."""
    found = Results(results, config)
    pretrained = [_pretrain(found, method) for method in config.pretrain.methods]
    return pretrained + [_finetune(found, run) for run in config.runs]


def sweep_record(results: Path, config: Config) -> RunRecord:
    """Record of the sweep as a whole: config, splits and the tables over all runs."""
    sections = config.model_dump(mode="json", exclude={"report", "tracking", "compute"})
    text = yaml.safe_dump({**sections, "compute": config.compute.numerics()}, sort_keys=False, allow_unicode=True)
    names = ("splits/manifest.json", "normalisation.json", *SWEEP_TABLES)
    return RunRecord(
        "sweep",
        config.name,
        exists=True,
        tags={"kind": "sweep", "manifest_hash": _manifest_hash(results)},
        artifacts=[results / name for name in names if (results / name).exists()],
        documents={"config.yaml": text},
    )


def metric_name(text: str) -> str:
    """Replace the characters that MLflow refuses in a name by `_`; it takes letters, digits and `_-. :`."""
    return re.sub(r"[^\w\-. :]", "_", text).strip(". ") or "_"


def _pretrain(results: Results, method: str) -> RunRecord:
    settings = results.config.pretrain.methods[method]
    summary = results.summary("pretrain", method)
    return _training(
        results,
        ("pretrain", method),
        summary,
        {"method": method},
        method,
        {"method": method, "objective": settings.method, "variant": settings.variant},
        {key: float(value) for key, value in summary.items() if _is_number(value)},
    )


def _finetune(results: Results, run: Run) -> RunRecord:
    config = results.config
    properties = {key: value for key, value in run.record.items() if key != "name"}
    settings = {
        # without a prefix, because the UI lists differing params in alphabetical order
        **{key: value for key, value in properties.items() if value is not None},
        "finetune": config.finetune.model_dump(mode="json", exclude={"sweep"}),
        "evaluate": config.evaluate.model_dump(mode="json"),
    }
    summary, tested = results.summary("finetune", run.name), results.evaluation(run)
    metrics = dict(_final_scores(tested))
    metrics |= {key: float(summary[key]) for key in SUMMARY_METRICS if _is_number(summary.get(key))}
    validation = (summary.get("validation") or {}).items()
    metrics |= {f"validation/{key}": float(value) for key, value in validation if _is_number(value)}
    fraction = run.budget.fraction
    tags = {key: "" if value is None else str(value) for key, value in properties.items()}
    tags |= {"budget": run.budget.name, "fraction": "" if fraction is None else f"{fraction:g}"}
    record = _training(results, ("finetune", run.name), summary, settings, run.method, tags, metrics)
    confusion = tested.get("confusion")
    return replace(
        record,
        points=[*record.points, *_seed_intervals(results.scores, run)],
        confusion=(confusion, list(tested.get("iou") or {})) if confusion else None,
        maps=dict(_maps(results.root, run)) if run in config.map_runs else {},
        lists={"training": run.subset, "validation": "val", "testing": "test"},
    )


def _training(
    results: Results,
    kind_and_name: tuple[str, str],
    summary: Mapping[str, Any],
    settings: Mapping[str, Any],
    start: str,
    tags: dict[str, str],
    metrics: Mapping[str, float],
) -> RunRecord:
    """A record with what both kinds of training have; `start` is the pre-training that it runs or starts from."""
    kind, name = kind_and_name
    config, folder = results.config, results.root / kind / name
    files = [path for path in (folder / "curves.csv", folder / "summary.json") if path.exists()]
    weights = folder / "weights.safetensors"
    kept = weights if weights.exists() and config.tracking.weights else None
    metrics = {**metrics, **_costs(results.root, kind, name), **_costs(results.root, "evaluate", name)}
    device = {"cpu": "cpu", "gpu": "cuda"}.get(config.compute.accelerator, "unknown")
    ended = int(max((path.stat().st_mtime for path in files), default=0) * 1000)
    seconds = number(summary.get("seconds"))
    sections = {section: getattr(config, section).model_dump(mode="json") for section in SHARED_SECTIONS}
    sections |= {"pretrain": _pretrain_settings(config, start), "compute": config.compute.numerics()}
    return RunRecord(
        kind,
        name,
        exists=bool(files),
        params=_flatten({**settings, **sections}),
        tags={
            "kind": kind,
            **tags,
            "manifest_hash": _manifest_hash(results.root),
            "device": str(summary.get("device", device)),
            "weights": str(weights.relative_to(results.root)),
        },
        points=[*(Point(key, value) for key, value in metrics.items()), *_curve_points(results.curves(kind, name))],
        artifacts=[*files, kept] if kept and kind == "pretrain" else files,
        weights=kept if kind == "finetune" else None,
        lists={"training": "train"},
        started=ended - int(1000 * seconds) if seconds == seconds else ended,
        ended=ended,
    )


def _pretrain_settings(config: Config, method: str) -> dict[str, Any]:
    """Settings of a pre-training method; for a start without one, its weights file or `random`."""
    if method == RANDOM_START or method not in config.pretrain.methods:
        return {"weights": config.pretrain.weights.get(method, RANDOM_START)}
    settings = config.pretrain.model_dump(mode="json", exclude={"methods", "weights"})
    return {**settings, "method": config.pretrain.methods[method].model_dump(mode="json")}


def _curve_points(table: pd.DataFrame) -> Iterator[Point]:
    """Every value of `curves.csv`, by step."""
    for column in table.columns.drop("step", errors="ignore"):
        for step, value in zip(table["step"], table[column], strict=True):
            if _is_number(known := number(value)):
                yield Point(f"curve/{metric_name(str(column))}", known, int(step))


def _final_scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Scores of one `metrics.json`; those by class have a group each."""
    for key in (*ALL_METRICS, "n_tiles", "n_pixels", "per_tile_oa", "per_tile_miou"):
        if _is_number(metrics.get(key)):
            yield key, float(metrics[key])
    for key in CLASS_METRICS:
        by_class = metrics.get(key) or {}
        names = [metric_name(str(name)) for name in by_class]
        for i, (name, value) in enumerate(zip(names, by_class.values(), strict=True)):
            if _is_number(value):
                unique = name if names.count(name) == 1 else f"{name}_{i}"
                yield f"{key}/{unique}", float(value)


def _seed_intervals(scores: Scores, run: Run) -> Iterator[Point]:
    """Mean and limits over all draws and seeds of a run; the step is their number."""
    for metric in METRICS:
        estimate = scores.estimate(Series.of(run), run.budget, metric)
        if estimate is not None and estimate.low == estimate.low:
            limits = {"": estimate.mean, "_low": estimate.low, "_high": estimate.high}
            yield from (Point(f"all_seeds/{metric}{end}", v, estimate.runs) for end, v in limits.items())


def _costs(results: Path, stage: str, name: str) -> dict[str, float]:
    """Wall time, processor time and peak memory of a job, from Snakemake's benchmark file."""
    rows = read_table(results / "benchmarks" / stage / f"{name}.tsv", as_text=True, separator="\t").to_dict("records")
    costs = {f"cost/{stage}_{label}": number(rows[0].get(column)) for column, label in COSTS.items() if rows}
    return {key: value for key, value in costs.items() if value == value}


def _maps(results: Path, run: Run) -> Iterator[tuple[str, Path]]:
    """The first maps of a run, by scene, or by tile for a source of ready-made tiles."""
    table = read_table(results / "maps" / f"{run.name}.csv", as_text=True)
    for scene in table["scene"][:MAX_MAPS] if "scene" in table else ():
        path = results / "maps" / scene / f"{run.name}.tif"
        if path.is_file():
            yield metric_name(scene), path


def _manifest_hash(results: Path) -> str:
    path = results / "splits" / "manifest.json"
    return file_digest(path) if path.exists() else ""


def _flatten(tree: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as `section.key` and text."""
    (settings,) = pd.json_normalize(dict(tree)).to_dict("records")
    return {metric_name(str(key)): str(value)[:MAX_PARAM_CHARS] for key, value in settings.items()}


def _is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number other than NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
