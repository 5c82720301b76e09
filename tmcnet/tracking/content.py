"""The content of one MLflow run: tags, params, metrics, data sets, files, images and the model."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tmcnet.classes import ClassTable
from tmcnet.config import Config
from tmcnet.dataset.normalise import Normalisation
from tmcnet.hashing import bytes_digest
from tmcnet.report.charts import canvas, plot_confusion, row_shares
from tmcnet.report.files import read_json
from tmcnet.report.pictures import paint_classes, read_classes
from tmcnet.tracking.predictor import MODEL_FOLDER, write_model
from tmcnet.tracking.records import Point, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

MAX_PARAMS_PER_REQUEST, MAX_METRICS_PER_REQUEST = 100, 1000
"""Documented limits of `MlflowClient.log_batch`."""
MAX_MAP_SIDE_PX = 600


def log_content(
    client: MlflowClient, run_id: str, record: Record, known: set[Point], results: Path, config: Config
) -> None:
    """Write a record into a new run, or add what a run lacks that has the points `known` already."""
    from mlflow.entities import Metric, Param, RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in record.tags.items()])
    params = [Param(key, value) for key, value in record.params.items()]
    for start in range(0, len(params), MAX_PARAMS_PER_REQUEST):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS_PER_REQUEST])
    metrics = [Metric(p.name, p.value, record.started, p.step) for p in record.points if p not in known]
    for start in range(0, len(metrics), MAX_METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS_PER_REQUEST])
    if inputs := list(_dataset_inputs(results, config, record)):
        client.log_inputs(run_id, inputs)
    for path in record.artifacts:
        client.log_artifact(run_id, str(path))
    for name, text in {**record.documents, "environment.txt": _installed_packages()}.items():
        client.log_text(run_id, text, name)
    _log_images(client, run_id, record, results)
    if record.weights is not None:
        scaling = Normalisation.read(results / "normalisation.json")
        n_classes = len(ClassTable.read(results / "tiles" / "classes.csv"))
        with TemporaryDirectory() as folder:
            model = Path(folder) / MODEL_FOLDER
            write_model(model, record.weights, scaling, n_classes, {"run": record.name})
            client.log_artifacts(run_id, str(model), MODEL_FOLDER)


def _dataset_inputs(results: Path, config: Config, record: Record) -> Iterator[DatasetInput]:
    """The tile lists that a run read, as MLflow data sets named by list, such as `trainR5_s2`.

    The digest covers the names of the tiles, and their pixels through the hash of the tile index.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    manifest = read_json(results / "splits" / "manifest.json")
    for purpose, name in record.lists.items():
        entry = manifest.get("lists", {}).get(name)
        if not entry:
            continue
        content = f"{entry.get('sha256')} {manifest.get('index_sha256')}"
        dataset = Dataset(
            name=f"{config.name} {name}",
            digest=bytes_digest(content)[:16],
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


def _log_images(client: MlflowClient, run_id: str, record: Record, results: Path) -> None:
    if record.confusion is not None:
        matrix, names = record.confusion
        client.log_dict(run_id, {"rows": "truth", "classes": names, "counts": matrix}, "confusion.json")
        client.log_image(run_id, _confusion_image(matrix, names), "confusion.png")
    if record.maps:
        classes = ClassTable.read(results / "tiles" / "classes.csv")
        for scene, path in record.maps.items():
            ids = read_classes(path, MAX_MAP_SIDE_PX)
            if ids is not None:
                client.log_image(run_id, Image.fromarray(paint_classes(ids, classes)), f"maps/{scene}.png")


def _confusion_image(matrix: list[list[int]], names: list[str]) -> Image.Image:
    """Draw a K x K confusion matrix; rows are true classes and sum to 100 %."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    side = min(3.0 + 0.45 * len(names), 12.0)
    with canvas(side, side - 0.8) as figure:
        drawn = FigureCanvasAgg(figure)
        plot_confusion(figure.axes[0], row_shares(np.array(matrix, dtype=float)), names)
        figure.axes[0].set_title("% of each true class")
        drawn.draw()
        return Image.fromarray(np.asarray(drawn.buffer_rgba())).convert("RGB")
