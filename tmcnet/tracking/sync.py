"""Send what lies in a results folder to MLflow. Trainings write files and know nothing of this; one serial job syncs.

MLflow only records: a server that is down costs a warning, never a result.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from tmcnet.config import Config, load
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.atomic import write_bytes
from tmcnet.tracking.links import COMPARE, Link, as_records, run_address, save_searches, ui_address
from tmcnet.tracking.models import register_best
from tmcnet.tracking.records import Record, collect, sweep_record
from tmcnet.tracking.store import ARTIFACTS, Row, Store

TABLE, ABOUT = "tracking.csv", "tracking.json"
"""Files in the results folder: what was recorded, and where to look at it."""
_SQLITE = "sqlite:///"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass
class _Outcome:
    rows: list[Row] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)


def sync(results: Path, config: Config, tags: dict[str, str]) -> list[Row]:
    """Bring MLflow up to date with a results folder, without doubles however often it is called.

    The data set is an experiment, the sweep a parent run, and each pre-training method and fine-tuned network a run
    nested in it, scores on the test part included. A run is found again by the tag `tmcnet.key`. It is left alone
    while its content hash is the same, continued where only something came in, and replaced where numbers changed.

    Writes `tracking.csv` (`run, kind, run_id, status, url`) and `tracking.json` (where to look; what `send` needs).

    Args:
        results: The results folder.
        config: The config that it was made with; `tracking.uri` says where to send it.
        tags: Further tags of every new run, such as `git_commit`. Those that name the data (`data_...`) are kept up
            to date in runs that stay, too: the same data may have come under version control only now.

    Returns:
        A row for the sweep, each pre-training method and each run of the sweep.
    """
    records = [sweep_record(results, config), *collect(results, config)]
    done = _Outcome()
    uri = tracking_uri(results, config)
    with _quiet_environment():
        try:
            with _alone(results, uri):
                _sync(records, results, config, uri, tags, done)
        except Exception as error:  # whatever a tracking server does must not stop the workflow
            done.rows.extend(_pending(records[len(done.rows) :], error))
    about = {
        "server": ui_address(uri),
        "search": next((link.url for link in done.links if link.title == COMPARE), None),
        "links": as_records(done.links),
        "config": config.model_dump(mode="json"),
        "tags": tags,
    }
    write_bytes(results / ABOUT, (json.dumps(about, indent=1) + "\n").encode())
    write_bytes(results / TABLE, _table(done.rows).encode())
    return done.rows


def send(results: Path) -> list[Row]:
    """Send what a server that was down has not got yet, and what has come since.

    Args:
        results: A results folder that the workflow has recorded once, with or without success.

    Raises:
        InputError: If the folder holds no `tracking.json` of this version.
    """
    try:
        about = json.loads((results / ABOUT).read_text())
        config, tags = load(about["config"]), about["tags"]
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        what = f"tells no config to send the runs with ({' '.join(str(error).split())[:200]})"
        remedy = "Name a results folder, and let the workflow come as far as `snakemake report` first."
        raise InputError(Problem(str(results / ABOUT), what, remedy)) from None
    return sync(results, config, tags)


def tracking_uri(results: Path, config: Config) -> str:
    """Where runs go: the config's address, else `MLFLOW_TRACKING_URI`, else a database in the results folder."""
    own = f"{_SQLITE}{results.resolve() / 'mlflow.db'}"
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or own


def _sync(
    records: list[Record], results: Path, config: Config, uri: str, tags: dict[str, str], done: _Outcome
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    database = Path(uri.removeprefix(_SQLITE)).resolve() if uri.startswith(_SQLITE) else None
    place = (database.parent / ARTIFACTS).as_uri() if database else None
    store = Store(client, results, config, place, tags)
    for row in store.sync(records):
        done.rows.append(replace(row, url=run_address(uri, store.experiment, row.run_id)))
    tuned = [(r, row.run_id) for r, row in zip(records, done.rows, strict=True) if r.kind == "finetune" and r.exists]
    done.links = save_searches(client, store.experiment, uri, config, [run_id for _, run_id in tuned])
    if config.tracking.register_as is not None:
        register_best(client, config.tracking.register_as, config.report.metric, tuned)


@contextmanager
def _alone(results: Path, uri: str) -> Iterator[None]:
    """Wait until no other sync works on the folder or its database: SQLite is made and written by one at a time."""
    paths = [results / ".state" / "tracking.lock"]
    if uri.startswith(_SQLITE):
        paths.append(Path(f"{uri.removeprefix(_SQLITE)}.lock"))
    with ExitStack() as stack:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pending(records: list[Record], error: Exception) -> list[Row]:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    print(
        f"warning: recording in MLflow broke off: {reason}\n"
        "What is missing stays on disk; `python -m tmcnet.tracking send <results folder>` sends it later.",
        file=sys.stderr,
    )
    return [Row(r.name, r.kind, "", f"pending: {reason}") for r in records]


def _table(rows: list[Row]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = [field.name for field in fields(Row)]
    table.writerow(columns)
    table.writerows([getattr(row, column) for column in columns] for row in rows)
    return text.getvalue()


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
