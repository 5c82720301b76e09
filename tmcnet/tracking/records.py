"""What MLflow records of a results folder: the content of every run, collected from files and written to a server."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from tmcnet.config import RANDOM_START, Config, Run
from tmcnet.dataset.normalise import Normalisation
from tmcnet.evaluate.quicklook import paint_classes
from tmcnet.evaluate.summary import CLASS_METRICS, GROUP_TABLES, TABLES
from tmcnet.hashing import bytes_digest, file_digest, json_digest
from tmcnet.readers import number, read_table
from tmcnet.report.charts import canvas, plot_confusion, row_shares
from tmcnet.report.names import Series
from tmcnet.report.pictures import read_classes
from tmcnet.report.results import Results
from tmcnet.report.scores import ALL_METRICS, METRICS, Scores
from tmcnet.tracking.predictor import MODEL_FOLDER, write_mlflow_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

MAX_PARAM_CHARS = 5000
"""MLflow refuses longer values."""
MAX_MAPS, MAX_MAP_SIDE_PX = 3, 600
SHARED_SECTIONS = ("source", "sensors", "labels", "align", "tiles", "splits", "normalise", "model")
SWEEP_FILES = ("splits/manifest.json", "normalisation.json", *TABLES, *GROUP_TABLES)
TEST_METRICS = (*ALL_METRICS, "n_tiles", "n_pixels", "per_tile_oa", "per_tile_miou")
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


def sweep_record(results: Path, config: Config) -> RunRecord:
    """Record of the sweep as a whole: config, splits and the tables over all runs."""
    sections = config.model_dump(mode="json", exclude={"report", "tracking", "compute"})
    text = yaml.safe_dump({**sections, "compute": config.compute.numerics()}, sort_keys=False, allow_unicode=True)
    return RunRecord(
        "sweep",
        config.name,
        exists=True,
        tags={"kind": "sweep", "manifest_hash": _manifest_hash(results)},
        artifacts=[results / name for name in SWEEP_FILES if (results / name).exists()],
        documents={"config.yaml": text},
    )


def collect(results: Path, config: Config) -> list[RunRecord]:
    """Records of all pre-training methods and all runs of the sweep, whether they exist yet or not."""
    found = Results(results, config)
    return [
        *(_pretrain(found, method) for method in config.pretrain.methods),
        *(_finetune(found, r) for r in config.runs),
    ]


def _pretrain(results: Results, method: str) -> RunRecord:
    settings = results.config.pretrain.methods[method]
    tags = {"method": method, "objective": settings.method, "variant": settings.variant}
    metrics = _numbers(results.summary("pretrain", method))
    record = _training(results, "pretrain", method, method, {"method": method}, metrics)
    artifacts = [*record.artifacts, *filter(None, [record.weights])]
    return replace(record, tags=record.tags | tags, artifacts=artifacts, weights=None)


def _finetune(results: Results, run: Run) -> RunRecord:
    config, summary, tested = results.config, results.summary("finetune", run.name), results.evaluation(run)
    properties = {key: value for key, value in run.record.items() if key != "name"}
    settings = {
        # without a prefix, because the UI lists differing params in alphabetical order
        **{key: value for key, value in properties.items() if value is not None},
        "finetune": config.finetune.model_dump(mode="json", exclude={"sweep"}),
        "evaluate": config.evaluate.model_dump(mode="json"),
    }
    metrics = {
        **_final_scores(tested),
        **_numbers({key: summary.get(key) for key in SUMMARY_METRICS}),
        **_numbers(summary.get("validation") or {}, "validation/"),
    }
    tags = {key: "" if value is None else str(value) for key, value in properties.items()}
    tags |= {"budget": run.budget.name, "fraction": f"{run.budget.amount:g}" if run.budget.kind == "R" else ""}
    record = _training(results, "finetune", run.name, run.method, settings, metrics)
    confusion = tested.get("confusion")
    return replace(
        record,
        tags=record.tags | tags,
        points=[*record.points, *_seed_intervals(results.scores, run)],
        confusion=(confusion, list(tested.get("iou") or {})) if confusion else None,
        maps=dict(_maps(results.root, run)) if run in config.map_runs else {},
        lists={"training": run.subset, "validation": "val", "testing": "test"},
    )


def _training(
    results: Results, kind: str, name: str, start: str, settings: Mapping[str, Any], metrics: Mapping[str, float]
) -> RunRecord:
    """A record with what both kinds of training have; `start` is the pre-training that it runs or starts from."""
    config, folder, summary = results.config, results.root / kind / name, results.summary(kind, name)
    files = [path for path in (folder / "curves.csv", folder / "summary.json") if path.exists()]
    weights = folder / "weights.safetensors"
    metrics = {**metrics, **_costs(results.root, kind, name), **_costs(results.root, "evaluate", name)}
    device = {"cpu": "cpu", "gpu": "cuda"}.get(config.compute.accelerator, "unknown")
    ended = int(max((path.stat().st_mtime for path in files), default=0) * 1000)
    sections = {section: getattr(config, section).model_dump(mode="json") for section in SHARED_SECTIONS}
    sections |= {"pretrain": _pretrain_settings(config, start), "compute": config.compute.numerics()}
    (params,) = pd.json_normalize({**settings, **sections}).to_dict("records")
    curves = results.curves(kind, name)
    return RunRecord(
        kind,
        name,
        exists=bool(files),
        params={metric_name(str(key)): str(value)[:MAX_PARAM_CHARS] for key, value in params.items()},
        tags={
            "kind": kind,
            "manifest_hash": _manifest_hash(results.root),
            "device": str(summary.get("device", device)),
            "weights": str(weights.relative_to(results.root)),
        },
        points=[*(Point(key, value) for key, value in metrics.items()), *_curve_points(curves)],
        artifacts=files,
        weights=weights if weights.exists() and config.tracking.weights else None,
        lists={"training": "train"},
        started=ended - int(1000 * np.nan_to_num(number(summary.get("seconds")))),
        ended=ended,
    )


def _pretrain_settings(config: Config, method: str) -> dict[str, Any]:
    """Settings of a pre-training method; for a start without one, its weights file or `random`."""
    if method not in config.pretrain.methods:
        return {"weights": config.pretrain.weights.get(method, RANDOM_START)}
    settings = config.pretrain.model_dump(mode="json", exclude={"methods", "weights"})
    return {**settings, "method": config.pretrain.methods[method].model_dump(mode="json")}


def metric_name(text: str) -> str:
    """Replace the characters that MLflow refuses in a name by `_`; it takes letters, digits and `_-. :`."""
    return re.sub(r"[^\w\-. :]", "_", text).strip(". ") or "_"


def _numbers(values: Mapping[str, object], prefix: str = "") -> dict[str, float]:
    """The values of a JSON file that are numbers other than NaN."""
    known = {key: value for key, value in values.items() if isinstance(value, int | float) and value == value}
    return {f"{prefix}{key}": float(value) for key, value in known.items() if not isinstance(value, bool)}


def _curve_points(table: pd.DataFrame) -> list[Point]:
    """Every value of `curves.csv`, by step."""
    columns = {f"curve/{metric_name(str(name))}": table[name] for name in table.columns.drop("step", errors="ignore")}
    rows = [
        (name, number(value), step)
        for name, column in columns.items()
        for step, value in zip(table["step"], column, strict=True)
    ]
    return [Point(name, value, int(step)) for name, value, step in rows if value == value]


def _final_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Scores of one `metrics.json`; those by class have a group each."""
    scores = _numbers({key: metrics.get(key) for key in TEST_METRICS})
    for key in CLASS_METRICS:
        by_class = metrics.get(key) or {}
        names = [metric_name(str(name)) for name in by_class]
        unique = [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names)]
        scores |= _numbers(dict(zip(unique, by_class.values(), strict=True)), f"{key}/")
    return scores


def _seed_intervals(scores: Scores, run: Run) -> Iterator[Point]:
    """Mean and limits over all draws and seeds of a run; the step is their number."""
    for metric in METRICS:
        estimate = scores.estimate(Series.of(run), run.budget, metric)
        if estimate is not None and estimate.has_interval:
            limits = {"": estimate.mean, "_low": estimate.low, "_high": estimate.high}
            yield from (Point(f"all_seeds/{metric}{end}", v, estimate.runs) for end, v in limits.items())


def _costs(results: Path, stage: str, name: str) -> dict[str, float]:
    """Wall time, processor time and peak memory of a job, from Snakemake's benchmark file."""
    rows = read_table(results / "benchmarks" / stage / f"{name}.tsv", as_text=True, separator="\t").to_dict("records")
    return _numbers(
        {label: number(row.get(column)) for row in rows[:1] for column, label in COSTS.items()}, f"cost/{stage}_"
    )


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


def log_record(client: MlflowClient, run_id: str, record: RunRecord, results: Results) -> None:
    """Write a record into a new run: params, metrics, data sets, files, images and the model."""
    from mlflow.entities import Metric, Param

    params = [Param(key, value) for key, value in record.params.items()]
    metrics = [Metric(p.name, p.value, record.started, p.step) for p in record.points]
    client.log_batch(run_id, metrics, params)  # in several requests, if they are many
    if inputs := list(_dataset_inputs(results, record)):
        client.log_inputs(run_id, inputs)
    for path in record.artifacts:
        client.log_artifact(run_id, str(path))
    for name, text in {**record.documents, "environment.txt": _installed_packages()}.items():
        client.log_text(run_id, text, name)
    if record.confusion is not None:
        matrix, names = record.confusion
        client.log_dict(run_id, {"rows": "truth", "classes": names, "counts": matrix}, "confusion.json")
        side = min(3.0 + 0.45 * len(names), 12.0)
        with canvas(side, side - 0.8) as figure:
            plot_confusion(figure.axes[0], row_shares(np.array(matrix, dtype=float)), names)
            figure.axes[0].set_title("% of each true class")
            client.log_figure(run_id, figure, "confusion.png")
    for scene, path in record.maps.items():
        ids = read_classes(path, MAX_MAP_SIDE_PX)
        if ids is not None:
            client.log_image(run_id, Image.fromarray(paint_classes(ids, results.classes)), f"maps/{scene}.png")
    if record.weights is not None:
        scaling = Normalisation.read(results.root / "normalisation.json")
        with TemporaryDirectory() as folder:
            model = Path(folder) / MODEL_FOLDER
            write_mlflow_model(model, record.weights, scaling, len(results.classes), {"run": record.name})
            client.log_artifacts(run_id, str(model), MODEL_FOLDER)


def _dataset_inputs(results: Results, record: RunRecord) -> Iterator[DatasetInput]:
    """The tile lists that a run read, as MLflow data sets named by list, such as `trainR5_s2`.

    The digest covers the names of the tiles, and their pixels through the hash of the tile index.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    manifest, config = results.manifest, results.config
    for purpose, name in record.lists.items():
        if entry := manifest.get("lists", {}).get(name):
            dataset = Dataset(
                name=f"{config.name} {name}",
                digest=bytes_digest(f"{entry.get('sha256')} {manifest.get('index_sha256')}")[:16],
                source_type="local",
                source=json.dumps({"uri": config.data_root, "list": f"splits/{name}_RGB.txt"}),
                schema=_schema(config),
                profile=json.dumps({"tiles": entry.get("n"), "class_shares": entry.get("class_shares")}),
            )
            yield DatasetInput(dataset, [InputTag("mlflow.data.context", purpose)])


def _schema(config: Config) -> str:
    """Bands, classes and types of a tile as an MLflow tensor schema."""
    from mlflow.types import Schema, TensorSpec

    def spec(name: str, dtype: type, channels: int) -> TensorSpec:
        return TensorSpec(np.dtype(dtype), (channels, config.tiles.size, config.tiles.size), name)

    images = [spec(f"{m} ({', '.join(s.bands)})", np.float32, len(s.bands)) for m, s in config.sensors.items()]
    classes = ", ".join(c.name for c in config.labels.classes)
    label = spec(f"label ({classes})" if classes else "label", np.uint8, 1)
    parts = {"features": Schema(images).to_json(), "targets": Schema([label]).to_json()}
    return json.dumps({"mlflow_tensorspec": parts})


@cache
def _installed_packages() -> str:
    """Every installed package with its version, one per line, as pip requirements."""
    versions = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return "".join(f"{name}=={versions[name]}\n" for name in sorted(versions, key=str.lower))
