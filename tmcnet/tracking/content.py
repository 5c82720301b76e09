"""What a run in MLflow holds: tags, params, metrics, data sets, files, pictures and the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from tmcnet.classes import ClassTable
from tmcnet.config import Config
from tmcnet.tracking.datasets import dataset_inputs
from tmcnet.tracking.models import FOLDER, environment, write_model
from tmcnet.tracking.pictures import confusion_picture, map_pictures
from tmcnet.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
_PARAMS, _METRICS = 100, 1000
"""Most that one request takes."""


def log_content(
    client: MlflowClient,
    run_id: str,
    record: Record,
    known: set[tuple[str, int, float]],
    results: Path,
    config: Config,
) -> None:
    """Write a record into a run that holds nothing it contradicts.

    Args:
        client: The tracking server.
        run_id: The run.
        record: What to write.
        known: Metric, step and value of the points that the run has already.
        results: The results folder.
        config: The config that it was made with.
    """
    from mlflow.entities import Metric, Param, RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in record.tags.items()])
    for params in _chunks([Param(key, value) for key, value in record.params.items()], _PARAMS):
        client.log_batch(run_id, params=params)
    new = [p for p in record.points if (p.name, p.step, p.value) not in known]
    for metrics in _chunks([Metric(p.name, p.value, record.started, p.step) for p in new], _METRICS):
        client.log_batch(run_id, metrics=metrics)
    if inputs := list(dataset_inputs(results, config, record)):
        client.log_inputs(run_id, inputs)
    for path in record.artifacts:
        client.log_artifact(run_id, str(path))
    for name, text in {**record.documents, "environment.txt": environment()}.items():
        client.log_text(run_id, text, name)
    _log_pictures(client, run_id, record, results)
    _log_model(client, run_id, record, results)


def _chunks(items: list[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _log_pictures(client: MlflowClient, run_id: str, record: Record, results: Path) -> None:
    if record.confusion is not None:
        matrix, names = record.confusion
        client.log_dict(run_id, {"rows": "truth", "classes": names, "counts": matrix}, "confusion.json")
        client.log_image(run_id, confusion_picture(matrix, names), "confusion.png")
    if record.maps:
        classes = ClassTable.read(results / "tiles" / "classes.csv")
        for scene, picture in map_pictures(record.maps, classes):
            client.log_image(run_id, picture, f"maps/{scene}.png")


def _log_model(client: MlflowClient, run_id: str, record: Record, results: Path) -> None:
    if record.weights is None:
        return
    from tmcnet.dataset.normalise import Normalisation

    scaling = Normalisation.read(results / "normalisation.json")
    n_classes = len(ClassTable.read(results / "tiles" / "classes.csv"))
    with TemporaryDirectory() as folder:
        model = Path(folder) / FOLDER
        write_model(model, record.weights, scaling, n_classes, {"run": record.name})
        client.log_artifacts(run_id, str(model), FOLDER)
