"""Each training of a results folder as one flat record: what it was told, how it went, what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tmcnet.config import RANDOM_START, Config, Run
from tmcnet.hashing import file_digest, json_digest
from tmcnet.report.files import number, read_json, read_table
from tmcnet.report.scores import Scores
from tmcnet.tracking.points import (
    Point,
    as_dict,
    costs,
    curve_points,
    final_scores,
    intervals,
    is_number,
    metric_name,
)

_LONGEST_VALUE = 5000
_SHARED = ("source", "sensors", "labels", "align", "tiles", "splits", "normalise", "model")
_TABLES = ("metrics.csv", "metrics.json", "scores.json", "comparisons.csv")
_EXAMPLES = 3
_FIGURES = ("best_step", "seconds", "gpu_memory_mib")


@dataclass(frozen=True)
class Record:
    """One run as a tracker sees it.

    Attributes:
        kind: `sweep`, `pretrain` or `finetune`.
        name: Unique within its kind.
        exists: Whether anything of it lies on disk.
        params: What it was told.
        tags: What to filter by.
        points: Curves and final scores. What stands before a `/` is the group that trackers show them in.
        artifacts: Small files to keep.
        documents: Texts to keep, by file name.
        confusion: Confusion matrix K x K, rows truth, and the names of the classes.
        maps: A few of the maps that it drew, by scene.
        weights: Weights to keep as a model that can be loaded.
        lists: The lists of tiles that it read, by purpose.
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
    confusion: tuple[list[list[int]], list[str]] | None = None
    maps: dict[str, Path] = field(default_factory=dict)
    weights: Path | None = None
    lists: dict[str, str] = field(default_factory=dict)
    started: int = 0
    ended: int = 0

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content; times do not count."""
        paths = {path.name: path for path in self.artifacts} | self.maps
        paths |= {"weights": self.weights} if self.weights else {}
        files = {name: file_digest(path) for name, path in paths.items()}
        points = [(p.name, p.value, p.step) for p in self.points]
        content = [self.params, self.tags, points, files, self.documents, self.confusion, self.lists]
        return json_digest(content)


def collect(results: Path, config: Config) -> list[Record]:
    """Records of all pre-training methods and all runs of the sweep, whether they exist yet or not."""
    scores = Scores(results)
    pretrained = [_pretrain(results, config, method) for method in config.pretrain.methods]
    return pretrained + [_finetune(results, config, run, scores) for run in config.runs]


def sweep_record(results: Path, config: Config) -> Record:
    """The sweep as a whole: config, splits and the tables over all runs."""
    told = config.model_dump(mode="json", exclude={"report", "tracking", "compute"})
    text = yaml.safe_dump({**told, "compute": config.compute.numerics()}, sort_keys=False, allow_unicode=True)
    names = ("splits/manifest.json", "normalisation.json", *_TABLES)
    return Record(
        "sweep",
        config.name,
        exists=True,
        tags={"kind": "sweep", "manifest_hash": _manifest_hash(results)},
        artifacts=[results / name for name in names if (results / name).exists()],
        documents={"config.yaml": text},
    )


def _pretrain(results: Path, config: Config, method: str) -> Record:
    settings = config.pretrain.methods[method]
    summary = read_json(results / "pretrain" / method / "summary.json")
    final = {key: float(value) for key, value in summary.items() if is_number(value)}
    tags = {"kind": "pretrain", "method": method, "objective": settings.method, "variant": settings.variant}
    told = {"method": method, **_start(config, method), **_shared(config)}
    final |= costs(results, "pretrain", method)
    record = _record(results, config, ("pretrain", method), told, tags, final)
    weights = results / "pretrain" / method / "weights.safetensors"
    kept = [weights] if weights.exists() and config.tracking.weights else []
    return replace(record, lists={"training": "train"}, artifacts=[*record.artifacts, *kept])


def _finetune(results: Path, config: Config, run: Run, scores: Scores) -> Record:
    told = {
        # without a prefix: the UI offers params that differ in alphabetical order
        **{key: value for key, value in run.record.items() if key != "name" and value is not None},
        "finetune": config.finetune.model_dump(mode="json", exclude={"sweep"}),
        "evaluate": config.evaluate.model_dump(mode="json"),
        **_start(config, run.method),
        **_shared(config),
    }
    metrics = read_json(results / "evaluate" / run.name / "metrics.json")
    summary = read_json(results / "finetune" / run.name / "summary.json")
    final = dict(final_scores(metrics))
    final |= {key: float(summary[key]) for key in _FIGURES if is_number(summary.get(key))}
    final |= {f"validation/{key}": float(v) for key, v in as_dict(summary.get("validation")).items() if is_number(v)}
    final |= costs(results, "finetune", run.name) | costs(results, "evaluate", run.name)
    weights = results / "finetune" / run.name / "weights.safetensors"
    confusion = metrics.get("confusion")
    common = _record(results, config, ("finetune", run.name), told, _run_tags(run), final)
    return replace(
        common,
        points=[*common.points, *intervals(scores, run)],
        confusion=(confusion, list(as_dict(metrics.get("iou")))) if confusion else None,
        maps=dict(_maps(results, run)) if run in config.map_runs else {},
        weights=weights if weights.exists() and config.tracking.weights else None,
        lists={"training": run.subset, "validation": "val", "testing": "test"},
    )


def _run_tags(run: Run) -> dict[str, str]:
    return {
        "kind": "finetune",
        "method": run.method,
        "network": run.network,
        "variant": run.variant,
        "budget": run.budget.name,
        "fraction": "" if run.budget.fraction is None else f"{run.budget.fraction:g}",
        "points": "" if run.budget.points is None else str(run.budget.points),
        "draw": str(run.draw),
        "seed": str(run.seed),
    }


def _start(config: Config, method: str) -> dict[str, Any]:
    """What the pre-training that a run starts from was told."""
    if method == RANDOM_START or method not in config.pretrain.methods:
        return {"pretrain": {"weights": config.pretrain.weights.get(method, RANDOM_START)}}
    settings = config.pretrain.model_dump(mode="json", exclude={"methods", "weights"})
    return {"pretrain": {**settings, "method": config.pretrain.methods[method].model_dump(mode="json")}}


def _shared(config: Config) -> dict[str, Any]:
    sections = {name: getattr(config, name).model_dump(mode="json") for name in _SHARED}
    return {**sections, "compute": config.compute.numerics()}


def _record(
    results: Path,
    config: Config,
    place: tuple[str, str],
    told: Mapping[str, Any],
    tags: dict[str, str],
    final: Mapping[str, float],
) -> Record:
    """What the two kinds of training have in common: curves, files, times, tags of machine and splits."""
    kind, name = place
    folder = results / kind / name
    files = [path for path in (folder / "curves.csv", folder / "summary.json") if path.exists()]
    ended = int(max((path.stat().st_mtime for path in files), default=0) * 1000)
    summary = read_json(folder / "summary.json")
    seconds = number(summary.get("seconds"))
    known = {"cpu": "cpu", "gpu": "cuda"}.get(config.compute.accelerator, "unknown")
    return Record(
        kind,
        name,
        exists=bool(files),
        params=dict(_flatten(told)),
        tags={
            **tags,
            "manifest_hash": _manifest_hash(results),
            "device": str(summary.get("device", known)),
            "weights": str(Path(kind, name, "weights.safetensors")),
        },
        points=[*(Point(k, v) for k, v in final.items()), *curve_points(folder / "curves.csv")],
        artifacts=files,
        started=ended - int(1000 * seconds) if seconds == seconds else ended,
        ended=ended,
    )


def _maps(results: Path, run: Run) -> Iterator[tuple[str, Path]]:
    """The first maps of a run, by scene; those of ready-made tiles are called by tile."""
    table = read_table(results / "maps" / f"{run.name}.csv", as_text=True)
    for scene in table["scene"][:_EXAMPLES] if "scene" in table else ():
        path = results / "maps" / scene / f"{run.name}.tif"
        if path.is_file():
            yield metric_name(scene), path


def _manifest_hash(results: Path) -> str:
    path = results / "splits" / "manifest.json"
    return file_digest(path) if path.exists() else ""


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{metric_name(str(key))}.")
        else:
            yield f"{prefix}{metric_name(str(key))}", str(value)[:_LONGEST_VALUE]
