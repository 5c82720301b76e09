"""The runs of one results folder in an MLflow experiment: one record for each run folder.

A record is kept while the hash of its content is the same, replaced when it changes, and deleted when the folder is
gone. Below the class is the content of a record: tags, params, metrics, data sets, files, images and the model.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import logging
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
from PIL import Image

from tmcnet.config import Config
from tmcnet.dataset.normalise import Normalisation
from tmcnet.evaluate.quicklook import paint_classes
from tmcnet.hashing import bytes_digest
from tmcnet.report.charts import canvas, plot_confusion, row_shares
from tmcnet.report.pictures import read_classes
from tmcnet.report.results import Results
from tmcnet.tracking.predictor import MODEL_FOLDER, write_mlflow_model
from tmcnet.tracking.records import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

KEY_TAG = "tmcnet.key"
HASH_TAG = "tmcnet.hash"
STATE_TAG = "state"
"""`current`, or `left` for a run that its sweep no longer names."""
PARENT_TAG = "mlflow.parentRunId"
"""Documented system tag of MLflow."""
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}
"""Without this tag, the UI takes the experiment for one of language models and hides its runs. There is no Python API
for it; a test compares it with the installed UI."""
MAX_RUNS = 50_000
"""Every MLflow server returns at least this many runs for one search."""
DATA_TAG_PREFIX = "data_"
ARTIFACT_FOLDER = "mlartifacts"
"""Folder beside a database that holds the files of its runs."""
MAX_MAP_SIDE_PX = 600


@dataclass(frozen=True)
class Row:
    """One line of `tracking.csv`.

    Attributes:
        run: Name of the run.
        kind: `sweep`, `pretrain` or `finetune`.
        run_id: Its id in MLflow; empty if it is not recorded.
        status: `new`; `replaced` if its content changed; `unchanged`; `missing` (no files); or `pending: <reason>`.
        url: Its page in the MLflow UI.
    """

    run: str
    kind: str
    run_id: str
    status: str
    url: str = ""


class TrackedRuns:
    """The runs of one results folder in its experiment, which the config names.

    An experiment of the same name with another `mlartifacts` folder than `artifact_location` (None: the server
    chooses one) was moved or copied together with its results. It is deleted the way MLflow does (it can be
    restored), and the runs are recorded anew. New runs get the `tags`; existing runs only those that begin with
    `data_`.
    """

    def __init__(
        self, client: MlflowClient, results: Results, artifact_location: str | None, tags: dict[str, str]
    ) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.client, self.results = client, results
        # Several people may send the same data set to one server: keys distinguish their results folders.
        owner = f"{getpass.getuser()}:{results.root.resolve()}"
        self.source = bytes_digest(owner)[:12]
        self.tags = {**tags, "host": socket.gethostname(), "results": str(results.root), STATE_TAG: "current"}
        self.experiment = self._open_experiment(artifact_location)
        self.known = self._known_runs()

    def sync(self, records: Sequence[RunRecord]) -> Iterator[Row]:
        """Bring the records up to date, the sweep first, then its children; one row each in the same order."""
        sweep = self._sync_one(records[0], None)
        yield sweep
        for record in records[1:]:
            yield self._sync_one(record, sweep.run_id)
        for key, runs in self.known.items():  # of runs that left the sweep
            _, kind, name = key.split("/", 2)
            if (self.results.root / kind / name).exists():
                self._set_tags(runs[0], {STATE_TAG: "left", PARENT_TAG: sweep.run_id})
                runs = runs[1:]
            self._delete(runs)

    def _open_experiment(self, location: str | None) -> str:
        name = self.results.config.name
        found = self.client.get_experiment_by_name(name)
        if found is not None and location is not None:
            old: str = found.artifact_location
            if old != location and old.endswith(f"/{ARTIFACT_FOLDER}"):
                self.client.rename_experiment(found.experiment_id, f"{name}, moved {uuid4().hex[:8]}")
                self.client.delete_experiment(found.experiment_id)
                found = None
        if found is None:
            return str(self.client.create_experiment(name, artifact_location=location, tags=KIND_TAG))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _known_runs(self) -> dict[str, list[Run]]:
        """This folder's runs by key. An interrupted sync leaves one without a hash, or an old one beside the new."""
        own = self.client.search_runs(
            [self.experiment], f"tags.`{KEY_TAG}` LIKE '{self.source}/%'", max_results=MAX_RUNS
        )
        known: dict[str, list[Run]] = {}
        for run in sorted(own, key=lambda run: HASH_TAG not in run.data.tags):
            known.setdefault(run.data.tags[KEY_TAG], []).append(run)
        return known

    def _sync_one(self, record: RunRecord, parent: str | None) -> Row:
        key = f"{self.source}/{record.kind}/{record.name}"
        old = self.known.pop(key, [])
        if not record.exists:
            self._delete(old)
            return Row(record.name, record.kind, "", "missing")
        parent_tag = {PARENT_TAG: parent} if parent else {}
        same = [run for run in old if run.data.tags.get(HASH_TAG) == record.hash]
        if same:
            data = {key: value for key, value in self.tags.items() if key.startswith(DATA_TAG_PREFIX)}
            self._set_tags(same[0], {**data, **parent_tag, STATE_TAG: "current"})
            run_id, status = str(same[0].info.run_id), "unchanged"
        else:
            tags = {**self.tags, **record.tags, **parent_tag, KEY_TAG: key}
            run_id, status = self._create(record, tags), "replaced" if old else "new"
        self._delete(run for run in old if run.info.run_id != run_id)
        return Row(record.name, record.kind, run_id, status)

    def _create(self, record: RunRecord, tags: dict[str, str]) -> str:
        """Write a new run, and the hash last, so that the next sync replaces an interrupted one."""
        run = self.client.create_run(self.experiment, start_time=record.started, tags=tags, run_name=record.name)
        run_id = str(run.info.run_id)
        _log_content(self.client, run_id, record, self.results)
        self.client.set_terminated(run_id, "FINISHED", record.ended)
        self.client.set_tag(run_id, HASH_TAG, record.hash)
        return run_id

    def _delete(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self.client.delete_run(run.info.run_id)

    def _set_tags(self, run: Run, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            if run.data.tags.get(key) != value:
                self.client.set_tag(run.info.run_id, key, value)


def _log_content(client: MlflowClient, run_id: str, record: RunRecord, results: Results) -> None:
    """Write a record into a new run."""
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
    _log_images(client, run_id, record, results)
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


def _log_images(client: MlflowClient, run_id: str, record: RunRecord, results: Results) -> None:
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
