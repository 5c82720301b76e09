"""Record a results folder in MLflow. Trainings only write files; one serial job records them afterwards.

The data set is an experiment, the sweep a parent run; each pre-training method and each fine-tuned network is a run
nested in it. MLflow only records: a server that is down causes a warning and never stops the workflow.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import logging
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import pandas as pd

from tmcnet.config import Config, load
from tmcnet.errors import InputError, Problem, hide_secrets
from tmcnet.hashing import bytes_digest
from tmcnet.raster.io.writer import write_bytes
from tmcnet.report.results import Results
from tmcnet.tracking.predictor import MODEL_FOLDER
from tmcnet.tracking.records import RunRecord, collect, log_record, sweep_record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TABLE, ABOUT = "tracking.csv", "tracking.json"
"""Files in the results folder: what is recorded, and where to look at it."""
KEY_TAG, HASH_TAG = "tmcnet.key", "tmcnet.hash"
STATE_TAG = "state"
"""`current`, or `left` for a run that its sweep no longer names."""
PARENT_TAG = "mlflow.parentRunId"
"""Documented system tag of MLflow."""
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}
"""Without this tag, the UI takes the experiment for one of language models and hides its runs. There is no Python API
for it; a test compares it with the installed UI."""
DATA_TAG_PREFIX = "data_"
MAX_RUNS = 50_000
"""Every MLflow server returns at least this many runs for one search."""
SQLITE = "sqlite:///"
ARTIFACT_FOLDER = "mlartifacts"
"""Folder beside a database that holds the files of its runs."""
LOCAL_UI = "http://127.0.0.1:5000"
"""Where `make mlflow` opens the UI."""
CURRENT_FILTER = "tags.kind = 'finetune' AND tags.state = 'current'"
"""Selects the fine-tuned runs that the sweep names."""
MAX_COMPARED_RUNS = 50
"""More make neither a readable page nor an address that every browser accepts."""
ALIAS = "best"
QUIET_ENVIRONMENT = {
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


def sync(results: Path, config: Config, tags: dict[str, str]) -> list[Row]:
    """Bring MLflow up to date with a results folder; repeated calls make no duplicates.

    The tag `tmcnet.key` names the run folder of a record. A record stays while the hash of its content is the same,
    is replaced when it changes, and deleted when the folder is gone. New runs get the `tags`, such as `git_commit`;
    existing ones only those that begin with `data_`, because the same data may have been put under version control
    later.

    Writes `tracking.csv` (`run, kind, run_id, status, url`) and `tracking.json` (links, and what `send` needs);
    returns a row for the sweep, each pre-training method and each run of the sweep.
    """
    records = [sweep_record(results, config), *collect(results, config)]
    uri = tracking_uri(results, config)
    rows: list[Row] = []
    links: list[dict[str, str]] = []
    try:
        with _quiet_environment(), _exclusive(results, uri):
            runs = TrackedRuns(uri, Results(results, config), tags)
            for row in runs.sync(records):
                rows.append(replace(row, url=run_address(uri, runs.experiment, row.run_id)))
            ids = {row.run_id: record for row, record in zip(rows, records, strict=True)}
            tuned = {run_id: record for run_id, record in ids.items() if record.kind == "finetune" and run_id}
            links = searches(runs.experiment, uri, config, list(tuned))
            if config.tracking.register_as is not None:
                _register_best(runs.client, config.tracking.register_as, config.report.metric, tuned)
    except Exception as error:  # no failure of a tracking server may stop the workflow
        rows += _pending(records[len(rows) :], error, uri)
    search = links[0]["url"] if links else None
    about = {"server": ui_address(uri), "search": search, "links": links, "config": config.model_dump(mode="json")}
    write_bytes(results / ABOUT, (json.dumps({**about, "tags": tags}, indent=1) + "\n").encode())
    write_bytes(results / TABLE, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode())
    return rows


def send(results: Path) -> list[Row]:
    """Send what an unreachable server missed, and what was added to a results folder since the workflow recorded it.

    Raises:
        InputError: If the folder holds no `tracking.json` of this version.
    """
    try:
        about = json.loads((results / ABOUT).read_text())
        config, tags = load(about["config"]), about["tags"]
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        what = f"holds no config to send the runs with ({' '.join(str(error).split())[:200]})"
        remedy = "Name a results folder, and let the workflow reach `snakemake report` first."
        raise InputError(Problem(str(results / ABOUT), what, remedy)) from None
    return sync(results, config, tags)


def tracking_uri(results: Path, config: Config) -> str:
    """The config's address, else `MLFLOW_TRACKING_URI`, else a database in the results folder."""
    database = f"{SQLITE}{results.resolve() / 'mlflow.db'}"
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or database


class TrackedRuns:
    """The runs of one results folder in its experiment, which the config names.

    A database has the files of its runs beside it. An experiment with another `mlartifacts` folder was moved or
    copied together with its results: it is deleted the way MLflow does (it can be restored), and the runs are
    recorded anew.
    """

    def __init__(self, uri: str, results: Results, tags: dict[str, str]) -> None:
        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.client, self.results = MlflowClient(uri), results
        # Several people may send the same data set to one server: keys distinguish their results folders.
        self.source = bytes_digest(f"{getpass.getuser()}:{results.root.resolve()}")[:12]
        self.tags = {**tags, "host": socket.gethostname(), "results": str(results.root), STATE_TAG: "current"}
        self.experiment = self._open_experiment(uri, results.config.name)
        self.known = self._known_runs()

    def sync(self, records: list[RunRecord]) -> Iterator[Row]:
        """Bring the records up to date, the sweep first, then its children; one row each in the same order."""
        sweep = ""
        for record in records:
            row = self._sync_one(record, {PARENT_TAG: sweep} if sweep else {})
            sweep = sweep or row.run_id
            yield row
        for key, runs in self.known.items():  # of runs that left the sweep
            _, kind, name = key.split("/", 2)
            left = (self.results.root / kind / name).exists()
            if left:
                self._set_tags(runs[0], {STATE_TAG: "left", PARENT_TAG: sweep})
            self._delete(runs[left:])

    def _open_experiment(self, uri: str, name: str) -> str:
        location = None  # the server chooses
        if uri.startswith(SQLITE):
            location = (Path(uri.removeprefix(SQLITE)).resolve().parent / ARTIFACT_FOLDER).as_uri()
        found = self.client.get_experiment_by_name(name)
        old = str(found.artifact_location) if found else location
        if location and old and old != location and old.endswith(f"/{ARTIFACT_FOLDER}"):
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
        own = f"tags.`{KEY_TAG}` LIKE '{self.source}/%'"
        known: dict[str, list[Run]] = {}
        found = self.client.search_runs([self.experiment], own, max_results=MAX_RUNS)
        for run in sorted(found, key=lambda run: HASH_TAG not in run.data.tags):
            known.setdefault(run.data.tags[KEY_TAG], []).append(run)
        return known

    def _sync_one(self, record: RunRecord, parent: dict[str, str]) -> Row:
        key = f"{self.source}/{record.kind}/{record.name}"
        old = self.known.pop(key, [])
        same = next((run for run in old if record.exists and run.data.tags.get(HASH_TAG) == record.hash), None)
        if not record.exists:
            run_id, status = "", "missing"
        elif same is not None:
            data = {name: value for name, value in self.tags.items() if name.startswith(DATA_TAG_PREFIX)}
            self._set_tags(same, {**data, **parent, STATE_TAG: "current"})
            run_id, status = str(same.info.run_id), "unchanged"
        else:
            run_id = self._create(record, {**self.tags, **record.tags, **parent, KEY_TAG: key})
            status = "replaced" if old else "new"
        self._delete(run for run in old if run.info.run_id != run_id)
        return Row(record.name, record.kind, run_id, status)

    def _create(self, record: RunRecord, tags: dict[str, str]) -> str:
        """Write a new run, and the hash last, so that the next sync replaces an interrupted one."""
        run = self.client.create_run(self.experiment, start_time=record.started, tags=tags, run_name=record.name)
        run_id = str(run.info.run_id)
        log_record(self.client, run_id, record, self.results)
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


def _register_best(client: MlflowClient, name: str, metric: str, runs: dict[str, RunRecord]) -> None:
    """Give the network with the best validation score (`metric`) the alias `best` in the model registry.

    The test part has no influence. A run that was registered before keeps its version. Records without weights or
    validation score do not count.
    """
    scores = {
        run_id: point.value
        for run_id, record in runs.items()
        for point in record.points
        if point.name == f"validation/{metric}" and record.weights is not None
    }
    if not scores:
        return
    best = max(scores, key=lambda run_id: scores[run_id])
    if not list(client.search_registered_models(filter_string=f"name = '{name}'")):
        client.create_registered_model(name)
    versions = {v.run_id: v for v in client.search_model_versions(f"name = '{name}'")}
    version = versions.get(best) or client.create_model_version(name, f"runs:/{best}/{MODEL_FOLDER}", best)
    client.set_registered_model_alias(name, ALIAS, str(version.version))


def searches(experiment: str, uri: str, config: Config, runs: list[str]) -> list[dict[str, str]]:
    """Addresses of the MLflow UI with the current fine-tuned runs (ids), best first; by start; and side by side.

    Of each search `title`, `url`, and `filter`: text for the search field that selects the same runs.
    """
    found = {"All fine-tuned runs, best first": CURRENT_FILTER}
    for method in sorted({run.method for run in config.runs}):
        found[f"Runs that start from {method}"] = f"{CURRENT_FILTER} AND tags.method = '{method}'"
    order = {"orderByKey": f"metrics.`{config.report.metric}`", "orderByAsc": "false"}
    page = f"{ui_address(uri)}/#/experiments/{experiment}/runs"
    links = [(title, f"{page}?{urlencode({'searchFilter': text, **order})}", text) for title, text in found.items()]
    if 1 < len(runs) <= MAX_COMPARED_RUNS:
        query = urlencode({"runs": json.dumps(runs), "experiments": json.dumps([experiment])})
        links.append(("Runs side by side", f"{ui_address(uri)}/#/compare-runs?{query}", CURRENT_FILTER))
    return [{"title": title, "url": url, "filter": text} for title, url, text in links]


def ui_address(uri: str) -> str:
    """Address of the UI in a browser, without the user name and password of the server's address.

    Unless the tracking address is HTTP, it is that of `make mlflow`.
    """
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # no address at all, which is why nothing was recorded
        return LOCAL_UI
    if parts.scheme not in ("http", "https"):
        return LOCAL_UI
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"


def run_address(uri: str, experiment: str, run_id: str) -> str:
    """The page of one run; empty for an empty id."""
    return f"{ui_address(uri)}/#/experiments/{experiment}/runs/{run_id}" if run_id else ""


@contextmanager
def _exclusive(results: Path, uri: str) -> Iterator[None]:
    """Wait until no other process records this folder or writes its database; SQLite takes one writer at a time."""
    paths = [results / ".state" / "tracking.lock"]
    if uri.startswith(SQLITE):
        paths.append(Path(f"{uri.removeprefix(SQLITE)}.lock"))
    with ExitStack() as stack:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process that records, which holds {path}", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pending(records: list[RunRecord], error: Exception, uri: str) -> list[Row]:
    text = " ".join(str(error).split()).partition(" [SQL: ")[0]
    reason = hide_secrets(text)[:200] or type(error).__name__
    print(
        f"warning: recording in MLflow at {hide_secrets(uri)} stopped: {reason}\n"
        "The results stay on disk; `python -m tmcnet.tracking send <results folder>` sends them later. A damaged "
        "database can be moved away: all runs are then recorded in a new one.",
        file=sys.stderr,
    )
    return [Row(r.name, r.kind, "", f"pending: {reason}") for r in records]


@contextmanager
def _quiet_environment() -> Iterator[None]:
    """Short time-outs, no telemetry, few log lines; variables that the user has set stay."""
    added = {key: value for key, value in QUIET_ENVIRONMENT.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
