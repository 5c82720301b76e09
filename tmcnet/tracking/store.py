"""One results folder's runs in one MLflow experiment: found again by key, left alone, continued or recorded anew."""

from __future__ import annotations

import getpass
import logging
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from tmcnet.config import Config
from tmcnet.hashing import bytes_digest
from tmcnet.tracking.content import log_content
from tmcnet.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Tracked

KEY = "tmcnet.key"
HASH = "tmcnet.hash"
STATE = "state"
"""Tag of a run: `current`; `left` where its sweep no longer names it; `gone` where its files are gone, too."""
_PARENT = "mlflow.parentRunId"
_DATA = "data_"
ARTIFACTS = "mlartifacts"
"""Folder beside a database that holds the files of its runs."""


@dataclass(frozen=True)
class Row:
    """One line of `tracking.csv`.

    Attributes:
        status: `new`; `continued` where more came in; `replaced` where other numbers came in; `unchanged`; `missing`
            (nothing on disk); or `pending: <reason>`.
        url: Its page in the MLflow UI.
    """

    run: str
    kind: str
    run_id: str
    status: str
    url: str = ""


class Store:
    """The runs of one results folder.

    Args:
        client: The tracking server.
        results: The results folder.
        config: Names the experiment.
        place: Where artifacts of a new experiment go; None leaves it to the server. An experiment of the same name
            whose artifacts were in another such place came with a moved or copied folder: it is deleted, as MLflow
            does it, and could be restored.
        tags: Further tags of new runs. Those that name the data (`data_...`) are kept up to date in runs that stay.
    """

    def __init__(
        self, client: MlflowClient, results: Path, config: Config, place: str | None, tags: dict[str, str]
    ) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.client, self.results, self.config = client, results, config
        # Several people may send the same data set to one server: keys tell their results folders apart.
        owner = f"{getpass.getuser()}:{results.resolve()}"
        self.source = bytes_digest(owner)[:12]
        self.tags = {**tags, "host": socket.gethostname(), "results": str(results), STATE: "current"}
        self.experiment = self._experiment(place)
        self.known = self._known()

    def sync(self, records: Sequence[Record]) -> Iterator[Row]:
        """Bring the records up to date, one row each in the same order.

        Args:
            records: The sweep, then its children.
        """
        sweep = self._sync_one(records[0], None)
        yield sweep
        for record in records[1:]:
            yield self._sync_one(record, sweep.run_id)
        self._mark_others({self._key(record) for record in records})

    def _experiment(self, place: str | None) -> str:
        name = self.config.tracking.experiment or self.config.name
        found = self.client.get_experiment_by_name(name)
        if found is not None and _moved(found.artifact_location, place):
            # its files would go to, and be looked for at, the folder's old place: all is on disk and recorded anew
            self.client.rename_experiment(found.experiment_id, f"{name}, moved {uuid4().hex[:8]}")
            self.client.delete_experiment(found.experiment_id)
            found = None
        if found is None:
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

    def _sync_one(self, record: Record, parent: str | None) -> Row:
        old = self.known.get(self._key(record))
        if not record.exists:
            if old is not None:
                self._set(old, {STATE: "gone"})
            return Row(record.name, record.kind, "", "missing")
        if old is None:
            return Row(record.name, record.kind, self._create(record, parent), "new")
        if self._contradicts(old, record):
            run_id = self._create(record, parent)
            self.client.delete_run(old.info.run_id)
            return Row(record.name, record.kind, run_id, "replaced")
        data = {key: value for key, value in self.tags.items() if key.startswith(_DATA)}
        self._set(old, {**data, STATE: "current", **({_PARENT: parent} if parent else {})})
        if old.data.tags.get(HASH) == record.hash:
            return Row(record.name, record.kind, old.info.run_id, "unchanged")
        self._log(old.info.run_id, record, self._history(old))
        return Row(record.name, record.kind, old.info.run_id, "continued")

    def _contradicts(self, old: Tracked, record: Record) -> bool:
        """Whether a run holds what the record says otherwise: params and metrics can be added to, never changed."""
        if old.data.tags.get(HASH) == record.hash:
            return False
        if any(record.params.get(key) != value for key, value in old.data.params.items()):
            return True
        return not self._history(old) <= {(p.name, p.step, p.value) for p in record.points}

    def _history(self, run: Tracked) -> set[tuple[str, int, float]]:
        return {
            (point.key, point.step, point.value)
            for name in run.data.metrics
            for point in self.client.get_metric_history(run.info.run_id, name)
        }

    def _create(self, record: Record, parent: str | None) -> str:
        tags = {**self.tags, **record.tags, KEY: self._key(record), **({_PARENT: parent} if parent else {})}
        run = self.client.create_run(self.experiment, start_time=record.started, tags=tags, run_name=record.name)
        self._log(run.info.run_id, record, set())
        return str(run.info.run_id)

    def _log(self, run_id: str, record: Record, known: set[tuple[str, int, float]]) -> None:
        """Everything but the key; the hash comes last, so that a run broken off half-way is taken up again."""
        log_content(self.client, run_id, record, known, self.results, self.config)
        self.client.set_terminated(run_id, "FINISHED", record.ended)
        self.client.set_tag(run_id, HASH, record.hash)

    def _set(self, run: Tracked, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            if run.data.tags.get(key) != value:
                self.client.set_tag(run.info.run_id, key, value)

    def _mark_others(self, current: set[str]) -> None:
        """Runs that left the sweep stay as they are; a tag keeps them out of the saved searches."""
        for key, run in self.known.items():
            _, kind, name = key.split("/", 2)
            if key not in current:
                self._set(run, {STATE: "left" if (self.results / kind / name).exists() else "gone"})


def _moved(location: str, place: str | None) -> bool:
    """Whether artifacts that this package put beside a database lie elsewhere than it would put them now."""
    return place is not None and location != place and location.endswith(f"/{ARTIFACTS}")
