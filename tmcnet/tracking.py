"""Send what lies in a results folder to MLflow. Trainings write files and know nothing of this; one serial job syncs.

MLflow only records: a server that is down costs a warning, never a result.
"""

from __future__ import annotations

import csv
import getpass
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tmcnet.config import Config
from tmcnet.report.records import Record, collect, sweep_record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Tracked

KEY = "tmcnet.key"
HASH = "tmcnet.hash"
STALE = "tmcnet.stale"
_PARENT = "mlflow.parentRunId"
_DATA = "data_"
_BATCH = 1000
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Row:
    """One line of `tracking.csv`.

    Attributes:
        status: `new`, `updated`, `unchanged`, `missing` (nothing on disk yet), `stale` (recorded once, its files are
            gone) or `pending: <reason>`.
    """

    run: str
    kind: str
    run_id: str
    status: str


def sync(results: Path, config: Config, out: Path, tags: dict[str, str]) -> None:
    """Bring MLflow up to date with a results folder, without doubles however often it is called.

    The data set is an experiment, the sweep a parent run, and each pre-training method and fine-tuned network a run
    nested in it. A run is found again by the tag `tmcnet.key` and left alone while its content hash is the same.

    Args:
        results: The results folder.
        config: The config that it was made with; `tracking.uri` says where to send it.
        out: Table of what was recorded: `run, kind, run_id, status`.
        tags: Further tags of every new run, such as `git_commit`. Those that name the data (`data_...`) are kept up
            to date in runs that stay, too: the same data may have come under version control only now.
    """
    records = [sweep_record(results, config), *collect(results, config)]
    rows: list[Row] = []
    with _quiet_environment():
        try:
            rows.extend(_Store(results, config, tags).sync(records))
        except Exception as error:  # whatever a tracking server does must not stop the workflow
            rows.extend(_pending(records[len(rows) :], error))
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    with draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["run", "kind", "run_id", "status"])
        table.writerows([row.run, row.kind, row.run_id, row.status] for row in rows)
    draft.replace(out)


def tracking_uri(results: Path, config: Config) -> str:
    """Where runs go: the config's address, else `MLFLOW_TRACKING_URI`, else a database in the results folder."""
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_database(results)}"


def _database(results: Path) -> Path:
    return results.resolve() / "mlflow.db"


def _pending(records: list[Record], error: Exception) -> list[Row]:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    print(f"warning: runs were not recorded in MLflow, the next sync will try again: {reason}", file=sys.stderr)
    return [Row(r.name, r.kind, "", f"pending: {reason}") for r in records]


@contextmanager
def _quiet_environment() -> Iterator[None]:
    """Short waits, no telemetry, no chatter; what the user has set stays."""
    added = {key: value for key, value in _ENVIRONMENT.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


class _Store:
    """One results folder's runs in one MLflow experiment."""

    def __init__(self, results: Path, config: Config, tags: dict[str, str]) -> None:
        import logging

        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.results, self.config = results, config
        # Several people may send the same data set to one server: keys tell their results folders apart.
        owner = f"{getpass.getuser()}:{results.resolve()}"
        self.source = hashlib.sha256(owner.encode()).hexdigest()[:12]
        self.tags = {**tags, "host": socket.gethostname(), "results": str(results)}
        self.client: MlflowClient = MlflowClient(tracking_uri(results, config))
        self.experiment = self._experiment()
        self.known = self._known()

    def sync(self, records: list[Record]) -> Iterator[Row]:
        """Bring the records up to date, one row each in the same order, then a row for each run that went stale.

        Args:
            records: The sweep, then its children.
        """
        sweep = self._sync_sweep(records[0])
        yield sweep
        for record in records[1:]:
            yield self._sync_child(record, sweep.run_id)
        yield from self._left_over({self._key(record) for record in records})

    def _experiment(self) -> str:
        name = self.config.tracking.experiment or self.config.name
        found = self.client.get_experiment_by_name(name)
        if found is None:
            own = tracking_uri(self.results, self.config) == f"sqlite:///{_database(self.results)}"
            place = (self.results.resolve() / "mlartifacts").as_uri() if own else None
            # without this tag the UI takes the experiment for one of language models and hides its runs
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(self.client.create_experiment(name, artifact_location=place, tags=tags))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _known(self) -> dict[str, Tracked]:
        """This folder's runs by key; of doubles that a broken sync left behind only a finished one is kept."""
        known: dict[str, Tracked] = {}
        runs = [run for run in self._runs() if run.data.tags.get(KEY, "").startswith(f"{self.source}/")]
        for run in sorted(runs, key=lambda run: HASH not in run.data.tags):
            if known.setdefault(run.data.tags[KEY], run) is not run:
                self.client.delete_run(run.info.run_id)
        return known

    def _runs(self) -> Iterator[Tracked]:
        token = None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _key(self, record: Record) -> str:
        return f"{self.source}/{record.kind}/{record.name}"

    def _sync_sweep(self, record: Record) -> Row:
        """The sweep's own run. It is updated in place, because its children refer to it; so it has no params."""
        old = self.known.get(self._key(record))
        if old is None:
            run_id = self._create(record, None)
            self._fill(run_id, record)
            return Row(record.name, record.kind, run_id, "new")
        self._name_data(old)
        if old.data.tags.get(HASH) == record.hash:
            return Row(record.name, record.kind, old.info.run_id, "unchanged")
        self._fill(old.info.run_id, record)
        return Row(record.name, record.kind, old.info.run_id, "updated")

    def _sync_child(self, record: Record, parent: str) -> Row:
        old = self.known.get(self._key(record))
        if not record.exists:
            missing = Row(record.name, record.kind, "", "missing")
            return missing if old is None else self._mark_stale(record.kind, record.name, old)
        if old is not None and old.data.tags.get(HASH) == record.hash:
            if STALE in old.data.tags:
                self.client.delete_tag(old.info.run_id, STALE)
            self._name_data(old)
            return Row(record.name, record.kind, old.info.run_id, "unchanged")
        run_id = self._create(record, parent)
        self._fill(run_id, record)
        if old is not None:  # params cannot be changed, so a changed run is recorded anew and the old one deleted
            self.client.delete_run(old.info.run_id)
        return Row(record.name, record.kind, run_id, "new" if old is None else "updated")

    def _name_data(self, run: Tracked) -> None:
        for key, value in self.tags.items():
            if key.startswith(_DATA) and run.data.tags.get(key) != value:
                self.client.set_tag(run.info.run_id, key, value)

    def _create(self, record: Record, parent: str | None) -> str:
        tags = {**self.tags, **record.tags, KEY: self._key(record), **({_PARENT: parent} if parent else {})}
        run = self.client.create_run(self.experiment, start_time=record.started, tags=tags, run_name=record.name)
        return str(run.info.run_id)

    def _fill(self, run_id: str, record: Record) -> None:
        """Everything but the key; the hash comes last, so that a run broken off half-way is recorded anew."""
        from mlflow.entities import Metric, Param, RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in record.tags.items()])
        params = [Param(key, value) for key, value in record.params.items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[start : start + 100])
        points = [Metric(p.name, p.value, record.started, p.step) for p in record.points]
        for start in range(0, len(points), _BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + _BATCH])
        for path in record.artifacts:
            self.client.log_artifact(run_id, str(path))
        for name, content in record.documents.items():
            self.client.log_text(run_id, content, name)
        self.client.set_terminated(run_id, "FINISHED", record.ended)
        self.client.set_tag(run_id, HASH, record.hash)

    def _mark_stale(self, kind: str, name: str, run: Tracked) -> Row:
        self.client.set_tag(run.info.run_id, STALE, "true")
        return Row(name, kind, run.info.run_id, "stale")

    def _left_over(self, known: set[str]) -> Iterator[Row]:
        """Runs that left the sweep: they stay as they are, unless their files are gone too."""
        for key, run in self.known.items():
            _, kind, name = key.split("/", 2)
            if kind != "sweep" and key not in known and not (self.results / kind / name).exists():
                yield self._mark_stale(kind, name, run)
