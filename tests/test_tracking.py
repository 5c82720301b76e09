import csv
import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "report"))

from results_folder import make_results

from tmcnet.tracking import STALE, sync, tracking_uri

SMALL = {"sweep": [{"methods": ["random", "tmcnet"], "fractions": [5], "seeds": [1]}], "crop_size": 48}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tracking") / "results"
    return root, make_results(root, finetune=SMALL)


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def rows_of(path):
    with path.open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def runs_of(root, config):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(root, config))
    experiment = client.get_experiment_by_name(config.name)
    return client, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_sync_records_once_updates_changes_and_marks_what_is_gone(folder, quiet):
    root, config = folder
    out = root / "tracking.csv"
    environment = dict(os.environ)
    sync(root, config, out, {"git_commit": "abc"})
    assert dict(os.environ) == environment
    first = rows_of(out)
    name = "mssnet-corrected__tmcnet__R5__s1"
    assert {row["status"] for row in first.values()} == {"new"}
    assert list(first) == ["fixture", "tmcnet", "tmcnet_reference", "mssnet-corrected__random__R5__s1", name]

    client, runs = runs_of(root, config)
    run = runs[name]
    assert run.data.tags["mlflow.parentRunId"] == first["fixture"]["run_id"]
    assert (
        run.data.tags | {"git_commit": "abc", "network": "mssnet", "seed": "1", "kind": "finetune"} == run.data.tags
    )
    scores = json.loads((root / "evaluate" / name / "metrics.json").read_text())
    assert run.data.metrics["miou"] == pytest.approx(scores["miou"])
    assert run.data.metrics["seeds.miou_low"] == pytest.approx(scores["miou"] - 0.021)
    assert run.data.metrics["iou._script_alert_1___script_"] == pytest.approx(
        scores["iou"]["<script>alert(1)</script>"]
    )
    assert run.data.params["model.backbone"] == "resnet18"
    assert run.data.params["run.fraction"] == "5.0"
    curve = client.get_metric_history(run.info.run_id, "curve.loss")
    assert [point.step for point in curve] == list(range(10, 210, 10))
    assert len(client.get_metric_history(run.info.run_id, "curve.val_miou")) == 4
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {
        "curves.csv",
        "summary.json",
        "confusion.json",
    }
    parent = {a.path for a in client.list_artifacts(first["fixture"]["run_id"])}
    assert {"config.yaml", "manifest.json", "metrics.csv"} <= parent

    sync(root, config, out, {"git_commit": "another commit, same results", "data_version": "123.dir"})
    second = rows_of(out)
    assert {row["status"] for row in second.values()} == {"unchanged"}
    assert {n: row["run_id"] for n, row in first.items()} == {n: row["run_id"] for n, row in second.items()}
    for run in runs_of(root, config)[1].values():
        assert (run.data.tags["git_commit"], run.data.tags["data_version"]) == ("abc", "123.dir")

    scores["miou"] = 0.999
    (root / "evaluate" / name / "metrics.json").write_text(json.dumps(scores))
    shutil.move(root / "pretrain" / "tmcnet_reference", root / "elsewhere")
    sync(root, config, out, {"data_version": "456.dir"})
    client, runs = runs_of(root, config)
    third = rows_of(out)
    assert {run.data.tags["data_version"] for n, run in runs.items() if n != "tmcnet_reference"} == {"456.dir"}
    assert runs["tmcnet_reference"].data.tags["data_version"] == "123.dir"
    assert third[name]["status"] == "updated"
    assert third["tmcnet"]["status"] == "unchanged"
    assert third["tmcnet_reference"]["status"] == "stale"
    assert list(third) == list(first) and len(out.read_text().splitlines()) == 1 + len(first)
    assert len(runs) == len(first)
    assert runs[name].data.metrics["miou"] == pytest.approx(0.999)
    assert runs["tmcnet_reference"].data.tags[STALE] == "true"

    shutil.move(root / "elsewhere", root / "pretrain" / "tmcnet_reference")
    sync(root, config, out, {})
    assert rows_of(out)["tmcnet_reference"]["status"] == "unchanged"
    assert STALE not in runs_of(root, config)[1]["tmcnet_reference"].data.tags


def test_a_server_that_is_down_costs_a_warning_only(folder, quiet, tmp_path, monkeypatch, capsys):
    root, config = folder
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    began = time.monotonic()
    sync(root, config, tmp_path / "tracking.csv", {})
    assert time.monotonic() - began < 20
    rows = rows_of(tmp_path / "tracking.csv")
    assert len(rows) == 5
    assert all(row["status"].startswith("pending: ") and not row["run_id"] for row in rows.values())
    assert "warning: runs were not recorded in MLflow" in capsys.readouterr().err


def test_config_comes_before_environment_before_the_folder(folder, monkeypatch, tmp_path):
    _, config = folder
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path, config) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env.invalid")
    assert tracking_uri(tmp_path, config) == "http://env.invalid"
    other = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": "http://own.invalid"})})
    assert tracking_uri(tmp_path, other) == "http://own.invalid"
