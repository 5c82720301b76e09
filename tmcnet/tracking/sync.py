"""Record a results folder in MLflow. Trainings only write files; one serial job records them afterwards.

MLflow only records: a server that is down causes a warning and never stops the workflow.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO
from urllib.parse import urlencode, urlsplit

import pandas as pd

from tmcnet.config import Config, load
from tmcnet.errors import InputError, Problem, hide_secrets
from tmcnet.raster.io.writer import write_bytes
from tmcnet.report.results import Results
from tmcnet.tracking.experiment import ARTIFACT_FOLDER, Row, TrackedRuns
from tmcnet.tracking.predictor import register_best
from tmcnet.tracking.records import RunRecord, collect, sweep_record

TABLE, ABOUT = "tracking.csv", "tracking.json"
"""Files in the results folder: what is recorded, and where to look at it."""
SQLITE = "sqlite:///"
LOCAL_UI = "http://127.0.0.1:5000"
"""Where `make mlflow` opens the UI."""
CURRENT_FILTER = "tags.kind = 'finetune' AND tags.state = 'current'"
"""Selects the fine-tuned runs that the sweep names."""
MAX_COMPARED_RUNS = 50
"""More make neither a readable page nor an address that every browser accepts."""
WAIT_SECONDS = 60
"""Time between messages while another process records."""
QUIET_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}


def sync(results: Path, config: Config, tags: dict[str, str]) -> list[Row]:
    """Bring MLflow up to date with a results folder; repeated calls make no duplicates.

    The data set is an experiment, the sweep a parent run. Each pre-training method and each fine-tuned network is a
    run nested in it, with its scores on the test part. The tag `tmcnet.key` names the run folder. A record stays
    while the hash of its content is the same, is replaced when it changes, and deleted when the folder is gone. New
    runs get the `tags`, such as `git_commit`; existing ones only those that begin with `data_`, because the same data
    may have been put under version control later.

    Writes `tracking.csv` (`run, kind, run_id, status, url`) and `tracking.json` (links, and what `send` needs);
    returns a row for the sweep, each pre-training method and each run of the sweep.
    """
    records = [sweep_record(results, config), *collect(results, config)]
    rows: list[Row] = []
    links: list[dict[str, str]] = []
    uri = tracking_uri(results, config)
    with _quiet_environment():
        try:
            with _exclusive(results, uri):
                _record(records, results, config, tags, rows, links)
        except Exception as error:  # no failure of a tracking server may stop the workflow
            rows.extend(_pending(records[len(rows) :], error, uri))
    about = {
        "server": ui_address(uri),
        "search": links[0]["url"] if links else None,
        "links": links,
        "config": config.model_dump(mode="json"),
        "tags": tags,
    }
    write_bytes(results / ABOUT, (json.dumps(about, indent=1) + "\n").encode())
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


def _record(
    records: list[RunRecord],
    results: Path,
    config: Config,
    tags: dict[str, str],
    rows: list[Row],
    links: list[dict[str, str]],
) -> None:
    """Record all runs; rows and links are filled step by step, so that they survive a failure."""
    from mlflow import MlflowClient

    uri = tracking_uri(results, config)
    location = None
    if uri.startswith(SQLITE):
        location = (Path(uri.removeprefix(SQLITE)).resolve().parent / ARTIFACT_FOLDER).as_uri()
    client = MlflowClient(uri)
    runs = TrackedRuns(client, Results(results, config), location, tags)
    for row in runs.sync(records):
        rows.append(replace(row, url=run_address(uri, runs.experiment, row.run_id)))
    tuned = [(r, row.run_id) for r, row in zip(records, rows, strict=True) if r.kind == "finetune" and r.exists]
    links += searches(runs.experiment, uri, config, [run_id for _, run_id in tuned])
    if config.tracking.register_as is not None:
        register_best(client, config.tracking.register_as, config.report.metric, tuned)


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
            file = stack.enter_context(path.open("a+"))
            _wait(file, path)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield


def _wait(file: IO[str], path: Path) -> None:
    """Wait for a lock, and say for whom and how long."""
    started = said = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            now = time.monotonic()
            if said == started or now - said >= WAIT_SECONDS:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                words = f"waiting for process {holder}, which holds {path}, for {now - started:.0f} s"
                print(words, file=sys.stderr, flush=True)
                said = now
            time.sleep(0.2)


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
